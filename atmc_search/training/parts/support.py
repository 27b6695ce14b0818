"""Which weights stay: the contract of all ways to find a support.

To add one: a file with a `Support` subclass, a line in `parts/__init__.py`, and one where a task chooses its support.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import nn

from atmc_search.compress import Weights
from atmc_search.training.parts.base import Part


class Support(Part):
    """Keeps the weights within what they are allowed, after every step.

    Attributes:
        weights: the constrained parameters by name.
    """

    weights: Mapping[str, nn.Parameter]

    @property
    def searching(self) -> bool:
        """Whether scores still learn which weights stay: until then, no codebook sets in."""
        return False

    @abstractmethod
    def begin(self) -> None:
        """Moves the weights to where training starts: within what is allowed."""

    @abstractmethod
    def chosen(self, *, averaged: bool = False) -> Weights:
        """The weights within what they are to end with: what is deployed, whatever they may still be now.

        Args:
            averaged: the model holds an average of many steps' weights (`Average.final`), each of which was within
                what was allowed, and which is not.
        """

    @torch.no_grad()
    def _write(self, values: Weights) -> None:
        for name, weight in self.weights.items():
            weight.copy_(values[name])
