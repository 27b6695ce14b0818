"""Dynamic sparse training: at a fixed number of non-zeros the smallest make room for those that the loss asks for.

Flying Bird (Chen et al., arXiv 2202.09844), on the drop and grow of RigL (Evci et al., arXiv 1911.11134): every so
many steps a share of the non-zeros, the smallest, is dropped, and as many zeros of the largest gradient grow; the share
falls to 0 by half a cosine. Here over all tensors together, so that layers trade weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from atmc_search.compress.base import Weights
from atmc_search.compress.l0 import largest
from atmc_search.compress.support import FixedSupport


@dataclass(frozen=True)
class GrowSchedule:
    """When the support changes, and by how much.

    Attributes:
        every: steps between two changes.
        share: of the non-zeros that the first change would exchange at the very start.
        begin: share of training from which the support changes.
        end: share of training from which it is fixed.
    """

    every: int
    share: float
    begin: float
    end: float

    def share_at(self, step: int, progress: float) -> float:
        """The share of the non-zeros to exchange before this step; 0 where the support stays.

        Args:
            step: from 0; nothing changes before the first, from dense weights.
            progress: share of training that is done.
        """
        if step == 0 or step % self.every or not self.begin <= progress < self.end:
            return 0.0
        return self.share * 0.5 * (1 + math.cos(math.pi * progress / self.end))


@torch.no_grad()
def regrown(weights: Weights, gradients: Mapping[str, Tensor], share: float) -> FixedSupport:
    """The support after `share` of the non-zeros were exchanged, of as many entries as before.

    The smallest are dropped; of the entries that were zero, those of the largest gradient magnitude grow, at most as
    many as there are with a gradient.

    Args:
        weights: by name.
        gradients: of the loss, by the same names and of the same shapes.
        share: in [0, 1], of the non-zeros; the number is rounded down.
    """
    if share == 0:
        return FixedSupport.of(weights)
    flat = torch.cat([weight.detach().reshape(-1) for weight in weights.values()])
    slope = torch.cat([gradients[name].reshape(-1) for name in weights]).abs()
    zero = flat == 0
    slope = torch.where(zero, slope, 0)
    nonzeros = int(flat.numel() - zero.sum())
    exchanged = min(int(share * nonzeros), int(torch.count_nonzero(slope)))
    support = largest(flat.abs(), nonzeros - exchanged) | largest(slope, exchanged)
    parts = torch.split(support, [weight.numel() for weight in weights.values()])
    return FixedSupport({name: part.view_as(weights[name]) for name, part in zip(weights, parts, strict=True)})
