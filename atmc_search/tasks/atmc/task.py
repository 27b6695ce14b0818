"""ATMC: adversarial training under a global ℓ0 budget, in factors, with codebooks (arXiv 1902.03538)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from atmc_search.artifact import annotated, unpack
from atmc_search.attacks import ATTACKS, build_attack
from atmc_search.compress import (
    Codebook,
    Weights,
    constrained_weights,
    factorise,
    layers_to_compress,
)
from atmc_search.data import DeviceData, Splits
from atmc_search.errors import TrialFailed
from atmc_search.export.costs import running_costs
from atmc_search.measure import masking_checks
from atmc_search.models import placed
from atmc_search.registry import validated
from atmc_search.results import Column
from atmc_search.spec import TrialSpec, fingerprint
from atmc_search.tasks.atmc.build import architecture_of, augmentation_of, measured_as_asked
from atmc_search.tasks.atmc.byte_budget import ByteBudget
from atmc_search.tasks.atmc.checkpoint import restore_training, training_state
from atmc_search.tasks.atmc.columns import ATMC_COLUMNS, START
from atmc_search.tasks.atmc.constraints import (
    budget_of,
    grow_of,
    l0_budget,
    low_ranks,
    pruning_of,
    schedule_of,
    search_of,
)
from atmc_search.tasks.atmc.data import AtmcData, inputs, load, load_key
from atmc_search.tasks.atmc.dense import check_start, dense_start, start_figures, start_from_artifact
from atmc_search.tasks.atmc.deploy import FIGURES_BYTES, Deployer, overhead_bytes
from atmc_search.tasks.atmc.feasibility import check_possible, dense_figures, least_figures
from atmc_search.tasks.atmc.methods import METHOD_PATH, METHODS, as_method_says, method_of
from atmc_search.tasks.atmc.model_facts import dense_weights
from atmc_search.tasks.atmc.remeasure import curves, evaluated, remeasured
from atmc_search.tasks.atmc.spec import AtmcSpec
from atmc_search.tasks.atmc.start_keys import earlier_start_keys, start_figures_key, start_key
from atmc_search.tasks.atmc.target import TargetControl
from atmc_search.tasks.base import Remeasured, Report, Start, Task
from atmc_search.training import (
    LOSSES,
    Constrained,
    Guard,
    Selection,
    Teacher,
    WeightAverage,
    all_finite,
    build_loss,
    in_force,
    make_optimizer,
    train_epoch,
)
from atmc_search.version import __version__


class AtmcTask(Task):
    """Trains from the dense start under the constraints; every measured epoch deploys, packs and decodes."""

    Spec: ClassVar[type[TrialSpec]] = AtmcSpec
    columns: ClassVar[tuple[Column, ...]] = ATMC_COLUMNS
    objectives: ClassVar[Mapping[str, Literal["min", "max"]]] = {
        "size_bytes": "min",
        "clean_accuracy": "max",
        "robust_accuracy": "max",
    }
    deciding: ClassVar[tuple[str, ...]] = (METHOD_PATH,)
    presets: ClassVar[Mapping[str, str]] = {name: method.says for name, method in METHODS.items()}
    components: ClassVar[Mapping[str, Mapping[str, type[BaseModel]]]] = {"attack": ATTACKS, "loss": LOSSES}
    start_name: ClassVar[str] = START

    def __init__(self, spec: AtmcSpec, data: Splits, start: Start, *, device: str, meta: Mapping[str, Any]) -> None:
        self.spec = spec
        self.epochs = spec.train.epochs
        self.epoch = 0
        self._device = torch.device(device)
        self._train = DeviceData(data.train, self._device)
        self._validation = DeviceData(data.validation, self._device)
        self._architecture = architecture_of(spec, data)
        self._start = start
        meta = {
            **meta,
            "data": spec.data.name,
            "threat": [spec.threat.norm, spec.threat.eps],
            "fingerprint": fingerprint(spec.model_dump(mode="json")),
            "version": __version__,
            "torch": torch.__version__,
            **_measured(spec, len(data.validation), *_most_digits(spec, len(data.validation))),
        }
        self._attack = build_attack(spec.train.attack, path="trial.train.attack")
        self._loss = build_loss(spec.train, path="trial.train")
        self._evaluation = build_attack(spec.evaluate.attack, path="trial.evaluate.attack")
        self._model = self._architecture.build()
        self._model.load_state_dict(dict(start.tensors))
        ranks = None
        if spec.compress.factors == "low_rank":
            spent = FIGURES_BYTES + overhead_bytes(
                self._model, layers_to_compress(self._model), self._architecture, spec.compress, meta
            )
            ranks = low_ranks(self._model, spec.compress, spent)
        self._layers = factorise(self._model, spec.compress.factors, ranks)
        placed(self._model, self._device)
        self._deployer = Deployer(self._model, self._layers, self._architecture, spec, self._attack, meta)
        weights = constrained_weights(self._model, self._layers)
        budget = budget_of(spec.compress, self._model, self._layers, data.input_shape)
        self._constrained = Constrained(
            weights,
            pruning_of(spec.compress, weights, dense_weights(self._layers), budget),
            self._codebook if spec.compress.quantised else None,
            spec.compress,
            schedule_of(spec.compress, weights, dense_weights(self._layers)),
            budget,
            grow_of(spec.compress),
        )
        k = l0_budget(spec.compress, dense_weights(self._layers))
        self._constrained.search = search_of(spec, weights, self._constrained.pruning, k)
        self._bytes = ByteBudget(self._deployer, self._constrained) if spec.compress.sized_in_bytes else None
        if self._bytes is not None:
            self._bytes.start()
        self._target: TargetControl | None = None
        if spec.compress.target is not None:
            dense = dense_weights(self._layers)
            self._target = TargetControl(spec.compress.target, self._constrained, dense, len(self._layers))
            self._target.start()
        self._constrained.project(0.0)  # training starts within what is allowed
        self._optimizer = make_optimizer(self._model, spec.train)
        self._teacher = None
        if spec.train.distillation is not None:
            self._teacher = Teacher(
                self._dense_model(), spec.train.distillation.weight, spec.train.distillation.temperature
            )
        self._average = None if spec.train.ema is None else WeightAverage(self._model, spec.train.ema)
        self._seconds = {"train_s": 0.0, "pack_s": 0.0, "measure_s": 0.0}
        self._artifact: bytes | None = None
        self._guard = Guard(self._train, self._attack, spec.train.trained_against(spec.threat), spec.seed)
        self._good: dict[str, Tensor] = {}
        self._good_facts: dict[str, Any] = {}
        if spec.train.guard:
            self._keep_good()
        self._selection = Selection()
        self._best: dict[str, Any] = {}

    @classmethod
    def spec_of(cls, trial: Mapping[str, Any]) -> AtmcSpec:
        return validated(AtmcSpec, as_method_says(trial), path="trial")

    @classmethod
    def uses(cls, path: str, trial: Mapping[str, Any]) -> bool:
        method = method_of(trial)
        return method is None or method.uses(path)

    @classmethod
    def load_key(cls, spec: AtmcSpec) -> str:
        return load_key(spec)

    @classmethod
    def load(cls, spec: AtmcSpec) -> AtmcData:
        return load(spec)

    @classmethod
    def inputs(cls, spec: AtmcSpec, data: AtmcData) -> Mapping[str, str]:
        return inputs(spec, data)

    @classmethod
    def describe(cls, spec: AtmcSpec, data: AtmcData) -> str:
        sizes = f"{len(data.train):,} training, {len(data.validation):,} validation, {len(data.test):,} test images"
        start = data.weights
        given = "" if start is None else f"\n{START}: {start.name} (SHA-256 {start.sha256[:12]}…), measured before trials"
        return f"data {spec.data.name}: {sizes}{given}"

    @classmethod
    def check(cls, spec: AtmcSpec, data: AtmcData) -> None:
        check_possible(spec, data)
        check_start(spec, data)

    @classmethod
    def least(cls, spec: AtmcSpec, data: AtmcData) -> Mapping[str, float]:
        return least_figures(spec, data)

    @classmethod
    def reference(cls, spec: AtmcSpec, data: AtmcData) -> Mapping[str, float]:
        return dense_figures(spec, data)

    @classmethod
    def start_key(cls, spec: AtmcSpec, data: AtmcData) -> str:
        return start_key(spec, data)

    @classmethod
    def make_start(cls, spec: AtmcSpec, data: AtmcData, *, device: str, report: Report) -> Start:
        return dense_start(spec, data, device=device, report=report)

    @classmethod
    def start_figures_key(cls, spec: AtmcSpec, data: AtmcData) -> str:
        return start_figures_key(spec)

    @classmethod
    def measure_start(cls, spec: AtmcSpec, data: AtmcData, start: Start, *, device: str) -> Mapping[str, Any]:
        return start_figures(spec, data, start, device=device)

    @classmethod
    def start_from(cls, spec: AtmcSpec, data: AtmcData, artifact: bytes) -> Start:
        return start_from_artifact(spec, data, artifact)

    @classmethod
    def earlier_start_keys(cls, spec: AtmcSpec) -> Sequence[str]:
        return earlier_start_keys(spec)

    @classmethod
    def remeasure(cls, artifact: bytes, spec: AtmcSpec, data: Splits, **how: Any) -> Remeasured:
        return remeasured(artifact, spec, data, **how)

    @classmethod
    def curves(cls, artifact: bytes, spec: AtmcSpec, data: Splits, **how: Any) -> Mapping[str, Any]:
        return curves(artifact, spec, data, **how)

    @classmethod
    def evaluate(cls, artifact: bytes, **how: Any) -> Remeasured:
        return evaluated(artifact, **how)

    def step(self) -> dict[str, Any]:
        with self._timed("train_s"):
            stats = train_epoch(
                self._model,
                self._train,
                self._optimizer,
                stage=self.spec.train,
                epoch=self.epoch,
                seed=self.spec.seed,
                label="train",
                attack=self._guard.training,
                threat=self.spec.train.trained_against(self.spec.threat),
                loss=self._loss,
                teacher=self._teacher,
                constrained=self._constrained,
                average=self._average,
                augment=augmentation_of(self.spec),
            )
            if not all_finite(dict(self._model.named_parameters())):
                raise TrialFailed(
                    f"diverged: weights are not finite after epoch {self.epoch + 1}; lower trial.train.lr"
                )
            if self.spec.train.guard:
                self._watch()
        self.epoch += 1
        metrics: dict[str, Any] = {"loss": stats.loss, "adversarial_train_accuracy": stats.adversarial_accuracy}
        metrics["collapsed_epoch"] = self._guard.collapsed_at
        measured = self._selected() if self.done or self.epoch % self.spec.evaluate.every == 0 else None
        if self._target is not None:
            self._target.follow(stats.adversarial_accuracy, measured)
            if measured is not None:
                measured = self._target.noted(self.artifact(), measured)
                if self.done:
                    self._artifact, measured = self._target.artifact, self._target.metrics
        if measured is not None:
            metrics |= {"target_shortfall": 0.0} | measured
        elif self._bytes is not None:
            with self._timed("pack_s"):
                self._bytes.follow(self.epoch / self.epochs)
        return metrics | dict(self._start.facts) | self._seconds

    @property
    def done(self) -> bool:
        patience = self.spec.train.patience
        return super().done or (patience is not None and self._selection.since >= patience)

    def artifact(self) -> bytes:
        assert self._artifact is not None, "no epoch has been measured yet"
        return self._artifact

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, bound = self._trained()
        if not self._guard.collapsed_at:  # there is nothing to go back to after
            tensors |= {f"good/{name}": tensor for name, tensor in self._good.items()}
        if self._best:
            tensors["best/artifact"] = torch.frombuffer(bytearray(self.artifact()), dtype=torch.uint8)
        return tensors, {
            **bound,
            "epoch": self.epoch,
            "seconds": dict(self._seconds),
            "guard": [self._guard.best, self._guard.collapsed_at, self._good_facts],
            "selection": [self._selection.best, self._selection.since],
            "best": self._best,
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        tensors = {name: tensor.to(self._device) for name, tensor in tensors.items()}
        self._good = {name.removeprefix("good/"): t for name, t in tensors.items() if name.startswith("good/")}
        self._guard.best, self._guard.collapsed_at, self._good_facts = facts["guard"]
        self._go_on_from({name: t for name, t in tensors.items() if not name.startswith("good/")}, facts)
        best, since = facts["selection"]
        self._selection = Selection(tuple(best) if best else None, since)
        self._best = dict(facts["best"])
        if self._best:
            self._artifact = tensors["best/artifact"].cpu().numpy().tobytes()
        self.epoch = facts["epoch"]
        self._seconds = dict(facts["seconds"])

    def _trained(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What training has made of the weights, and all that binds or follows them: tensors and plain facts."""
        return training_state(
            self._model, self._optimizer, self._constrained, self._average, [self._target, self._bytes]
        )

    def _go_on_from(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Goes on from what `_trained` gave."""
        restore_training(
            tensors,
            facts,
            self._model,
            self._optimizer,
            self._constrained,
            self._average,
            [self._target, self._bytes],
            seed=self.spec.seed,
        )

    def _keep_good(self) -> None:
        tensors, self._good_facts = self._trained()
        self._good = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def _watch(self) -> None:
        """Undoes an epoch in which robustness collapsed; keeps one in which it did not."""
        if self._guard.collapsed(self._model, self.epoch + 1):
            self._go_on_from(self._good, self._good_facts)
        elif not self._guard.collapsed_at:
            self._keep_good()

    def _selected(self) -> dict[str, Any]:
        """Measures; gives the figures of the file that the trial reports now, which `artifact` is too."""
        before = self._artifact
        measured = self._deploy() | {"measured_epoch": self.epoch}
        counts = in_force(self.spec.compress, self.epoch / self.epochs)
        better = self._selection.take(measured["robust_accuracy"], measured["clean_accuracy"], counts=counts)
        if self.spec.evaluate.select == "last":
            return measured
        if better:
            self._best = measured
        else:
            self._artifact = before
        return self._best

    def _deploy(self) -> dict[str, Any]:
        """Projects, packs, decodes, and measures what was decoded."""
        with self._timed("pack_s"):
            codes = self._constrained.codes
            centres = codes.centres if codes else {}
            with self._average.in_place() if self._average else nullcontext():
                if self._bytes is not None:
                    deployed = self._bytes.deploy(self._train, self.epoch / self.epochs)
                else:
                    weights = self._constrained.final(averaged=self._average is not None)
                    deployer = replace(self._deployer, attack=self._guard.training)
                    deployed = deployer.deploy(weights, centres, self._train)
            self._artifact, sizes = deployed.artifact, deployed.sizes
        with self._timed("measure_s"):
            decoded = unpack(self._artifact, allow_custom_models=True)
            costs = running_costs(decoded, self._architecture, self.spec.evaluate.runtime)
            placed(decoded, self._device)
            figures = measured_as_asked(self.spec, decoded, self._validation)
            correct = {"clean": figures.clean.correct, "robust": figures.robust.correct}
            self._artifact = annotated(self._artifact, _measured(self.spec, figures.clean.n, **correct))
            # At every measurement: a scheduler may make any of them the trial's last.
            flags = self._masking_flags(decoded) if self.spec.evaluate.masking_images else None
        return {
            "size_bytes": len(self._artifact),
            **figures.metrics(),
            **figures.intervals(),
            "validation_images": figures.clean.n,
            "masking_flags": flags,
            "nnz": sizes.nnz,
            "density": sizes.density,
            "dense_weights": sizes.dense_weights,
            "paper_bits": sizes.paper_bits,
            "entropy_bits": sizes.entropy_bits,
            **costs,
            "bits_per_tensor": json.dumps(sizes.bits_per_tensor),
            "batch_norm_reestimated": deployed.batch_norm_reestimated,
        }

    def _dense_model(self) -> nn.Module:
        """The dense start, in eval mode."""
        model = self._architecture.build()
        model.load_state_dict(dict(self._start.tensors))
        return placed(model, self._device).eval()

    def _codebook(self, weights: Weights) -> Codebook:
        return self._deployer.codebook(weights) if self._bytes is None else self._bytes.codebook(weights)

    def _masking_flags(self, decoded: nn.Module) -> str:
        checks = masking_checks(
            decoded,
            self._validation,
            self._evaluation,
            self.spec.threat,
            surrogate=self._dense_model(),
            images=self.spec.evaluate.masking_images,
            batch_size=self.spec.evaluate.batch_size,
            seed=self.spec.evaluate.seed,
        )
        return ",".join(checks.flags)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] += time.perf_counter() - began


def _measured(spec: AtmcSpec, images: int, clean: int = 0, robust: int = 0) -> dict[str, Any]:
    """The figures that travel in an artifact: how many validation images are right, untouched and attacked."""
    attack = spec.evaluate.attack.model_dump(mode="json")
    figures = {"split": "validation", "images": images, "clean": clean, "robust": robust, "attack": attack}
    return {"measured": figures}


def _most_digits(spec: AtmcSpec, images: int) -> tuple[int, int]:
    """Figures that stand in an artifact until it is measured: of a budget that is to be met, as long as any."""
    return (images, images) if spec.compress.sized_in_bytes else (0, 0)
