"""A support by projection: after every step the weights go to the nearest ones within a budget of non-zeros."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import nn

from atmc_search.compress import Constraint, CubicSchedule, FixedSupport, GlobalL0, Weights
from atmc_search.training.parts.base import Moment
from atmc_search.training.parts.support import Support


class Projected(Support):
    """Projects onto the budget; under a schedule, onto what that allows, until the support freezes.

    Attributes:
        k: non-zeros that the weights end with.
        budget: what projects onto so many non-zeros.
        schedule: of the budget; None: k from the start.
    """

    name: ClassVar[str] = "projected"

    def __init__(
        self,
        weights: Mapping[str, nn.Parameter],
        k: int,
        budget: Callable[[int], Constraint[None]] = GlobalL0,
        schedule: CubicSchedule | None = None,
    ) -> None:
        self.weights = weights
        self.k = k
        self.budget = budget
        self.schedule = schedule
        self._frozen: FixedSupport | None = None

    def resize(self, k: int) -> None:
        """The weights end with k non-zeros from now on; the support that a schedule has frozen stays."""
        self.k = k
        if self.schedule is not None:
            self.schedule = replace(self.schedule, k=k)

    def begin(self) -> None:
        self._project(0.0)

    def before_step(self, at: Moment) -> None:
        if self.schedule is not None and self.schedule.frozen(at.progress):
            self._frozen = FixedSupport.of(self.weights)  # from the weights at every step: nothing to store

    def after_step(self, at: Moment) -> None:
        self._project(at.after)

    def catch_up(self, progress: float) -> None:
        """Where the support freezes next, it must not freeze larger than the budget."""
        self._frozen = None
        if self.schedule is not None and self.schedule.frozen(progress):
            self._project(progress)

    @torch.no_grad()
    def chosen(self, *, averaged: bool = False) -> Weights:
        if self.schedule is None and not averaged:
            return self.weights
        return self.budget(self.k).project(self.weights, None)[0]

    @torch.no_grad()
    def _project(self, progress: float) -> None:
        k = self.k if self.schedule is None else self.schedule.k_at(progress)
        allowed = self._frozen or self.budget(k)
        self._write(allowed.project(self.weights, None)[0])
