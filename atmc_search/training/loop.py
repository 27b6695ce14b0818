"""One epoch of adversarial training, dense or under constraints: the only training loop there is.

Every epoch seeds its own generators from (seed, stage, epoch): an interrupted trial resumes to the bit from the end
of an epoch without a generator's state in its checkpoint.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from atmc_search.attacks import Attack, perturb
from atmc_search.compress import Codebook, GlobalL0
from atmc_search.data import DeviceData
from atmc_search.errors import TrialFailed
from atmc_search.spec import CompressSpec, StageSpec, ThreatModel
from atmc_search.training.admm import AdmmState, add_penalty, admm_start, admm_update


@dataclass(frozen=True)
class EpochStats:
    """Means over an epoch's training images: loss and accuracy on the adversarial ones."""

    loss: float
    adversarial_accuracy: float


@dataclass
class Constrained:
    """What binds the weights during an epoch: the ℓ0 budget always, the codebook once ADMM has set in."""

    weights: Mapping[str, nn.Parameter]
    budget: GlobalL0
    codebook: Codebook | None
    settings: CompressSpec
    admm: AdmmState | None = None

    def before_step(self, progress: float) -> None:
        """Adds the ADMM penalty to the gradients. `progress`: share of the stage's steps that are done."""
        if self.codebook is None or progress < self.settings.codebook_from:
            return
        if self.admm is None:
            self.admm = admm_start(self.weights, self.codebook)
        add_penalty(self.weights, self.admm, self.settings.rho)

    def after_step(self, step: int) -> None:
        """Projects onto the ℓ0 budget; every `dual_every` steps the duals follow."""
        self.project()
        if self.admm is not None and (step + 1) % self.settings.dual_every == 0:
            assert self.codebook is not None
            self.admm = admm_update(self.weights, self.codebook, self.admm)

    @torch.no_grad()
    def project(self) -> None:
        projected, _ = self.budget.project(self.weights, None)
        for name, weight in self.weights.items():
            weight.copy_(projected[name])


def train_epoch(
    model: nn.Module,
    data: DeviceData,
    optimizer: torch.optim.Optimizer,
    *,
    stage: StageSpec,
    epoch: int,
    seed: int,
    label: str,
    attack: Attack,
    threat: ThreatModel,
    constrained: Constrained | None = None,
) -> EpochStats:
    """Trains one epoch on adversarial images: x_adv by the attack in eval mode, then a step in train mode.

    Args:
        model: images in [0, 1] to logits; parametrised when `constrained`.
        data: training images on the model's device.
        optimizer: over all of the model's parameters.
        stage: epochs, batch size and learning rate.
        epoch: from 0.
        seed: of data order, attack and dropout, together with label and epoch.
        label: the stage's name, which separates the random streams of stages.
        attack: the inner maximisation.
        threat: norm and eps.
        constrained: what binds the weights, or None for the dense stage.

    Raises:
        TrialFailed: the loss is no longer finite.
    """
    steps = data.steps(stage.batch_size)
    total = steps * stage.epochs
    images = 0
    loss_sum = torch.zeros((), device=data.labels.device)
    hits = torch.zeros((), device=data.labels.device)
    with seeded(data.labels.device, seed, label, epoch) as generator:
        model.train()
        for i, (x, y) in enumerate(data.batches(stage.batch_size, generator)):
            step = epoch * steps + i
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(stage, step / total)
            x_adv = perturb(attack, model, x, y, threat, generator)
            logits = model(x_adv)
            loss = F.cross_entropy(logits, y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if constrained is not None:
                constrained.before_step(step / total)
            optimizer.step()
            if constrained is not None:
                constrained.after_step(step)
            images += len(y)
            loss_sum += loss.detach() * len(y)
            hits += (logits.detach().argmax(1) == y).sum()
    mean_loss = float(loss_sum) / images
    if not math.isfinite(mean_loss):
        raise TrialFailed(f"diverged: {label} loss is {mean_loss} in epoch {epoch + 1} (peak lr {stage.lr:g})")
    return EpochStats(mean_loss, float(hits) / images)


def make_optimizer(model: nn.Module, stage: StageSpec) -> torch.optim.SGD:
    """SGD with momentum and weight decay over all parameters, as in [C]."""
    return torch.optim.SGD(
        model.parameters(), lr=stage.lr, momentum=stage.momentum, weight_decay=stage.weight_decay, nesterov=False
    )


def learning_rate(stage: StageSpec, progress: float) -> float:
    """The learning rate after a share `progress` of the stage's steps: half a cosine from lr to 0, or constant."""
    if stage.lr_schedule == "constant":
        return stage.lr
    return stage.lr * 0.5 * (1 + math.cos(math.pi * progress))


@contextmanager
def seeded(device: torch.device, *parts: int | str) -> Iterator[torch.Generator]:
    """A generator on `device` seeded by `parts`; torch's global one (dropout's) is seeded too, and put back after."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    number = int.from_bytes(digest[:8], "little") >> 1
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(number)
        yield torch.Generator(device=device).manual_seed(number)
