"""Normalisation as a model's first layer, so that attacks and exports see images in [0, 1] (after RobustBench)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std per channel; `mean` and `std` are buffers, and so part of the state.

    Args:
        mean: of each channel, in units of [0, 1].
        std: of each channel, above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        assert len(mean) == len(std), (mean, std)
        assert all(value > 0 for value in std), std
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, channels, height, width) in [0, 1]; the same shape comes out."""
        return (x - self.mean) / self.std
