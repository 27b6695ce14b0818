"""FGSM from a random start, for fast adversarial training (Wong, Rice & Kolter, arXiv 2001.03994)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from atmc_search.attacks.base import Attack
from atmc_search.attacks.divergence import ascend_divergence
from atmc_search.attacks.loss import log_odds
from atmc_search.attacks.threat import ThreatModel, ascend, clip, random_start


class FGSMRS(Attack):
    """One step of steepest ascent on the cross-entropy from a random point of the ball, projected back onto it.

    Training on it can overfit catastrophically, to images that a single step finds and no others: `guard` of a stage
    watches for that.
    """

    step: float = Field(1.25, gt=0, description="length of the step, in units of eps")

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        generator: torch.Generator,
        *,
        until_broken: bool = False,
    ) -> Tensor:
        x_in = random_start(threat, x, generator).requires_grad_()
        (gradient,) = torch.autograd.grad(log_odds(model(x_in), y).sum(), x_in)
        return clip(threat, x, ascend(threat, x_in.detach(), gradient, self.step * threat.eps))

    @property
    def can_diverge(self) -> bool:
        return True

    def diverge(
        self, model: nn.Module, x: Tensor, reference: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        start, step_size = random_start(threat, x, generator), self.step * threat.eps
        return ascend_divergence(model, x, reference, threat, start=start, steps=1, step_size=step_size)
