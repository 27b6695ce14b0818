"""A fixed support: what was pruned once stays pruned, the rest moves freely (magnitude pruning and fine-tuning)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from atmc_search.compress.base import Constraint, Weights


@dataclass(frozen=True, eq=False)
class FixedSupport(Constraint[None]):
    """Zeros wherever `masks` (bool, by weight name) are False. The violation is the number of non-zeros there."""

    masks: Mapping[str, Tensor]

    @classmethod
    def of(cls, weights: Weights) -> FixedSupport:
        """The support that `weights` have now."""
        return cls({name: weight.detach() != 0 for name, weight in weights.items()})

    def init(self, weights: Weights) -> None:
        return None

    def project(self, weights: Weights, state: None) -> tuple[dict[str, Tensor], None]:
        """The Euclidean projection: every entry off the support becomes 0."""
        return {name: torch.where(self.masks[name], w, w.new_zeros(())) for name, w in weights.items()}, None

    def violation(self, weights: Weights) -> float:
        return float(sum(int(torch.count_nonzero(w[~self.masks[name]])) for name, w in weights.items()))
