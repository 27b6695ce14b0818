"""Batch norm after compression: running statistics that fit the weights as they are deployed.

Projection and quantisation change what the layers see; statistics gathered before no longer describe it. They are
gathered anew on training images, attacked as in training, with everything else in eval mode.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from atmc_search.attacks import Attack, ThreatModel, perturb
from atmc_search.data import DeviceData
from atmc_search.training.repeatable import seeded


@dataclass(frozen=True)
class AttackedBatches:
    """Training batches, shuffled and attacked on the model at hand as in training, but without augmentation.

    Attributes:
        data: training images on the model's device.
        attack: as in training.
        threat: norm and eps.
        batch_size: as in training, since a batch's variance depends on it.
        seed: of order and attack.
    """

    data: DeviceData
    attack: Attack
    threat: ThreatModel
    batch_size: int
    seed: int

    def first(self, count: int, model: nn.Module, label: str) -> Iterator[tuple[Tensor, Tensor]]:
        """At most `count` batches (x_adv, y); `label` separates the random streams of different uses."""
        with seeded(self.data.labels.device, self.seed, label) as generator:
            for x, y in islice(self.data.batches(self.batch_size, generator), count):
                yield perturb(self.attack, model, x, y, self.threat, generator), y


def has_running_statistics(model: nn.Module) -> bool:
    """Whether the model has a batch norm layer that keeps statistics."""
    return bool(_layers(model))


def reestimated(model: nn.Module, batches: AttackedBatches, count: int) -> nn.Module:
    """A copy of `model`, in eval mode, whose statistics are averages over `count` batches attacked on it."""
    fitted = copy.deepcopy(model).eval()
    for layer in _layers(fitted):
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average
        layer.train()
    for x_adv, _ in batches.first(count, model, "batch norm"):
        with torch.no_grad():
            fitted(x_adv)
    for layer, original in zip(_layers(fitted), _layers(model), strict=True):
        layer.momentum = original.momentum
    return fitted.eval()


def attacked_loss(model: nn.Module, batches: AttackedBatches, count: int) -> float:
    """Mean cross-entropy (nats) of `model`, in eval mode, on `count` batches attacked on it."""
    total, images = 0.0, 0
    for x_adv, y in batches.first(count, model, "attacked loss"):
        with torch.no_grad():
            total += float(F.cross_entropy(model(x_adv), y, reduction="sum"))
        images += len(y)
    return total / images


def _layers(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
