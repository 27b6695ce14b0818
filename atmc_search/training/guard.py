"""A guard against catastrophic overfitting of fast adversarial training (arXiv 2001.03994, section 5.4).

A model trained on one-step images can, within an epoch, become robust to those alone: PGD then breaks every image,
while accuracy on the training attack stays high. After every epoch PGD-10 attacks a fixed batch of training images.
Where it finds that, the last good epoch's weights come back and PGD-7 trains in the place of the attack.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from atmc_search.attacks import PGD, Attack, ThreatModel, perturb
from atmc_search.data import DeviceData
from atmc_search.training.repeatable import seeded
from atmc_search.training.state import State

WATCHING = PGD(steps=10)
INSTEAD = PGD(steps=7)
_IMAGES = 256


@dataclass
class Guard:
    """Watches the epochs of a stage.

    Attributes:
        data: training images.
        attack: the stage's.
        threat: the one that the stage trains against.
        seed: of the batch and of both attacks, equal in all epochs.
        best: the highest share of the batch that survived PGD-10 after an epoch.
        collapsed_at: the epoch (from 1) after which robustness was found collapsed; 0: not so far.
        good: the state to go back to: that of the last epoch without a collapse; None: none was kept.
    """

    data: DeviceData
    attack: Attack
    threat: ThreatModel
    seed: int
    best: float = 0.0
    collapsed_at: int = 0
    good: State | None = None

    @property
    def training(self) -> Attack:
        """The attack to train on now."""
        return INSTEAD if self.collapsed_at else self.attack

    def collapsed(self, model: nn.Module, epoch: int) -> bool:
        """Whether robustness collapsed in this epoch (from 1), upon which PGD trains. It can happen once.

        Collapsed: less than half of the best seen survives PGD-10, and less than half of what survives the stage's own
        attack. Without the latter a pruning budget that shrinks would pass for overfitting.
        """
        if self.collapsed_at:
            return False
        robust, own = (self._surviving(model, attack) for attack in (WATCHING, self.attack))
        if robust < self.best / 2 and robust < own / 2:
            self.collapsed_at = epoch
            return True
        self.best = max(self.best, robust)
        return False

    def keep(self, state: State) -> None:
        """Remembers a copy of a state as the one to go back to."""
        tensors, facts = state
        self.good = {name: tensor.detach().clone() for name, tensor in tensors.items()}, copy.deepcopy(facts)

    def state(self) -> State:
        """What a checkpoint holds of it. After a collapse there is nothing to go back to any more."""
        tensors, facts = self.good if self.good is not None and not self.collapsed_at else ({}, None)
        return dict(tensors), {"best": self.best, "collapsed_at": self.collapsed_at, "good": facts}

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self.best, self.collapsed_at = facts["best"], facts["collapsed_at"]
        self.good = None if facts["good"] is None else (dict(tensors), facts["good"])

    def _surviving(self, model: nn.Module, attack: Attack) -> float:
        training = model.training
        model.eval()
        with seeded(self.data.labels.device, self.seed, "guard") as generator:
            x, y = next(self.data.batches(_IMAGES, generator))
            x_adv = perturb(attack, model, x, y, self.threat, generator)
            with torch.no_grad():
                surviving = float((model(x_adv).argmax(1) == y).float().mean())
        model.train(training)
        return surviving
