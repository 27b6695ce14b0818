"""One epoch of training, dense or under constraints: the only training loop there is.

Every epoch seeds its own generators from (seed, stage, epoch): an interrupted trial resumes to the bit from the end
of an epoch without a generator's state in its checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from atmc_search.data import DeviceData
from atmc_search.errors import TrialFailed
from atmc_search.training.optimizer import learning_rate
from atmc_search.training.parts.base import Moment
from atmc_search.training.repeatable import seeded
from atmc_search.training.step import Step


@dataclass(frozen=True)
class EpochStats:
    """Means over an epoch's training images: the loss, and accuracy on the adversarial ones."""

    loss: float
    adversarial_accuracy: float


def train_epoch(step: Step, data: DeviceData, *, epoch: int, seed: int, label: str) -> EpochStats:
    """Takes a step on every batch.

    Args:
        step: the model's step; its stage says batch size and learning rate.
        data: training images on the model's device.
        epoch: from 0.
        seed: of data order, attack and dropout, together with label and epoch.
        label: the stage's name, which separates the random streams of stages.

    Raises:
        TrialFailed: the loss is no longer finite.
    """
    stage = step.stage
    steps = data.steps(stage.batch_size)
    images = 0
    loss_sum = torch.zeros((), device=data.labels.device)
    hits = torch.zeros((), device=data.labels.device)
    with seeded(data.labels.device, seed, label, epoch) as generator:
        step.model.train()
        for i, (x, y) in enumerate(data.batches(stage.batch_size, generator)):
            at = Moment(epoch * steps + i, steps * stage.epochs)
            for group in step.optimizer.param_groups:
                group["lr"] = learning_rate(stage, at.progress)
            figures = step(x, y, generator, at)
            images += len(y)
            loss_sum += figures.loss * len(y)
            hits += figures.hits
    mean_loss = float(loss_sum) / images
    if not math.isfinite(mean_loss):
        raise TrialFailed(f"diverged: {label} loss is {mean_loss} in epoch {epoch + 1} (peak lr {stage.lr:g})")
    return EpochStats(mean_loss, float(hits) / images)
