"""A support that stands before training: of weights that were pruned once; or nothing is pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from atmc_search.compress import FixedSupport, Weights
from atmc_search.training.parts.base import Moment
from atmc_search.training.parts.support import Support


class Fixed(Support):
    """Weights off the support are 0 in all of training.

    Attributes:
        support: the weights that stay; None: all.
    """

    name: ClassVar[str] = "fixed"

    def __init__(self, weights: Mapping[str, nn.Parameter], support: FixedSupport | None) -> None:
        self.weights = weights
        self.support = support

    @torch.no_grad()
    def begin(self) -> None:
        if self.support is not None:
            self._write(self.support.project(self.weights, None)[0])

    def after_step(self, at: Moment) -> None:
        self.begin()

    @torch.no_grad()
    def chosen(self, *, averaged: bool = False) -> Weights:
        if self.support is None or not averaged:
            return self.weights
        return self.support.project(self.weights, None)[0]
