"""A support by learned scores: a search in the first share of training, then a fixed support (`training.scores`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from atmc_search.compress import Constraint, FixedSupport, Weights
from atmc_search.training.parts.base import Moment
from atmc_search.training.parts.support import Support
from atmc_search.training.scores import ScoreSearch
from atmc_search.training.state import State


class Scored(Support):
    """While the search lasts the weights stand still and their scores learn; after it the support stands still.

    Attributes:
        search: the scores. It ends at the first step past its share of training.
        allowed: the budget that the search ends within, for averages of weights.
    """

    name: ClassVar[str] = "scored"

    def __init__(self, weights: Mapping[str, nn.Parameter], search: ScoreSearch, allowed: Constraint[None]) -> None:
        self.weights = weights
        self.search = search
        self.allowed = allowed
        self._searching = True
        self._support: FixedSupport | None = None

    @property
    def searching(self) -> bool:
        return self._searching

    @torch.no_grad()
    def begin(self) -> None:
        self._choose(0.0)

    def before_step(self, at: Moment) -> None:
        if self._searching and at.progress < self.search.share:
            self.search.learn(self.weights, at.progress)
            return
        self._searching = False
        self._support = FixedSupport.of(self.weights)  # from the weights at every step: nothing to store for a resume

    @torch.no_grad()
    def after_step(self, at: Moment) -> None:
        if self._searching:
            self._choose(at.after)
        else:
            assert self._support is not None
            self._write(self._support.project(self.weights, None)[0])

    @torch.no_grad()
    def chosen(self, *, averaged: bool = False) -> Weights:
        if averaged:
            return self.allowed.project(self.weights, None)[0]
        return self.search.weights(final=True) if self._searching else self.weights

    def state(self) -> State:
        """Nothing once the search is over: the support is that of the weights."""
        return self.search.state() if self._searching else ({}, {})

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self._searching = bool(tensors)
        if self._searching:
            self.search.load(tensors, facts)

    @torch.no_grad()
    def catch_up(self, progress: float) -> None:
        """A search that is past its share ends here: until then the weights may be more than the budget."""
        if self._searching:
            self._choose(progress)

    def _choose(self, progress: float) -> None:
        """Writes the weights that the scores choose after a share `progress` of training."""
        self._write(self.search.weights(final=progress >= self.search.share))
