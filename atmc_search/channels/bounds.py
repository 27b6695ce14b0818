"""The least and greatest values that a channel can take, whatever the image: where they are one, it is constant.

Interval arithmetic in float64 (Moore, 1966). It also finds what no zero shows: a ReLU whose argument is a sum of
non-positive terms. Infinity stands for a value that is finite but not bounded, so that 0 × infinity is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

INFINITY = float("inf")


@dataclass(frozen=True)
class Bounds:
    """`low` <= value <= `high`, each (channels,) float64 on the CPU, at every position and for every image."""

    low: Tensor
    high: Tensor

    @classmethod
    def unknown(cls, channels: int) -> Bounds:
        return cls.of(torch.full((channels,), -INFINITY), torch.full((channels,), INFINITY))

    @classmethod
    def of(cls, low: Tensor, high: Tensor) -> Bounds:
        """Bounds of what arithmetic gave; where that is undefined, none."""
        return cls(low.double().nan_to_num(-INFINITY, INFINITY, -INFINITY), high.double().nan_to_num(*[INFINITY] * 2))

    @property
    def constant(self) -> Tensor:
        """(channels,) bool: whether the channel has one value."""
        return (self.low == self.high) & self.low.isfinite()

    def __getitem__(self, channels: Tensor) -> Bounds:
        return Bounds(self.low[channels], self.high[channels])

    def with_zero(self) -> Bounds:
        """Of the same values where some positions may be padding."""
        return Bounds(self.low.clamp(max=0), self.high.clamp(min=0))


def of_sums(weight: Tensor, terms: Bounds) -> Bounds:
    """Of Σ weight × term, the terms moving independently.

    Args:
        weight: (groups, outputs, inputs, taps) float64.
        terms: of the groups × inputs channels.
    """
    groups, _, inputs, _ = weight.shape
    low, high = terms.low.view(groups, inputs), terms.high.view(groups, inputs)
    positive, negative = weight.clamp(min=0).sum(-1), weight.clamp(max=0).sum(-1)
    # The same sums in the same order for both ends: equal terms give equal ends, to the bit.
    return Bounds(_least(positive, negative, low, high), -_least(-negative, -positive, low, high))


def _least(positive: Tensor, negative: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(groups × outputs,): Σ positive × low + negative × high."""
    finite = _sums(positive, low.masked_fill(low.isinf(), 0)) + _sums(negative, high.masked_fill(high.isinf(), 0))
    unbounded = _sums((positive > 0).double(), low.isinf().double())
    unbounded += _sums((negative < 0).double(), high.isinf().double())
    return finite.masked_fill(unbounded > 0, -INFINITY)


def _sums(weight: Tensor, terms: Tensor) -> Tensor:
    return (weight @ terms.unsqueeze(-1)).flatten()


def of_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, given: Bounds) -> Bounds:
    """Of a batch norm's output in eval mode."""
    assert module.running_mean is not None
    assert module.running_var is not None
    scale = (module.running_var.double().cpu() + module.eps).rsqrt()
    scale = scale if module.weight is None else scale * module.weight.double().cpu()
    bias = torch.zeros_like(scale) if module.bias is None else module.bias.double().cpu()
    shift = bias - module.running_mean.double().cpu() * scale
    ends = torch.stack([given.low, given.high]) * scale
    ends = ends.masked_fill(scale == 0, 0) + shift  # not 0 × infinity
    return Bounds.of(ends.amin(0), ends.amax(0))
