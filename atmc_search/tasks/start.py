"""What trials start from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from atmc_search.training import tensors_from_bytes, tensors_to_bytes

_ORIGIN = "start_origin"


@dataclass(frozen=True)
class Start:
    """What trials start from, such as trained dense weights: tensors by name, and plain facts.

    A start is trained or read from a file once (`Task.make_start`), or comes from another trial (`Task.start_from`).

    Attributes:
        tensors: by name.
        facts: figures that trials report beside their own, by column name.
        origin: where it comes from: "trained", "file NAME SHA-256", "trial NUMBER SHA-256"; "none" if it is empty.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "trained"

    def to_bytes(self) -> bytes:
        """A safetensors file."""
        return tensors_to_bytes(self.tensors, {**self.facts, _ORIGIN: self.origin})

    @classmethod
    def from_bytes(cls, data: bytes) -> Start:
        """What `to_bytes` wrote, in this release or an earlier one.

        Raises:
            Exception: of safetensors, JSON or torch, where the bytes are something else.
        """
        tensors, facts = tensors_from_bytes(data)
        return cls(tensors, facts, facts.pop(_ORIGIN, "trained"))


def parent_of(origin: object) -> int | None:
    """The number of the trial that a start of this `origin` comes from; None where it comes from no trial."""
    found = re.match(r"trial (\d+)", origin) if isinstance(origin, str) else None
    return int(found[1]) if found else None
