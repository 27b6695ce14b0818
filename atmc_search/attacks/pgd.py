"""PGD: projected gradient ascent from a random point of the ball (Madry et al., arXiv 1706.06083)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from atmc_search.attacks.base import Attack
from atmc_search.attacks.loss import log_odds
from atmc_search.attacks.threat import ascend, clip, random_start
from atmc_search.spec import ThreatModel


class PGD(Attack):
    """`steps` steps x ← Π(x + step_size · ascent direction of the cross-entropy), best of `restarts` starts."""

    steps: int = Field(7, ge=1, description="gradient steps")
    step_size: float | None = Field(None, gt=0, description="in [0, 1] pixel units; default: 2.5 eps / steps")
    restarts: int = Field(1, ge=1, description="independent starts; each image keeps its worst")
    random_start: bool = Field(True, description="start anywhere in the ball; false: at the clean image")

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
        # 2.5 eps / steps lets an iterate cross the ball and come back (Madry et al.). The original ATMC code used
        # 1.25 eps / steps from the clean image, from which a random start could not reach the far side.
        step_size = self.step_size or 2.5 * threat.eps / self.steps
        best = self._run(model, x, y, threat, generator, step_size)
        if self.restarts == 1:
            return best
        best_margin = _margin(model, best, y)
        for _ in range(self.restarts - 1):
            x_adv = self._run(model, x, y, threat, generator, step_size)
            margin = _margin(model, x_adv, y)
            worse = (margin < best_margin).view(-1, *[1] * (x.dim() - 1))
            best = torch.where(worse, x_adv, best)
            best_margin = torch.minimum(margin, best_margin)
        return best

    def _run(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        generator: torch.Generator,
        step_size: float,
    ) -> Tensor:
        x_adv = random_start(threat, x, generator) if self.random_start else x.clone()
        for _ in range(self.steps):
            x_adv.requires_grad_()
            (gradient,) = torch.autograd.grad(log_odds(model(x_adv), y).sum(), x_adv)
            with torch.no_grad():
                x_adv = clip(threat, x, ascend(threat, x_adv, gradient, step_size))
        return x_adv


@torch.no_grad()
def _margin(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """True logit minus the best other, shape (n,): below 0 the model is wrong."""
    logits = model(x)
    true = logits.gather(1, y[:, None]).squeeze(1)
    margin: Tensor = true - logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return margin
