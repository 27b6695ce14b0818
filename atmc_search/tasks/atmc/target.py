"""The smallest artifact that holds an accuracy: min R s.t. D ≤ c by a dual variable (van Rozendaal et al., 2005.04064).

R is the size, D − c the share of images by which the accuracy falls short of the target. min R + λ(D − c) is solved in
k where R grows like k and D falls like 1/k by k ∝ √λ; with log λ += η·EMA(D − c) after every epoch,
log k += η/2·EMA(D − c). The accuracy is that of validation images; in epochs without a measurement, that of training
plus what the last measurement was off it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from atmc_search.tasks.atmc.spec import TargetSpec
from atmc_search.training.parts import Part, Projected
from atmc_search.training.state import State

_ETA = 8.0
_SMOOTHING = 0.5
_START = 0.1
"""Share of the dense weights that training starts with."""
_MOST_STEP = 1.0
"""Most that log k moves in an epoch."""


@dataclass(eq=False)
class TargetControl(Part):
    """Drives the ℓ0 budget of a trial to what a target needs, and remembers the smallest file that holds it.

    Attributes:
        spec: the target.
        support: of the weights; its ℓ0 budget follows.
        dense_weights: of the plain model.
        least: the fewest non-zeros.
        log_k: log of the ℓ0 budget.
        violation: EMA(D − c).
        offset: validation accuracy − adversarial training accuracy where both were last known.
        artifact: the best file so far.
        metrics: its figures.
    """

    name: ClassVar[str] = "target"
    spec: TargetSpec
    support: Projected
    dense_weights: int
    least: int
    log_k: float = 0.0
    violation: float | None = None
    offset: float = 0.0
    artifact: bytes = b""
    metrics: dict[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        """The first budget."""
        self.log_k = math.log(max(self.least, _START * self.dense_weights))
        self._set()

    def follow(self, training_accuracy: float, measured: Mapping[str, Any] | None) -> None:
        """The dual ascent after an epoch.

        Args:
            training_accuracy: on the epoch's adversarial images.
            measured: the epoch's figures on validation images, if they were measured.
        """
        if measured is not None:
            self.offset = measured[self.spec.metric] - training_accuracy
        short = self.spec.value - (training_accuracy + self.offset)
        self.violation = short if self.violation is None else self.violation + _SMOOTHING * (short - self.violation)
        self.log_k += min(max(_ETA / 2 * self.violation, -_MOST_STEP), _MOST_STEP)
        self._set()

    def noted(self, artifact: bytes, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Remembers a measured file if it is the best so far; its figures, with by how much it misses the target.

        A file that holds the target beats one that does not; of those that hold it the smaller is better, of the others
        the more accurate.
        """
        figures = dict(metrics) | {"target_shortfall": max(0.0, self.spec.value - metrics[self.spec.metric])}
        if not self.metrics or _rank(figures) < _rank(self.metrics):
            self.artifact, self.metrics = artifact, figures
        return figures

    def state(self) -> State:
        numbers = {"log_k": self.log_k, "violation": self.violation, "offset": self.offset, "metrics": self.metrics}
        return {"artifact": torch.frombuffer(bytearray(self.artifact or b"\0"), dtype=torch.uint8)}, numbers

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.artifact = tensors["artifact"].cpu().numpy().tobytes()
        self.log_k, self.violation = facts["log_k"], facts["violation"]
        self.offset, self.metrics = facts["offset"], dict(facts["metrics"])
        self._set()

    def _set(self) -> None:
        entries = sum(weight.numel() for weight in self.support.weights.values())
        self.log_k = min(max(self.log_k, math.log(self.least)), math.log(min(entries, self.dense_weights)))
        self.support.resize(round(math.exp(self.log_k)))


def _rank(figures: Mapping[str, Any]) -> tuple[float, int]:
    return figures["target_shortfall"], figures["size_bytes"]
