"""A trial's model in training: put together from the spec, trained by the epoch, packed, and put back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from atmc_search.artifact import Architecture
from atmc_search.attacks import build_attack
from atmc_search.compress import FactorisedLayer, factorise, layers_to_compress
from atmc_search.data import DeviceData, Splits
from atmc_search.errors import TrialFailed
from atmc_search.models import placed
from atmc_search.tasks.atmc.build import architecture_of, augmentation_of, dense_model
from atmc_search.tasks.atmc.constraints import low_ranks
from atmc_search.tasks.atmc.deploy import FIGURES_BYTES, Deployed, Deployer, overhead_bytes
from atmc_search.tasks.atmc.parts import TrialParts, parts_of
from atmc_search.tasks.atmc.spec import AtmcSpec
from atmc_search.tasks.start import Start
from atmc_search.training import (
    AttackedBatches,
    EpochStats,
    Guard,
    Step,
    all_finite,
    build_loss,
    make_optimizer,
    train_epoch,
)
from atmc_search.training.state import State, grouped, joined

_GOOD = "good"


class Training:
    """The model, its step with all parts, and the guard that watches its epochs.

    Attributes:
        layers: the compressed layers.
        step: model, optimizer, attack, loss and parts.
        parts: those of them that others ask for.
        guard: its attack is what trains; it watches where the spec says so.
    """

    def __init__(
        self, spec: AtmcSpec, data: Splits, start: Start, *, device: torch.device, meta: Mapping[str, Any]
    ) -> None:
        """Prepares the first epoch; `meta` are the facts that files carry.

        Raises:
            TrialFailed: a budget of bytes is impossible for this start.
        """
        architecture = architecture_of(spec, data)
        model, self.layers = _factorised(spec, architecture, start, device, meta)
        self._spec = spec
        self._data = DeviceData(data.train, device)
        threat = spec.train.trained_against(spec.threat)
        attack = build_attack(spec.train.attack, path="trial.train.attack")
        self.guard = Guard(self._data, attack, threat, spec.seed)
        self.parts: TrialParts = parts_of(
            spec,
            model,
            self.layers,
            deployer=Deployer(model, self.layers, architecture, spec, meta),
            input_shape=data.input_shape,
            batches=self._batches,
            teacher=lambda: dense_model(architecture, start, device),
        )
        self.step = Step(
            model,
            make_optimizer(model, spec.train),
            spec.train,
            attack,
            threat,
            build_loss(spec.train, path="trial.train"),
            self.parts.ordered,
            augmentation_of(spec),
        )
        if spec.train.guard:
            self.guard.keep(self.step.state())

    def epoch(self, epoch: int) -> EpochStats:
        """Trains an epoch (from 0); one in which robustness collapsed is undone.

        Raises:
            TrialFailed: loss or weights are no longer finite.
        """
        self.step.attack = self.guard.training
        stats = train_epoch(self.step, self._data, epoch=epoch, seed=self._spec.seed, label="train")
        if not all_finite(dict(self.step.model.named_parameters())):
            raise TrialFailed(f"diverged: weights are not finite after epoch {epoch + 1}; lower trial.train.lr")
        if self._spec.train.guard:
            self._watch(epoch + 1)
        return stats

    def pack(self, progress: float) -> Deployed:
        """The file of the weights as they are, after a share `progress` of training.

        Raises:
            TrialFailed: no file meets what the spec asks for.
        """
        with self.step.final():
            return self.parts.packer.pack(progress)

    def state(self) -> State:
        """What training has made of the weights, and all that binds, follows or watches them."""
        tensors, facts = self.step.state()
        good, watched = self.guard.state()
        return tensors | joined({_GOOD: good}), {"parts": facts, "guard": watched}

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave; the tensors are on the device of training."""
        self.guard.load(grouped(tensors).get(_GOOD, {}), facts["guard"])
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{_GOOD}/")}
        self.step.load(own, facts["parts"])

    def _watch(self, epoch: int) -> None:
        """Undoes an epoch (from 1) in which robustness collapsed; keeps one in which it did not."""
        if self.guard.collapsed(self.step.model, epoch):
            assert self.guard.good is not None
            self.step.go_back(*self.guard.good, epoch / self._spec.train.epochs)
        elif not self.guard.collapsed_at:
            self.guard.keep(self.step.state())

    def _batches(self) -> AttackedBatches:
        stage = self._spec.train
        return AttackedBatches(self._data, self.guard.training, self.guard.threat, stage.batch_size, self._spec.seed)


def _factorised(
    spec: AtmcSpec, architecture: Architecture, start: Start, device: torch.device, meta: Mapping[str, Any]
) -> tuple[nn.Module, list[FactorisedLayer]]:
    """The dense start in the form that the spec asks for, and its compressed layers."""
    model = architecture.build()
    model.load_state_dict(dict(start.tensors))
    ranks = None
    if spec.compress.factors == "low_rank":
        spent = overhead_bytes(model, layers_to_compress(model), architecture, spec.compress, meta)
        ranks = low_ranks(model, spec.compress, FIGURES_BYTES + spent)
    layers = factorise(model, spec.compress.factors, ranks)
    return placed(model, device), layers
