"""The dense stage: adversarial training without constraints, and which of its epochs trials start from."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from torch import Tensor, nn

from atmc_search.attacks import PGD, NoAttack, build_attack
from atmc_search.data import DeviceData, ImageSet, Splits
from atmc_search.export.costs import running_costs
from atmc_search.measure import measure
from atmc_search.models import placed
from atmc_search.tasks.atmc.build import architecture_of, augmentation_of, measured_as_asked
from atmc_search.tasks.atmc.model_facts import dense_bytes
from atmc_search.tasks.atmc.spec import AtmcSpec
from atmc_search.tasks.base import Report, Start
from atmc_search.training import Guard, Selection, build_loss, make_optimizer, train_epoch

_IMAGES = 500
_STEPS = 10


class DenseSelection:
    """Keeps the weights of the epoch that are best on at most 500 validation images (Rice et al., arXiv 2002.11569).

    Under PGD-10 in the trial's threat model, whatever attack trains; under none where training is clean.
    """

    def __init__(self, spec: AtmcSpec, data: Splits, device: torch.device) -> None:
        some = ImageSet(data.validation.images[:_IMAGES], data.validation.labels[:_IMAGES])  # a split's order is random
        self._data = DeviceData(some, device)
        self._spec = spec
        self._attack = NoAttack() if spec.dense.attack.name == "none" else PGD(steps=_STEPS)
        self._selection = Selection()
        self._weights: dict[str, Tensor] = {}
        self.epoch = 0

    def take(self, model: nn.Module, epoch: int) -> float:
        """Measures the model after an epoch (from 1), keeps its weights if they are the best; its robust accuracy."""
        settings = self._spec.evaluate
        figures = measure(
            model, self._data, self._attack, self._spec.threat, batch_size=settings.batch_size, seed=settings.seed
        )
        if self._selection.take(figures.robust.value, figures.clean.value):
            self._weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            self.epoch = epoch
        return figures.robust.value

    def restore(self, model: nn.Module) -> None:
        """Gives the model the best epoch's weights."""
        model.load_state_dict(self._weights)


def dense_start(spec: AtmcSpec, data: Splits, *, device: str, report: Report) -> Start:
    """Trains the dense model adversarially and measures it as trials are measured."""
    began = time.perf_counter()
    place = torch.device(device)
    mean, std = data.channel_stats()
    model = placed(architecture_of(spec, data).build(mean, std, seed=spec.dense.seed), place)
    train = DeviceData(data.train, place)
    attack, loss = (
        build_attack(spec.dense.attack, path="trial.dense.attack"),
        build_loss(spec.dense, path="trial.dense"),
    )
    optimizer = make_optimizer(model, spec.dense)
    guard = Guard(train, attack, spec.dense.trained_against(spec.threat), spec.dense.seed)
    good = _copied(model, optimizer)
    selection = DenseSelection(spec, data, place) if spec.dense.select == "best" and spec.dense.epochs else None
    for epoch in range(spec.dense.epochs):
        stats = train_epoch(
            model,
            train,
            optimizer,
            stage=spec.dense,
            epoch=epoch,
            seed=spec.dense.seed,
            label="dense",
            attack=guard.training,
            threat=spec.dense.trained_against(spec.threat),
            loss=loss,
            augment=augmentation_of(spec),
        )
        row: dict[str, Any] = {"epoch": epoch + 1, "epochs": spec.dense.epochs, "loss": stats.loss}
        if spec.dense.guard:
            if guard.collapsed(model, epoch + 1):
                model.load_state_dict(good[0])
                optimizer.load_state_dict(good[1])
            elif not guard.collapsed_at:
                good = _copied(model, optimizer)
            row["collapsed_epoch"] = guard.collapsed_at
        if selection is not None:
            row["robust_accuracy"] = selection.take(model, epoch + 1)
        report(row)
    if selection is not None:
        selection.restore(model)
    figures = measured_as_asked(spec, model.eval(), DeviceData(data.validation, place))
    costs = running_costs(model.cpu(), architecture_of(spec, data), spec.evaluate.runtime)
    facts = {
        "dense_collapsed_epoch": guard.collapsed_at,
        "dense_epoch": spec.dense.epochs if selection is None else selection.epoch,
        "dense_size_bytes": dense_bytes(model),
        **{f"dense_{name}": value for name, value in costs.items()},
        **figures.metrics("dense_"),
        **figures.intervals("dense_"),
        "dense_s": time.perf_counter() - began,
    }
    return Start({name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}, facts)


def _copied(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Both states as they are now, which later steps leave alone."""
    return copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
