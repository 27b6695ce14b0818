"""The ℓ0 budget over weights that have an effect: what a file would not hold is not paid for.

At a density of a percent or less, many of the k largest weights have a constant input or an unused output: the
artifact leaves them out, and their share of the budget is lost. To count the others alone is the *effective
sparsity* of Vysogorets and Kempe (arXiv 2107.02306); here at every projection of the training, so that the places of
the dead go to weights that live.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from atmc_search.compress.base import Constraint, Weights


@dataclass(frozen=True, eq=False)
class LiveBudget(Constraint[None]):
    """At most k non-zeros, each of which has an effect on the logits.

    Attributes:
        budget: the ℓ0 budget.
        effective: of weights by name, the bool masks of entries, zero or not, that have an effect between the channels
            which these weights keep alive (`channels.EffectiveEntries`).

    The violation is the budget's: dead weights are a waste and not a breach.
    """

    budget: Constraint[None]
    effective: Callable[[Weights], Mapping[str, Tensor]]

    def init(self, weights: Weights) -> None:
        return None

    def project(self, weights: Weights, state: None) -> tuple[dict[str, Tensor], None]:
        """The budget's projection; while some of its entries have no effect, that of the entries which have one.

        Effective entries stay from round to round. The places of the others go to the next largest entries that would
        have an effect. The result is the budget's own projection, to the bit, if all of its entries are effective, and
        also if none is: it does not collapse further than that.
        """
        kept = first = self.budget.project(weights, None)[0]
        allowed = dict(weights)
        while True:
            effective = self.effective(kept)
            if not any(bool((tensor != 0).masked_fill(~effective[name], False).any()) for name, tensor in kept.items()):
                return first, None
            if not any(bool((tensor != 0).masked_fill(effective[name], False).any()) for name, tensor in kept.items()):
                return kept, None
            allowed = {name: torch.where(effective[name], w, w.new_zeros(())) for name, w in allowed.items()}
            kept = self.budget.project(allowed, None)[0]

    def violation(self, weights: Weights) -> float:
        return self.budget.violation(weights)
