"""WRM: ascent on the loss minus a price on distance (Sinha, Namkoong & Duchi, arXiv 1710.10571, equation 2b)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_search.attacks.base import Attack
from atmc_search.attacks.threat import ThreatModel


class WRM(Attack):
    """Ascends cross-entropy(x') − gamma · ‖x' − x‖₂² from the clean image.

    The penalty, not eps, says how far it goes: eps comes in only where the caller clips, so that with a large eps it
    is a mild attack, and with a small one a clipped one. It takes the cross-entropy itself, not the log odds of the
    other attacks, because its size is weighed against the distance: a model so confident that its gradient vanishes
    stays where it is. An iterate may lie outside the threat model, so none but the last is given back, whatever
    `until_broken` says.
    """

    steps: int = Field(7, ge=1, description="gradient steps")
    gamma: float = Field(1.3, gt=0, description="price of squared l2 distance, in units of loss")

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
        x_adv = x
        for step in range(1, self.steps + 1):
            x_in = x_adv.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(x_in), y, reduction="sum"), x_in)
            # The authors' code (attacks_tf.py) ascends the objective over 2 gamma, loss / (2 gamma) − ‖x' − x‖² / 2,
            # with steps 1, 1/√2, 1/√3, …: where the loss is linear, the first step lands on the optimum. (Their `eps`
            # is 1 / (2 gamma): the 1.3 of their MNIST script is a gamma of 0.385 here.)
            x_adv = x_adv + (gradient / (2 * self.gamma) - (x_adv - x)) / step**0.5
        return x_adv
