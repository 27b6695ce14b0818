"""A trial as Ray Tune sees it: a `Task` behind the class-trainable interface, its actor reused from trial to trial."""

from __future__ import annotations

import math
import numbers
import platform
import socket
import time
import traceback
from collections.abc import Mapping
from typing import Any

import optuna
import ray
import torch
from ray import tune
from ray.exceptions import RayError

from atmc_search.data import Splits
from atmc_search.errors import AtmcError, RunError, StorageError, TrialFailed, shown
from atmc_search.search.checkpoints import Checkpoint
from atmc_search.search.sampler import TRIAL_NUMBER
from atmc_search.spec import DataSpec, StudySpec, TrialSpec, fingerprint
from atmc_search.tasks import Start, Task, task_named
from atmc_search.training import make_repeatable, tensors_from_bytes, tensors_to_bytes
from atmc_search.version import __version__

_WAIT_S = 0.2


class TrialTrainable(tune.Trainable):
    """One epoch a step. Whatever goes wrong inside a trial becomes a report with a reason, not an exception.

    What goes wrong around it (the depot, a node) is an exception: Tune starts the trial anew, which goes on from its
    checkpoint.

    `setup` and `reset_config` only clear what was; spec, data, start and task are made in the first `step`, where a
    fault is a report like any other.
    """

    def setup(  # type: ignore[override]  # what tune.with_parameters adds comes as keywords
        self, config: dict[str, Any], *, spec: StudySpec, depot: Any
    ) -> None:
        self._study = spec
        self._task: Task | None = None
        self._depot = depot
        self._data: dict[DataSpec, Splits] = {}
        self._starts: dict[str, Start] = {}
        self._notes: list[str] = []
        gpu = spec.resources.gpu > 0 and torch.cuda.is_available()
        self._device = "cuda" if gpu else "cpu"
        torch.set_num_threads(max(1, int(spec.resources.cpu)))
        make_repeatable()
        self._depot.enroll.remote(ray.get_runtime_context().current_actor)
        self._begin()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin()
        return True

    def step(self) -> dict[str, Any]:
        number = self.config[TRIAL_NUMBER]
        try:
            report = self._advance(number)
            return self._result(report)
        except StorageError as error:  # of the run folder: no fault of the trial, which goes on when the sweep does
            reason = str(getattr(error, "cause", error))  # Ray's own text has the whole traceback
            return {"report": {**self._facts, "state": "unwritten", "reason": reason}, "notes": [], "done": True}
        except AtmcError as error:
            reason = str(error)
        except RayError:
            raise
        except Exception as error:  # a user's model, or the device, may raise anything
            reason = _line(error)
            ray.get(self._depot.put_traceback.remote(number, traceback.format_exc()))
        self._task = None
        if self._device == "cuda":
            torch.cuda.empty_cache()
        return self._result({**self._facts, "state": "failed", "reason": reason})

    def cleanup(self) -> None:
        self._task = None

    def _result(self, report: Mapping[str, Any]) -> dict[str, Any]:
        result = {"report": report, "notes": self._notes, "done": report["state"] in ("complete", "failed")}
        self._notes = []
        return result

    def _begin(self) -> None:
        self._task = None
        self._notes = []
        self._facts: dict[str, Any] = {
            "epoch": 0,
            "host": socket.gethostname(),
            "device": self._device,
            "atmc_search_version": __version__,
            "torch_version": torch.__version__,
            "ray_version": ray.__version__,
            "optuna_version": optuna.__version__,
            "python_version": platform.python_version(),
        }

    def _advance(self, number: int) -> dict[str, Any]:
        if self._task is None:
            ray.get(self._depot.prepare.remote(number))
            self._task = self._make_task(number)
            self._facts["epochs"] = self._task.epochs
            report = self._go_on(number)
            if report is not None:
                return dict(report)
        metrics = _checked(self._task, self._task.step(), self._study)
        self._facts["epoch"] = self._task.epoch
        report = {**metrics, **self._facts, "state": "complete" if self._task.done else "running"}
        if all(metrics.get(name) is not None for name in self._study.objectives):
            path, digest = ray.get(self._depot.put_artifact.remote(number, self._task.artifact()))
            report |= {"artifact": path, "artifact_sha256": digest}
        if report["state"] == "running":
            self._save(number, report)
        return report

    def _save(self, number: int, report: Mapping[str, Any]) -> None:
        assert self._task is not None
        try:
            data = Checkpoint(*self._task.state_dict(), report).to_bytes()
        except Exception as error:  # a user's task may give anything; the trial itself is sound
            if report["epoch"] == 1:
                self._notes.append(f"has no checkpoints, as its state_dict cannot be written ({_line(error)})")
            return
        ray.get(self._depot.put_checkpoint.remote(number, data))

    def _go_on(self, number: int) -> Mapping[str, Any] | None:
        """Puts the task where its checkpoint left it; gives that epoch's report. None: it begins at the beginning."""
        assert self._task is not None
        data = ray.get(self._depot.begin.remote(number))
        if data is None:
            return None
        try:
            checkpoint = Checkpoint.from_bytes(data)
            if checkpoint.report["trial_fingerprint"] != self._facts["trial_fingerprint"]:
                raise RunError("it is of another trial")
            self._task.load_state_dict(checkpoint.tensors, checkpoint.facts)
            if self._task.epoch != checkpoint.report["epoch"]:
                raise RunError(f"after it the task says epoch {self._task.epoch}, not {checkpoint.report['epoch']}")
        except Exception as error:  # whatever is in the file, or a user's task makes of it
            self._notes.append(f"begins again, as its checkpoint cannot be used: {_line(error)}")
            self._task = self._make_task(number)  # the other one may be half restored
            return None
        self._facts["epoch"] = self._task.epoch
        return checkpoint.report

    def _make_task(self, number: int) -> Task:
        spec = self._study.fill(self.config)
        spec = spec.model_copy(update={"seed": spec.seed + number})
        self._facts |= {"seed": spec.seed, "trial_fingerprint": fingerprint(spec.model_dump(mode="json"))}
        kind = task_named(self._study.task)
        data = self._splits(spec.data)
        start = self._start(kind, spec, data, number)
        meta = {"study": self._study.name, "trial": number}
        return kind(spec, data, start, device=self._device, meta=meta)

    def _splits(self, spec: DataSpec) -> Splits:
        if spec not in self._data:
            (reference,) = ray.get(self._depot.data.remote(spec))
            self._data[spec] = ray.get(reference)
        return self._data[spec]

    def _start(self, kind: type[Task], spec: TrialSpec, data: Splits, number: int) -> Start:
        key = kind.start_key(spec)
        while key not in self._starts:
            claim = ray.get(self._depot.claim_start.remote(key, number))
            if claim.state == "ready":
                self._starts[key] = Start(*tensors_from_bytes(ray.get(claim.start)))
            elif claim.state == "failed":
                raise TrialFailed(f"its start failed: {claim.reason}")
            elif claim.state == "make":
                self._make_start(kind, key, spec, data, number)
            else:
                time.sleep(_WAIT_S)
        return self._starts[key]

    def _make_start(self, kind: type[Task], key: str, spec: TrialSpec, data: Splits, number: int) -> None:
        try:
            start = kind.make_start(
                spec,
                data,
                device=self._device,
                report=lambda progress: self._depot.renew_start.remote(key, number, dict(progress)),
            )
            ray.get(self._depot.put_start.remote(key, tensors_to_bytes(start.tensors, start.facts)))
        except RayError:
            raise
        except Exception as error:
            ray.get(self._depot.fail_start.remote(key, _line(error)))
            raise


def _line(error: Exception) -> str:
    """What went wrong, on one line."""
    text = str(error) if isinstance(error, AtmcError) else f"{type(error).__name__}: {error}".removesuffix(": ")
    return " ".join(text.split())[:500]


def _checked(task: Task, metrics: Mapping[str, Any], study: StudySpec) -> Mapping[str, Any]:
    """What a task's step returned, if the table can hold it and the search can rank it.

    Raises:
        TrialFailed: a value of another type than its column's, an objective or bounded metric that is not finite, or
            none on the last epoch.
    """
    ranked = {*study.objectives, *study.constraints}
    for column in task.columns:
        value = metrics.get(column.name)
        if value is None:
            if task.done and column.name in ranked:
                raise TrialFailed(f"{column.name} is missing after the last epoch; the task must return it")
            continue
        numeric = column.kind in ("int64", "float64")
        fits = isinstance(value, numbers.Real) if numeric else column.kind != "string" or isinstance(value, str)
        if fits and column.name in ranked and not math.isfinite(value):
            raise TrialFailed(f"{column.name} = {value}: not finite, so it cannot be ranked")
        if not fits or (column.kind == "int64" and not float(value).is_integer()):
            raise TrialFailed(f"{column.name} = {shown(value)}: the task must return {column.kind}")
    return metrics


def warm_up() -> None:
    """Run by Ray in every new worker process: importing this module was the work."""
