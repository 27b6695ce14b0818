"""ATMC: adversarial training under a global ℓ0 budget, in factors, with codebooks (arXiv 1902.03538)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel
from torch import Tensor

from atmc_search.attacks import ATTACKS
from atmc_search.data import Splits
from atmc_search.registry import validated
from atmc_search.results import Column
from atmc_search.spec import TrialSpec, fingerprint
from atmc_search.tasks.atmc.columns import ATMC_COLUMNS, START
from atmc_search.tasks.atmc.data import AtmcData, inputs, load, load_key, load_to_measure
from atmc_search.tasks.atmc.dense import check_start, dense_start, start_figures, start_from_artifact
from atmc_search.tasks.atmc.earlier import as_now
from atmc_search.tasks.atmc.epoch_choice import choice_of
from atmc_search.tasks.atmc.feasibility import check_possible, dense_figures, least_figures
from atmc_search.tasks.atmc.measurer import Measured, Measurer, figures_to_come
from atmc_search.tasks.atmc.methods import METHOD_PATH, METHODS, as_method_says, method_of
from atmc_search.tasks.atmc.remeasure import curves, evaluated, remeasured
from atmc_search.tasks.atmc.spec import AtmcSpec
from atmc_search.tasks.atmc.start_keys import earlier_start_keys, start_figures_key, start_key
from atmc_search.tasks.atmc.training import Training
from atmc_search.tasks.base import Report, Task
from atmc_search.tasks.remeasured import Remeasured
from atmc_search.tasks.start import Start
from atmc_search.training import LOSSES
from atmc_search.training.state import State, grouped, joined
from atmc_search.version import __version__

_CHOICE = "choice"


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
    remeasure_options: ClassVar[tuple[str, ...]] = ("attack", "eps", "checks")
    suffix: ClassVar[str] = ".atmc"
    start_name: ClassVar[str] = START

    def __init__(self, spec: AtmcSpec, data: Splits, start: Start, *, device: str, meta: Mapping[str, Any]) -> None:
        self.spec = spec
        self.epochs = spec.train.epochs
        self.epoch = 0
        facts = {
            **meta,
            "data": spec.data.name,
            "threat": [spec.threat.norm, spec.threat.eps],
            "fingerprint": fingerprint(spec.model_dump(mode="json")),
            "version": __version__,
            "torch": torch.__version__,
            **figures_to_come(spec, len(data.validation)),
        }
        self._device = torch.device(device)
        self._start = start
        self._training = Training(spec, data, start, device=self._device, meta=facts)
        self._measurer = Measurer(spec, data, start, device=self._device)
        self._choice = choice_of(spec, self._training.parts.target)
        self._seconds = {"train_s": 0.0, "pack_s": 0.0, "measure_s": 0.0}
        self._artifact: bytes | None = None

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
    def load_to_measure(cls, spec: AtmcSpec) -> AtmcData:
        return load_to_measure(spec)

    @classmethod
    def inputs(cls, spec: AtmcSpec, data: AtmcData) -> Mapping[str, str]:
        return inputs(spec, data)

    @classmethod
    def describe(cls, spec: AtmcSpec, data: AtmcData) -> str:
        sizes = f"{len(data.train):,} training, {len(data.validation):,} validation, {len(data.test):,} test images"
        start = data.weights
        given = (
            "" if start is None else f"\n{START}: {start.name} (SHA-256 {start.sha256[:12]}…), measured before trials"
        )
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
            stats = self._training.epoch(self.epoch)
        self.epoch += 1
        progress = self.epoch / self.epochs
        measured = None
        if super().done or self.epoch % self.spec.evaluate.every == 0:
            measured = self._measured(progress)
        reported = self._choice.after_epoch(stats, measured, progress)
        metrics: dict[str, Any] = {
            "loss": stats.loss,
            "adversarial_train_accuracy": stats.adversarial_accuracy,
            "collapsed_epoch": self._training.guard.collapsed_at,
        }
        if reported is not None:
            self._artifact = reported.artifact
            metrics |= {"target_shortfall": 0.0, **reported.metrics}
        else:
            with self._timed("pack_s"):
                self._training.parts.packer.follow(progress)
        return metrics | dict(self._start.facts) | self._seconds

    @property
    def done(self) -> bool:
        return super().done or self._choice.over

    def artifact(self) -> bytes:
        assert self._artifact is not None, "no epoch has been measured yet"
        return self._artifact

    def state_dict(self) -> State:
        tensors, trained = self._training.state()
        chosen, choice = self._choice.state()
        facts = {**trained, "choice": choice, "epoch": self.epoch, "seconds": dict(self._seconds)}
        return tensors | joined({_CHOICE: chosen}), facts

    def load_state_dict(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        tensors, facts = as_now(tensors, facts, self.spec)
        tensors = {name: tensor.to(self._device) for name, tensor in tensors.items()}
        self._training.load({n: t for n, t in tensors.items() if not n.startswith(f"{_CHOICE}/")}, facts)
        self._choice.load(grouped(tensors).get(_CHOICE, {}), facts["choice"])
        if self._choice.kept is not None:
            self._artifact = self._choice.kept.artifact
        self.epoch = facts["epoch"]
        self._seconds = dict(facts["seconds"])

    def _measured(self, progress: float) -> Measured:
        """Deploys and packs what training has come to, and measures what the file decodes to."""
        with self._timed("pack_s"):
            deployed = self._training.pack(progress)
        with self._timed("measure_s"):
            measured = self._measurer.measured(deployed)
        return Measured(measured.artifact, {**measured.metrics, "measured_epoch": self.epoch})

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] += time.perf_counter() - began
