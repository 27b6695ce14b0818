"""Pruning by learned importance: which weights stay is trained on the loss itself, before they are fine-tuned.

HYDRA (Sehwag et al., arXiv 2002.10509): every weight w₀ of the dense model has a score, at first √(6 / fan-in) ·
w₀ / max |w₀| of its layer. For a share of the training the weights stand still and the scores learn: the network runs
on w₀ where |score| is among the largest and on 0 elsewhere, and the gradient of |score| is that of the mask, straight
through the choice: ∂loss/∂w · w₀. Then the support is fixed, and the weights are fine-tuned from w₀. Unlike in the
original, biases and norm parameters learn in both phases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from atmc_search.compress import Constraint, Weights
from atmc_search.training.quotas import Quotas, largest_of_counts
from atmc_search.training.state import State, grouped, joined


@dataclass
class ScoreSearch:
    """The first phase: scores of frozen weights, and SGD on them.

    Attributes:
        start: the weights as they stand still, by name.
        choose: of the scores by name, those that stay; zeros elsewhere.
        share: of the training that this phase takes.
        lr: of the scores; it falls to 0 by half a cosine over the phase.
        momentum: of SGD on the scores.
        scores: as they are now.
        velocities: SGD's.
        quotas: of the layers, that learn beside the scores and choose in place of `choose`; None: they are fixed.
    """

    start: Weights
    choose: Callable[[Weights], Weights]
    share: float
    lr: float
    momentum: float
    scores: dict[str, Tensor]
    velocities: dict[str, Tensor]
    quotas: Quotas | None = None

    @classmethod
    def of(
        cls,
        weights: Weights,
        choose: Callable[[Weights], Weights],
        *,
        share: float,
        lr: float,
        momentum: float,
        quotas: Quotas | None = None,
    ) -> ScoreSearch:
        """From the dense weights as they are; a weight of 0 stays 0."""
        start = {name: weight.detach().clone() for name, weight in weights.items()}
        scores = {name: first_scores(weight) for name, weight in start.items()}
        zeros = {name: torch.zeros_like(weight) for name, weight in start.items()}
        return cls(start, choose, share, lr, momentum, scores, zeros, quotas)

    def weights(self, *, final: bool = False) -> dict[str, Tensor]:
        """w₀ where the score stays, 0 elsewhere; `final`: within what the search is to end with."""
        if self.quotas is None:
            chosen = self.choose(self.scores)
        else:
            chosen = largest_of_counts(self.scores, self.quotas.final_counts() if final else self.quotas.counts())
        return {name: torch.where(chosen[name] != 0, w, w.new_zeros(())) for name, w in self.start.items()}

    @torch.no_grad()
    def learn(self, weights: Mapping[str, nn.Parameter], progress: float) -> None:
        """A step on the scores by the gradients that the weights hold, and which are taken from them.

        Args:
            weights: after a backward pass at `weights()`.
            progress: share of the training that is done, below `share`.
        """
        fall = 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * progress / self.share))))
        of_layers = []
        for name, weight in weights.items():
            assert weight.grad is not None
            of_mask = weight.grad * self.start[name]
            self.velocities[name].mul_(self.momentum).add_(of_mask * self.scores[name].sign())
            self.scores[name].sub_(self.velocities[name], alpha=self.lr * fall)
            of_layers.append(of_mask.sum())
            weight.grad = None  # the optimizer passes over a weight without one
        if self.quotas is not None:
            self.quotas.learn(torch.stack(of_layers), progress / self.share, fall)

    def state(self) -> State:
        """What a checkpoint holds of it."""
        quotas, facts = ({}, {}) if self.quotas is None else self.quotas.state()
        return joined({"scores": self.scores, "velocities": self.velocities, "quotas": quotas}), facts

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        groups = grouped(tensors)
        self.scores, self.velocities = groups["scores"], groups["velocities"]
        if self.quotas is not None:
            self.quotas.load(groups["quotas"], facts)


def first_scores(weight: Tensor) -> Tensor:
    """√(6 / fan-in) · w / max |w|: as spread as a layer's initial weights are, in the order of magnitudes."""
    largest = weight.abs().max()
    scale = (6 / max(1, weight[0].numel())) ** 0.5
    return torch.where(largest > 0, weight * (scale / largest), weight)


def largest_of_each(scores: Weights, k: int) -> dict[str, Tensor]:
    """The largest of every tensor by magnitude, as many as its share of k and at least one; k over all together.

    Args:
        scores: by name.
        k: at least the number of tensors.
    """
    total, left = sum(tensor.numel() for tensor in scores.values()), k - len(scores)
    exact = {name: left * tensor.numel() / total for name, tensor in scores.items()}
    counts = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(scores, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: left - sum(counts.values())]:
        counts[name] += 1
    return largest_of_counts(scores, {name: 1 + count for name, count in counts.items()})


def largest_of_all(budget: Constraint[None]) -> Callable[[Weights], Weights]:
    """The choice that a budget over all tensors together makes."""
    return lambda scores: budget.project(scores, None)[0]
