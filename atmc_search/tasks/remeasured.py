"""What a task says of an artifact that it measured again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A metric measured again.

    Attributes:
        name: of the column.
        value: in the column's unit.
        low, high: ends of its 95 % interval; None where it has none.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Remeasured:
    """An artifact measured again.

    Attributes:
        figures: the metrics that were measured.
        samples: how many samples they were measured on, and of what: (359, "test images").
        conditions: how, in words: "attack pgd (steps 20), linf eps 0.1"; empty where there is nothing to say.
        warnings: by a short name, sentences that whoever ships the artifact should read.
        notes: sentences about the measurement itself.
        row: all of this and more as plain data, for `--json`.
    """

    figures: tuple[Figure, ...]
    samples: tuple[int, str]
    conditions: str = ""
    warnings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict)
