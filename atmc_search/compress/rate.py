"""The ℓ0 budget by bytes: of two weights of one size, the one stays whose place and value cost fewer bits.

Rate-distortion pruning: an entry stays if w² > λ · bits, with λ such that k do (the Lagrangian of entropy-coded scalar
quantisation, Chou, Lookabaugh and Gray, 1989; of networks in DeepCABAC, arXiv 1907.11900). A file's coder spends
−log2 of the density on the place of a non-zero, of the density that its row and column have, so that full rows attract
weights and nearly empty ones lose theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from atmc_search.compress.base import Constraint, Weights
from atmc_search.compress.l0 import GlobalL0, largest

_ROUNDS = 3
_PRIOR = 0.5
"""Non-zeros that a row or column is taken to have beside its own: an empty one has a price."""


@dataclass(frozen=True)
class RateBudget(Constraint[None]):
    """At most `k` non-zeros, those of the largest |w| / √bits. The violation is the number of non-zeros too many.

    Attributes:
        k: the most non-zeros.
        code_bits: what a non-zero's value costs beside its place.
    """

    k: int
    code_bits: float

    def init(self, weights: Weights) -> None:
        return None

    def project(self, weights: Weights, state: None) -> tuple[dict[str, Tensor], None]:
        """Prices follow from the support and the support from prices, three times from the k largest magnitudes on.

        A function of the weights alone, without a memory of the last prices. Where no more than k are non-zero, all
        stay.
        """
        kept = GlobalL0(self.k).project(weights, None)[0]
        if self.k <= 0 or sum(int(torch.count_nonzero(tensor)) for tensor in weights.values()) <= self.k:
            return kept, None
        for _ in range(_ROUNDS):
            values = [w.abs() / place_bits(kept[name] != 0).add(self.code_bits).sqrt() for name, w in weights.items()]
            # NaN counts as largest, as in GlobalL0: zeroed, it would hide that the training diverged.
            flat = torch.cat([value.reshape(-1) for value in values]).nan_to_num_(nan=torch.inf, posinf=torch.inf)
            masks = torch.split(largest(flat, self.k), [tensor.numel() for tensor in weights.values()])
            kept = {
                name: torch.where(mask.view(w.shape), w, w.new_zeros(()))
                for mask, (name, w) in zip(masks, weights.items(), strict=True)
            }
        return kept, None

    def violation(self, weights: Weights) -> float:
        return GlobalL0(self.k).violation(weights)


def place_bits(support: Tensor) -> Tensor:
    """−log2 of the density at each place: of its row times that of its column over the tensor's, at most 1.

    Args:
        support: bool, of any shape; rows are of the first axis, columns of all others together.

    Returns:
        ≥ 0, of the support's shape.
    """
    matrix = support.reshape(len(support), -1).float()
    rows, columns = matrix.shape
    overall = (matrix.sum() + _PRIOR) / (matrix.numel() + 2 * _PRIOR)
    # A row without a non-zero of its own is as dense as the tensor, with the weight of a place or so.
    row = (matrix.sum(1) + _PRIOR * overall) / (columns + _PRIOR)
    column = (matrix.sum(0) + _PRIOR * overall) / (rows + _PRIOR)
    bits = overall.log2() - row.log2()[:, None] - column.log2()
    return bits.clamp(min=0).view(support.shape)
