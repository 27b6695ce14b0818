"""Training as plain as can be, for tests that write a step down or count what a constraint did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from atmc_search.attacks import PGD, Attack, ThreatModel
from atmc_search.data import DeviceData
from atmc_search.models import build_model
from atmc_search.training import EpochStats, Step, make_optimizer, train_epoch
from atmc_search.training.parts import Moment, Part
from atmc_search.training.stage import StageSpec

PLAIN_SGD: dict[str, Any] = {"lr": 0.05, "lr_schedule": "cosine", "warmup": 0.0, "nesterov": False, "clip_norm": None}
PAPER: dict[str, Any] = {"schedule": None, "count": "all", "codebook": "admm"}
"""Of the constraints: at every step all of them, and codebooks by ADMM."""
THREAT = ThreatModel(norm="linf", eps=0.1)
"""Of `step_of`, unless told otherwise."""
_PGD = PGD(steps=2)


def plain_stage(**settings: Any) -> StageSpec:
    """A stage of momentum, a rate that falls by half a cosine and weight decay, but for `settings`."""
    return StageSpec(**PLAIN_SGD | settings)


def small_model(name: str = "small_cnn", **args: object) -> nn.Module:
    """A model of the digits, of few weights and the same ones every time."""
    args = args or {"width": 4}
    return build_model(name, args, input_shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.3], seed=0)


def step_of(
    model: nn.Module, stage: StageSpec, attack: Attack = _PGD, threat: ThreatModel = THREAT, **rest: Any
) -> Step:
    """The step of a model in a stage; `rest`: loss, parts, augment."""
    return Step(model, make_optimizer(model, stage), stage, attack, threat, **rest)


def train(step: Step, data: DeviceData, *, seed: int = 0, label: str = "train") -> list[EpochStats]:
    """All epochs of the step's stage."""
    return [train_epoch(step, data, epoch=epoch, seed=seed, label=label) for epoch in range(step.stage.epochs)]


class Counts(Part):
    """Counts the non-zeros of some weights after every step."""

    name = "counts"

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = weights
        self.found: list[int] = []

    def after_step(self, at: Moment) -> None:
        self.found.append(sum(int(torch.count_nonzero(weight)) for weight in self.weights.values()))
