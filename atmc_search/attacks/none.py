"""No attack: the images themselves. As a training attack it is clean training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from atmc_search.attacks.base import Attack
from atmc_search.attacks.threat import ThreatModel


class NoAttack(Attack):
    """Gives the images back. It draws no random numbers and never calls the model."""

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
        return x
