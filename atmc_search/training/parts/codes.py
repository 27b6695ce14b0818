"""Weights on few values: the contract of all ways to a codebook."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from atmc_search.compress import Codebook, Weights
from atmc_search.training.parts.base import Moment, Part
from atmc_search.training.parts.support import Support


class Codes(Part):
    """Draws the weights of a support to a codebook, from some share of training on.

    Attributes:
        support: which weights stay. While it searches, no codebook sets in.
        codebook_of: gives the codebook constraint for the support's weights as they are when it sets in.
        sets_in: share of training after which it does.
        every: steps between updates of the centres.
    """

    def __init__(
        self, support: Support, codebook_of: Callable[[Weights], Codebook], *, sets_in: float, every: int
    ) -> None:
        self.support = support
        self.codebook_of = codebook_of
        self.sets_in = sets_in
        self.every = every

    @property
    @abstractmethod
    def codebook(self) -> Codebook | None:
        """The constraint; None: it has not set in."""

    @property
    @abstractmethod
    def centres(self) -> Mapping[str, Tensor]:
        """The centres of each tensor, by its name; empty where the codebook has not set in."""

    def _waits(self, at: Moment) -> bool:
        return self.support.searching or at.progress < self.sets_in

    def _is_due(self, at: Moment) -> bool:
        """Whether the centres are updated after this step."""
        return (at.step + 1) % self.every == 0


def codebook_facts(codebook: Codebook) -> dict[str, Any]:
    """A codebook as plain data."""
    bits = codebook.bits if isinstance(codebook.bits, int) else dict(codebook.bits)
    return {"bits": bits, "seed": codebook.seed, "price": codebook.price}
