"""The Task contract: all that the search knows of the work it spreads. It knows nothing of Ray."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from atmc_search.data import Splits
from atmc_search.results import Column
from atmc_search.spec import TrialSpec

Report = Callable[[Mapping[str, Any]], None]
"""Called with the figures of an epoch, for progress."""


@dataclass(frozen=True)
class Start:
    """What trials of equal `start_key` share: tensors by name and plain facts. Made once a study."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Task(ABC):
    """One trial: made from a fully determined TrialSpec, advanced an epoch at a time.

    Calls come in this order: `check` once per corner of a space in the driver; `start_key`, and for a key not seen
    before `make_start`, in a worker; the constructor; perhaps `load_state_dict`; then `step` until `done`. After each
    step that measured, `artifact()` gives the bytes that the reported figures were measured on. Equal specs, data and
    starts give equal results on one machine, and a trial resumed from `state_dict` goes on to the bit: on a CPU; on a
    GPU as far as torch has deterministic algorithms for the model's layers.
    """

    columns: ClassVar[tuple[Column, ...]]
    """The metrics that `step` returns; any number of them can be objectives."""

    epochs: int
    """How many steps make the trial, at most."""

    epoch: int
    """How many are done."""

    @abstractmethod
    def __init__(self, spec: TrialSpec, data: Splits, start: Start, *, device: str, meta: Mapping[str, Any]) -> None:
        """Prepares the first step.

        Args:
            spec: the trial.
            data: its images; test images are never looked at.
            start: what `make_start` gave for this spec's `start_key`.
            device: torch device to work on.
            meta: small facts that travel in the artifact: study, trial.
        """

    @classmethod
    @abstractmethod
    def check(cls, spec: TrialSpec, data: Splits) -> None:
        """Refuses, quickly, a spec that could not run. Raises SpecError naming the dotted path."""

    @classmethod
    @abstractmethod
    def least(cls, spec: TrialSpec, data: Splits) -> Mapping[str, float]:
        """Lower bounds of metrics that no training can pass, for refusing impossible bounds early."""

    @classmethod
    @abstractmethod
    def reference(cls, spec: TrialSpec, data: Splits) -> Mapping[str, float]:
        """The worst values worth counting, by metric: the reference point of the hypervolume."""

    @classmethod
    @abstractmethod
    def start_key(cls, spec: TrialSpec) -> str:
        """Names the start: equal for all specs that can share it."""

    @classmethod
    @abstractmethod
    def make_start(cls, spec: TrialSpec, data: Splits, *, device: str, report: Report) -> Start:
        """Makes the start (trains the dense model, say)."""

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do: every epoch is done, unless a task ends sooner."""
        return self.epoch >= self.epochs

    @abstractmethod
    def step(self) -> dict[str, Any]:
        """One epoch. Returns metrics by column name; on epochs that do not measure, only those of training.

        Raises:
            TrialFailed: the trial cannot go on.
        """

    @abstractmethod
    def artifact(self) -> bytes:
        """The file that the last measurement was made of."""

    @abstractmethod
    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that a later process needs to go on to the bit: tensors and plain facts."""

    @abstractmethod
    def load_state_dict(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict` of a task with the same spec, data and start."""
