"""Ascent on the divergence from given predictions, in place of a loss of the label: TRADES' inner maximisation.

max over x' of KL(p ‖ softmax model(x')) (Zhang et al., arXiv 1901.08573, algorithm 1). At the clean image, where p is
the model's own prediction, this is at its minimum and the gradient is zero: a start away from it is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_search.attacks.threat import ThreatModel, ascend, clip


def ascend_divergence(
    model: nn.Module,
    x: Tensor,
    reference: Tensor,
    threat: ThreatModel,
    *,
    start: Tensor,
    steps: int,
    step_size: float,
) -> Tensor:
    """`steps` steps x' ← Π(x' + step_size · ascent direction of KL(reference ‖ model(x'))).

    Args:
        model: images in [0, 1] to logits (n, classes), in eval mode.
        x: (n, c, h, w) in [0, 1].
        reference: (n, classes) log-probabilities, a constant.
        threat: norm and eps.
        start: the first x', within the threat model.
        steps: gradient steps.
        step_size: in [0, 1] pixel units.

    Returns:
        (n, c, h, w) within the threat model.
    """
    x_adv = start
    for _ in range(steps):
        x_in = x_adv.detach().requires_grad_()
        divergence = F.kl_div(model(x_in).log_softmax(1), reference, reduction="sum", log_target=True)
        (gradient,) = torch.autograd.grad(divergence, x_in)
        x_adv = clip(threat, x, ascend(threat, x_in.detach(), gradient, step_size))
    return x_adv
