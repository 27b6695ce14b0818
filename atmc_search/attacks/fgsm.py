"""FGSM: one step along the sign of the gradient (Goodfellow et al., arXiv 1412.6572)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from atmc_search.attacks.base import Attack
from atmc_search.attacks.loss import log_odds
from atmc_search.attacks.threat import ThreatModel, ascend


class FGSM(Attack):
    """One full-length step of steepest ascent on the cross-entropy, from the clean image."""

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
        x_in = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(log_odds(model(x_in), y).sum(), x_in)
        return ascend(threat, x.detach(), gradient, threat.eps)
