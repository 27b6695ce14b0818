"""A sparsity schedule: the ℓ0 budget shrinks over training instead of jumping to k (Zhu & Gupta, arXiv 1710.01878)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CubicSchedule:
    """k_t = k + (N − k)(1 − (t − begin) / (end − begin))³ between `begin` and `end`, N before and k after.

    A function of the share of training that is done and of nothing else, so that a resumed trial needs no state of it.

    Attributes:
        entries: N, of all constrained tensors together: at `begin` nothing is pruned, whatever the factors.
        k: the final budget.
        begin: share of training from which the budget shrinks.
        end: share from which it is k.
        freeze: share after which the support no longer changes, at least `end`; 1 for never.
    """

    entries: int
    k: int
    begin: float
    end: float
    freeze: float = 1.0

    def k_at(self, progress: float) -> int:
        """The budget after a share `progress` of training."""
        if progress >= self.end:
            return self.k
        left = 1 - max(0.0, progress - self.begin) / (self.end - self.begin)
        return self.k + round((self.entries - self.k) * left**3)

    def frozen(self, progress: float) -> bool:
        """Whether the support that weights have now is the one that they end with."""
        return progress >= self.freeze
