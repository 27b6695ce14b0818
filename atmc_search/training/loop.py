"""One epoch of adversarial training, dense or under constraints: the only training loop there is.

Every epoch seeds its own generators from (seed, stage, epoch): an interrupted trial resumes to the bit from the end
of an epoch without a generator's state in its checkpoint.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from atmc_search.attacks import Attack, ThreatModel, perturb
from atmc_search.compress import (
    Codebook,
    Constraint,
    CubicSchedule,
    FixedSupport,
    GlobalL0,
    GrowSchedule,
    Weights,
    regrown,
)
from atmc_search.data import DeviceData
from atmc_search.errors import TrialFailed
from atmc_search.training.admm import AdmmState, add_penalty, admm_start, admm_update, refuse_divergence
from atmc_search.training.average import WeightAverage
from atmc_search.training.distillation import Teacher
from atmc_search.training.losses import CrossEntropy, Loss
from atmc_search.training.scores import ScoreSearch
from atmc_search.training.stage import StageSpec
from atmc_search.training.straight_through import StraightThroughState, at_centres, fitted_centres

if TYPE_CHECKING:
    from atmc_search.tasks.atmc.spec import CompressSpec


_CROSS_ENTROPY = CrossEntropy()


@dataclass(frozen=True)
class EpochStats:
    """Means over an epoch's training images: the loss, and accuracy on the adversarial ones."""

    loss: float
    adversarial_accuracy: float


@dataclass
class Constrained:
    """What binds the weights during an epoch.

    Attributes:
        weights: the constrained parameters by name.
        pruning: what the weights end within: the ℓ0 budget, or a support fixed before training. None: not pruned.
        codebook: gives the codebook constraint for the weights as they are when it sets in; None: no codebook.
        settings: when the codebook sets in, in which way, and how hard ADMM pulls.
        schedule: of the budget that weights are projected onto after every step; None: `pruning`, from the start.
        budget: what projects onto a schedule's budget of so many non-zeros.
        grow: exchanges non-zeros of a support that is otherwise fixed; None: the support is what `pruning` makes it.
        search: of the support, by scores, in the first share of training; None: none, or over.
        admm: its state, once it has set in.
        straight_through: likewise.
        frozen: the support that a schedule has fixed.
    """

    weights: Mapping[str, nn.Parameter]
    pruning: Constraint[None] | None
    codebook: Callable[[Weights], Codebook] | None
    settings: CompressSpec
    schedule: CubicSchedule | None = None
    budget: Callable[[int], Constraint[None]] = GlobalL0
    grow: GrowSchedule | None = None
    search: ScoreSearch | None = None
    admm: AdmmState | None = None
    straight_through: StraightThroughState | None = None
    frozen: FixedSupport | None = None

    @property
    def codes(self) -> AdmmState | StraightThroughState | None:
        """The codebook and its centres, once it has set in."""
        return self.admm or self.straight_through

    @contextmanager
    def as_seen(self, progress: float) -> Iterator[None]:
        """Inside, the network is what a step is to attack and differentiate. `progress`: as for `before_step`."""
        waits = self.search is not None or progress < self.settings.codebook_from
        if waits or self.codebook is None or self.settings.codebook == "admm":
            yield
            return
        if self.straight_through is None:
            refuse_divergence(self.weights)
            self.straight_through = fitted_centres(self.weights, self.codebook(self.final()), {})
        with at_centres(self.weights, self.straight_through):
            yield

    def before_step(self, progress: float, step: int = 0) -> None:
        """Adds the ADMM penalty to the gradients. `progress`: share of the stage's steps that are done, `step` many."""
        if self.search is not None and progress < self.search.share:
            self.search.learn(self.weights, progress)
            return
        self.search = None
        if self.settings.scored or (self.schedule is not None and self.schedule.frozen(progress)):
            self.frozen = FixedSupport.of(self.weights)  # from the weights at every step: nothing to store for a resume
        if self.grow is not None:
            gradients = {name: w.grad for name, w in self.weights.items() if w.grad is not None}
            self.frozen = regrown(self.weights, gradients, self.grow.share_at(step, progress))
        if self.codebook is None or self.settings.codebook != "admm" or progress < self.settings.codebook_from:
            return
        if self.admm is None:
            refuse_divergence(self.weights)
            self.admm = admm_start(self.weights, self.codebook(self.final()))
        add_penalty(self.weights, self.admm, self.settings.rho)

    def after_step(self, step: int, progress: float) -> None:
        """Projects onto what is allowed; every `dual_every` steps duals or centres follow. `progress`: with it."""
        self.project(progress)
        if (step + 1) % self.settings.dual_every:
            return
        if self.admm is not None:
            self.admm = admm_update(self.weights, self.admm)
        if self.straight_through is not None:
            codebook, centres = self.straight_through.codebook, self.straight_through.centres
            self.straight_through = fitted_centres(self.weights, codebook, centres)

    @torch.no_grad()
    def project(self, progress: float) -> None:
        """Moves the weights onto what is allowed after a share `progress` of training."""
        if self.search is not None:
            for name, weight in self.search.weights(final=progress >= self.search.share).items():
                self.weights[name].copy_(weight)
            return
        allowed: Constraint[None] | None = self.frozen or self.pruning
        if self.schedule is not None:
            allowed = self.frozen or self.budget(self.schedule.k_at(progress))
        if allowed is None:
            return
        projected, _ = allowed.project(self.weights, None)
        for name, weight in self.weights.items():
            weight.copy_(projected[name])

    @torch.no_grad()
    def final(self, *, averaged: bool = False) -> Weights:
        """The weights within what they are to end with: what is deployed.

        Whatever a schedule or a search still allows them, and, `averaged`, when the model holds an average of many
        steps' weights.
        """
        if self.search is not None and not averaged:
            return self.search.weights(final=True)
        if self.pruning is None or (self.schedule is None and not averaged):
            return self.weights
        return self.pruning.project(self.weights, None)[0]


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
    loss: Loss = _CROSS_ENTROPY,
    teacher: Teacher | None = None,
    constrained: Constrained | None = None,
    average: WeightAverage | None = None,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
) -> EpochStats:
    """Trains one epoch on adversarial images: x_adv by the attack in eval mode, then a step in train mode.

    Batch norm therefore never moves during the attack, normalises the step by the adversarial batch alone, and its
    running statistics are those of adversarial images (of clean ones where the attack is `none`): no clean batch is
    mixed in, as in the original. Evaluation, clean and attacked alike, uses these statistics. A loss that passes clean
    images too (TRADES) says what becomes of batch norm under it.

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
        loss: of the step, and perhaps what the attack ascends in place of the cross-entropy.
        teacher: mixes soft labels into the loss, or None.
        constrained: what binds the weights, or None for the dense stage.
        average: takes in the weights after every step, or None.
        augment: applied to every batch before the attack, or None.

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
            if augment is not None:
                x = augment(x, generator)
            with nullcontext() if constrained is None else constrained.as_seen(step / total):
                x_adv = perturb(attack, model, x, y, threat, generator, reference=loss.reference)
                value, logits = loss(model, x, x_adv, y)
                if teacher is not None:
                    value = teacher.mixed(value, x, logits)
                optimizer.zero_grad(set_to_none=True)
                value.backward()  # type: ignore[no-untyped-call]
            if stage.clip_norm is not None:  # before ADMM's pull, which is to stay as strong at a step of large loss
                nn.utils.clip_grad_norm_(model.parameters(), stage.clip_norm)
            if constrained is not None:
                constrained.before_step(step / total, step)
            optimizer.step()
            if constrained is not None:
                constrained.after_step(step, (step + 1) / total)
            if average is not None:
                average.update()
            images += len(y)
            loss_sum += value.detach() * len(y)
            hits += (logits.detach().argmax(1) == y).sum()
    mean_loss = float(loss_sum) / images
    if not math.isfinite(mean_loss):
        raise TrialFailed(f"diverged: {label} loss is {mean_loss} in epoch {epoch + 1} (peak lr {stage.lr:g})")
    return EpochStats(mean_loss, float(hits) / images)


def make_optimizer(model: nn.Module, stage: StageSpec) -> torch.optim.SGD:
    """SGD with momentum and weight decay over all parameters, as in [C]."""
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


def make_repeatable(device: str) -> None:
    """Has torch compute the same result every time on this device, as far as it can be told to.

    On the CPU nothing is to be set: equal numbers of threads give equal results. On a GPU cuDNN and cuBLAS take
    deterministic algorithms, and so do torch's own operations that have one. What remains: operations that have none
    (torch warns of each, once), and other GPU models, drivers or versions of torch, which round differently.
    """
    if torch.device(device).type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first matrix product is made
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


@contextmanager
def seeded(device: torch.device, *parts: int | str) -> Iterator[torch.Generator]:
    """A generator on `device` seeded by `parts`; torch's global one (dropout's) is seeded too, and put back after.

    The two are seeded apart, so that what they draw has nothing to do with each other.
    """
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    ours, globally = (int.from_bytes(digest[start : start + 8], "little") >> 1 for start in (0, 8))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(globally)
        yield torch.Generator(device=device).manual_seed(ours)
