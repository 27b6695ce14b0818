"""A support of fixed size that moves: the smallest weights make room for those that the loss asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from atmc_search.compress import Constraint, FixedSupport, GrowSchedule, Weights, regrown
from atmc_search.training.parts.base import Moment
from atmc_search.training.parts.support import Support


class Grown(Support):
    """Starts with the budget's choice, and exchanges weights on the schedule's steps (`compress.grow`).

    Attributes:
        allowed: the budget that the weights start and end within.
        schedule: when weights are exchanged, and how many.
    """

    name: ClassVar[str] = "grown"

    def __init__(self, weights: Mapping[str, nn.Parameter], allowed: Constraint[None], schedule: GrowSchedule) -> None:
        self.weights = weights
        self.allowed = allowed
        self.schedule = schedule
        self._support: FixedSupport | None = None

    @torch.no_grad()
    def begin(self) -> None:
        self._write(self.allowed.project(self.weights, None)[0])

    def before_step(self, at: Moment) -> None:
        gradients = {name: w.grad for name, w in self.weights.items() if w.grad is not None}
        self._support = regrown(self.weights, gradients, self.schedule.share_at(at.step, at.progress))

    @torch.no_grad()
    def after_step(self, at: Moment) -> None:
        assert self._support is not None
        self._write(self._support.project(self.weights, None)[0])

    @torch.no_grad()
    def chosen(self, *, averaged: bool = False) -> Weights:
        return self.allowed.project(self.weights, None)[0] if averaged else self.weights
