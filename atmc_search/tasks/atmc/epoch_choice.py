"""Which of a trial's measured epochs it reports, and when it ends early.

To add a way to choose: a subclass of `EpochChoice`, and a line in `choice_of`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from atmc_search.tasks.atmc.measurer import Measured
from atmc_search.tasks.atmc.spec import AtmcSpec, CompressSpec
from atmc_search.tasks.atmc.target import TargetControl
from atmc_search.training import EpochStats, Selection
from atmc_search.training.state import State


class EpochChoice(ABC):
    """Hears of every epoch, and says what the trial reports then."""

    @property
    def over(self) -> bool:
        """Whether the trial is to end before its last epoch."""
        return False

    @property
    def kept(self) -> Measured | None:
        """An earlier file that the trial still reports; None: there is none."""
        return None

    @abstractmethod
    def after_epoch(self, stats: EpochStats, measured: Measured | None, progress: float) -> Measured | None:
        """What the trial reports after a share `progress` of training.

        Args:
            stats: of the epoch's training.
            measured: the epoch's file; None: it was not measured, and nothing is reported.
        """

    def state(self) -> State:
        """What a checkpoint holds of it."""
        return {}, {}

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:  # noqa: B027
        """Goes on from what `state` gave."""


class SelectedEpoch(EpochChoice):
    """The last measured epoch, or the best; and an end after some measurements without a better one (`Selection`)."""

    def __init__(self, spec: AtmcSpec) -> None:
        self._settings = spec.compress
        self._best_counts = spec.evaluate.select == "best"
        self._patience = spec.train.patience
        self._selection = Selection()
        self._kept: Measured | None = None

    @property
    def over(self) -> bool:
        return self._patience is not None and self._selection.since >= self._patience

    @property
    def kept(self) -> Measured | None:
        return self._kept

    def after_epoch(self, stats: EpochStats, measured: Measured | None, progress: float) -> Measured | None:
        if measured is None:
            return None
        robust, clean = measured.metrics["robust_accuracy"], measured.metrics["clean_accuracy"]
        better = self._selection.take(robust, clean, counts=in_force(self._settings, progress))
        if not self._best_counts:
            return measured
        if better:
            self._kept = measured
        return self._kept

    def state(self) -> State:
        tensors: dict[str, Tensor] = {}
        if self._kept is not None:
            tensors["artifact"] = torch.frombuffer(bytearray(self._kept.artifact), dtype=torch.uint8)
        metrics = None if self._kept is None else dict(self._kept.metrics)
        return tensors, {"best": self._selection.best, "since": self._selection.since, "metrics": metrics}

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        best = facts["best"]
        self._selection = Selection(tuple(best) if best else None, facts["since"])
        self._kept = None
        if facts["metrics"] is not None:
            self._kept = Measured(tensors["artifact"].cpu().numpy().tobytes(), dict(facts["metrics"]))


class TargetEpoch(EpochChoice):
    """Every measured epoch, and at the end the file that best holds the target. Its state is the target's, a part."""

    def __init__(self, target: TargetControl) -> None:
        self._target = target

    def after_epoch(self, stats: EpochStats, measured: Measured | None, progress: float) -> Measured | None:
        self._target.follow(stats.adversarial_accuracy, None if measured is None else measured.metrics)
        if measured is None:
            return None
        figures = self._target.noted(measured.artifact, measured.metrics)
        if progress >= 1:
            return Measured(self._target.artifact, self._target.metrics)
        return Measured(measured.artifact, figures)


def choice_of(spec: AtmcSpec, target: TargetControl | None) -> EpochChoice:
    """The choice that a spec asks for."""
    return SelectedEpoch(spec) if target is None else TargetEpoch(target)


def in_force(settings: CompressSpec, progress: float) -> bool:
    """Whether all constraints have set in after a share `progress` of training: patience does not run before."""
    begin = settings.codebook_from if settings.quantised else 0.0
    if settings.scored:
        begin = max(begin, settings.scores.share)
    if settings.schedule is not None:
        begin = max(begin, settings.schedule.end)
    return progress > begin
