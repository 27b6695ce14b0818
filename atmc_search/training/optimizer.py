"""The optimizer of a stage, and its learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from atmc_search.training.stage import StageSpec


def make_optimizer(model: nn.Module, stage: StageSpec) -> torch.optim.SGD:
    """SGD with momentum and weight decay over all parameters, as in the public code of arXiv 1902.03538."""
    return torch.optim.SGD(
        model.parameters(),
        lr=stage.lr,
        momentum=stage.momentum,
        weight_decay=stage.weight_decay,
        nesterov=stage.nesterov,
    )


def learning_rate(stage: StageSpec, progress: float) -> float:
    """The learning rate after a share `progress` of the stage's steps.

    A line from 0 to lr over `warmup` epochs; over the rest lr, or half a cosine or a line from lr to 0. Cyclic is that
    line after a warmup of 40 % of the stage (arXiv 2001.03994), and takes no `warmup` of its own.
    """
    if stage.lr_schedule == "cyclic":
        return stage.lr * min(progress / 0.4, (1 - progress) / 0.6)
    warmup = stage.warmup / stage.epochs
    if progress < warmup:
        return stage.lr * progress / warmup
    rest = (progress - warmup) / (1 - warmup)
    match stage.lr_schedule:
        case "constant":
            return stage.lr
        case "linear":
            return stage.lr * (1 - rest)
        case "cosine":
            return stage.lr * 0.5 * (1 + math.cos(math.pi * rest))
