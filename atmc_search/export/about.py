"""What an export is told of the model, and what a target is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import nn

from atmc_search.errors import ArtifactError


@dataclass(frozen=True)
class About:
    """A model's header: how it is built, and where it comes from.

    Attributes:
        header: as `artifact.read_header` gives it: model, args, input, classes, threat, study, trial ...
    """

    header: Mapping[str, Any]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        channels, height, width = self.header["input"]
        return channels, height, width

    def texts(self) -> dict[str, str]:
        """The header as JSON in two parts, architecture and provenance, for formats that keep strings.

        Raises:
            ArtifactError: it is nested too deep.
        """
        architecture = {key: self.header[key] for key in ("model", "args", "input", "classes")}
        provenance = {key: value for key, value in self.header.items() if key not in architecture}
        try:
            return {"architecture": json.dumps(architecture), "provenance": json.dumps(provenance)}
        except RecursionError:
            raise ArtifactError("artifact's header is nested too deep; it is damaged, get it again") from None


Target: TypeAlias = Callable[[nn.Module, About], bytes]
"""The model, in eval mode and on the CPU, as the bytes of a file."""
