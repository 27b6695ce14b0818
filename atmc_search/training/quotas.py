"""How much each layer keeps, learned: HARP (Zhao and Wressnegger, arXiv 2412.14714), beside the scores of `scores`.

Layer l of n_l weights keeps the share a_l = g(r_l) = a_min + (1 − a_min) σ(r_l), its n_l a_l largest |scores|. The
quotas r learn together with the scores, by the gradient of

    loss(w₀ ⊙ mask) + γ · max(Σ n_l a_l / k − 1, 0),

straight through the mask: ∂loss/∂a_l = Σ_i ∂loss/∂m_i over all entries of the layer, those left out as well. All start
at one share that is more than the budget pays for; γ grows step by step until that is met, and stays. As in the
authors' code, a_min is a tenth of the budget's share, of 20 steps of γ.

Unlike there, a step of γ is a twentieth of the search and not an epoch, as a search may be shorter than 20 epochs;
quotas have a learning rate of their own, for the same reason, and no weight decay. And the budget is met exactly: what
the search ends with, and every file before, keeps k weights by quotas that are all moved by as much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atmc_search.compress import GlobalL0, Weights
from atmc_search.training.state import State

_LEAST = 0.1
_STEPS = 20
_MOST = 0.99
_WIDEST = 60.0
"""Beyond this logit, σ is 0 or 1 in double precision."""


@dataclass
class Quotas:
    """The quotas of some layers, and SGD on them.

    Attributes:
        sizes: weights of each layer, by name.
        k: that all layers together end with, at least as many as there are layers.
        gamma: a step of γ.
        lr: of the quotas, before the search's cosine.
        momentum: of SGD on them.
        quotas: (layers,) float64, r in the order of `sizes`.
        velocities: (layers,), SGD's.
        steps: how many `gamma` γ is.
        met: whether the budget was met at the end of a step of γ, which then stays.
    """

    sizes: Mapping[str, int]
    k: int
    gamma: float
    lr: float
    momentum: float
    quotas: Tensor
    velocities: Tensor
    steps: int = 1
    met: bool = False

    @classmethod
    def of(cls, weights: Weights, k: int, *, start: float, gamma: float, lr: float, momentum: float) -> Quotas:
        """Every layer at the share `start`, or at the budget's where that is more."""
        sizes = {name: weight.numel() for name, weight in weights.items()}
        keep = k / sum(sizes.values())
        least = _LEAST * keep
        inner = min((max(start, keep) - least) / (1 - least), _MOST)
        quotas = torch.full((len(sizes),), math.log(inner / (1 - inner)), dtype=torch.float64)
        return cls(sizes, k, gamma, lr, momentum, quotas, torch.zeros_like(quotas))

    def shares(self, shift: float = 0.0) -> Tensor:
        """(layers,) shares a, of quotas that are all `shift` more."""
        return self._least + (1 - self._least) * torch.sigmoid(self.quotas + shift)

    def excess(self) -> float:
        """By which share of the budget the layers together exceed it; 0 within."""
        return max(float(self._sizes @ self.shares()) / self.k - 1, 0.0)

    def counts(self) -> dict[str, int]:
        """Weights that each layer keeps now, at least one."""
        exact = (self._sizes * self.shares()).tolist()
        return {name: max(1, round(count)) for name, count in zip(self.sizes, exact, strict=True)}

    def final_counts(self) -> dict[str, int]:
        """Weights that each layer ends with: k together, at least one each, by quotas that are all moved by as much."""
        spare = self._sizes - 1
        left = self.k - len(self.sizes)
        low, high = -_WIDEST, _WIDEST
        while high - low > 1e-9:
            middle = (low + high) / 2
            low, high = (low, middle) if float(spare @ self.shares(middle)) > left else (middle, high)
        exact = spare * self.shares(low)
        if float(exact.sum()) > left:  # the least shares alone are over: a network with many layers of few weights
            exact *= left / float(exact.sum())
        counts = exact.floor().long()
        by_remainder = torch.argsort(counts - exact, stable=True)
        room = left - int(counts.sum())
        counts[by_remainder[counts[by_remainder] < spare[by_remainder]][:room]] += 1
        return {name: 1 + count for name, count in zip(self.sizes, counts.tolist(), strict=True)}

    def learn(self, of_masks: Tensor, progress: float, rate: float) -> None:
        """A step of SGD.

        Args:
            of_masks: (layers,) Σ_i ∂loss/∂m_i.
            progress: share of the search that is done, below 1.
            rate: share of the learning rate at this step.
        """
        self._grow(progress)
        inner = torch.sigmoid(self.quotas)
        of_shares = of_masks.to(self.quotas)
        if self.excess() > 0:
            of_shares = of_shares + self.gamma * self.steps / self.k * self._sizes
        self.velocities.mul_(self.momentum).add_(of_shares * (1 - self._least) * inner * (1 - inner))
        self.quotas.sub_(self.velocities, alpha=self.lr * rate)

    def state(self) -> State:
        """What a checkpoint holds of it."""
        return {"quotas": self.quotas, "velocities": self.velocities}, {"steps": self.steps, "met": self.met}

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self.quotas, self.velocities = tensors["quotas"].cpu(), tensors["velocities"].cpu()
        self.steps, self.met = facts["steps"], facts["met"]

    @property
    def _least(self) -> float:
        return _LEAST * self.k / sum(self.sizes.values())

    @property
    def _sizes(self) -> Tensor:
        return torch.tensor(list(self.sizes.values()), dtype=torch.float64)

    def _grow(self, progress: float) -> None:
        wanted = 1 + int(_STEPS * progress)
        if self.met or wanted <= self.steps:
            return
        if self.excess() < 5e-5:  # four digits, as in the authors' code
            self.met = True
        else:
            self.steps = wanted


def largest_of_counts(scores: Weights, counts: Mapping[str, int]) -> dict[str, Tensor]:
    """The largest of every tensor by magnitude, so many of each; zeros elsewhere."""
    return {name: GlobalL0(counts[name]).project({name: tensor}, None)[0][name] for name, tensor in scores.items()}
