"""The dense start: training without constraints, which of its epochs trials start from, and its figures."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from torch import Tensor, nn

from atmc_search.artifact import read_header, unpack
from atmc_search.attacks import PGD, NoAttack, build_attack
from atmc_search.data import DeviceData, ImageSet, Splits
from atmc_search.errors import SpecError, shown
from atmc_search.export.costs import running_costs
from atmc_search.measure import measure
from atmc_search.models import placed
from atmc_search.tasks.atmc.build import architecture_of, augmentation_of, measured_as_asked, normalisation_of
from atmc_search.tasks.atmc.data import AtmcData
from atmc_search.tasks.atmc.model_facts import dense_bytes
from atmc_search.tasks.atmc.spec import AtmcSpec
from atmc_search.tasks.base import Report
from atmc_search.tasks.start import Start
from atmc_search.training import Guard, Selection, Step, build_loss, make_optimizer, train_epoch

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


def initial_model(spec: AtmcSpec, data: AtmcData) -> nn.Module:
    """The model that the dense stage begins with, on the CPU: fresh, or with the weights of the spec's file.

    Raises:
        SpecError: the file's weights are of another model.
    """
    model = architecture_of(spec, data).build(*normalisation_of(spec, data), seed=spec.dense.seed)
    if data.weights is not None:
        model.load_state_dict(data.weights.state(model, spec.model.name))
    return model


def check_start(spec: AtmcSpec, data: AtmcData) -> None:
    """Refuses a normalisation that does not fit the images, and weights that do not fit the model.

    Raises:
        SpecError: says which.
    """
    normalisation_of(spec, data)
    if data.weights is not None:
        data.weights.state(architecture_of(spec, data).build(), spec.model.name)


def dense_start(spec: AtmcSpec, data: AtmcData, *, device: str, report: Report) -> Start:
    """The dense model: trained adversarially, read from a file, or both."""
    began = time.perf_counter()
    place = torch.device(device)
    model = placed(initial_model(spec, data), place)
    train = DeviceData(data.train, place)
    attack, loss = (
        build_attack(spec.dense.attack, path="trial.dense.attack"),
        build_loss(spec.dense, path="trial.dense"),
    )
    optimizer = make_optimizer(model, spec.dense)
    guard = Guard(train, attack, spec.dense.trained_against(spec.threat), spec.dense.seed)
    good = _copied(model, optimizer)
    selection = DenseSelection(spec, data, place) if spec.dense.select == "best" and spec.dense.epochs else None
    threat = spec.dense.trained_against(spec.threat)
    step = Step(model, optimizer, spec.dense, attack, threat, loss, augment=augmentation_of(spec))
    for epoch in range(spec.dense.epochs):
        step.attack = guard.training
        stats = train_epoch(step, train, epoch=epoch, seed=spec.dense.seed, label="dense")
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
    facts = {
        "dense_collapsed_epoch": guard.collapsed_at,
        "dense_epoch": spec.dense.epochs if selection is None else selection.epoch,
        "dense_s": time.perf_counter() - began,
    }
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    return Start(tensors, facts, "trained" if data.weights is None else data.weights.origin)


def start_from_artifact(spec: AtmcSpec, data: Splits, artifact: bytes) -> Start:
    """Another trial's model as the start.

    Raises:
        AtmcError: the artifact is damaged, or of another architecture.
    """
    header, wanted = read_header(artifact), architecture_of(spec, data)
    found = (header["model"], header["args"], tuple(header["input"]), header["classes"])
    if found != (wanted.name, dict(wanted.args), wanted.input_shape, wanted.classes):
        raise SpecError(f"the trial to start from is of another model, {shown(found)}; name one of the same model")
    model = unpack(artifact, allow_custom_models=True)  # the model that the spec itself names
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    return Start(tensors, {"dense_collapsed_epoch": 0, "dense_epoch": 0, "dense_s": 0.0})


def start_figures(spec: AtmcSpec, data: Splits, start: Start, *, device: str) -> dict[str, Any]:
    """The start measured as trials are measured: what they are compared with."""
    began = time.perf_counter()
    architecture = architecture_of(spec, data)
    model = architecture.build()
    model.load_state_dict(dict(start.tensors))
    figures = measured_as_asked(spec, placed(model, device).eval(), DeviceData(data.validation, torch.device(device)))
    costs = running_costs(model.cpu(), architecture, spec.evaluate.runtime)
    return {
        "dense_size_bytes": dense_bytes(model),
        **{f"dense_{name}": value for name, value in costs.items()},
        **figures.metrics("dense_"),
        **figures.intervals("dense_"),
        "dense_s": start.facts.get("dense_s", 0.0) + time.perf_counter() - began,
    }


def _copied(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Both states as they are now, which later steps leave alone."""
    return copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
