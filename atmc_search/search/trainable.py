"""A trial as Ray Tune sees it: a `Task` behind the class-trainable interface, its actor reused from trial to trial."""

from __future__ import annotations

import math
import numbers
import platform
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import optuna
import ray
import torch
from ray import tune
from ray.exceptions import RayError

from atmc_search.errors import AtmcError, RunError, StorageError, TrialFailed, shown
from atmc_search.search.checkpoints import Checkpoint
from atmc_search.search.passing import may_pass
from atmc_search.search.recent import Recent
from atmc_search.search.sampler import START_TRIAL, TRIAL_NUMBER
from atmc_search.search.server import HEARTBEAT_S
from atmc_search.spec import ResourcesSpec, StudySpec, TrialSpec, fingerprint
from atmc_search.tasks import Report, Start, Task, TrialSpace, facts_of, task_named
from atmc_search.training import make_repeatable
from atmc_search.version import __version__

_WAIT_S = 0.2
_KEPT = 2
"""Sets of data that a worker holds: those of its trial, and those that the next one most likely has."""
_KEPT_STARTS = 4
"""Starts that a worker holds: two, each with its figures."""


class TrialTrainable(tune.Trainable):
    """One epoch a step. Whatever goes wrong inside a trial becomes a report with a reason, not an exception.

    What goes wrong around it (the server, a node) is an exception: Tune starts the trial anew, which goes on from its
    checkpoint.

    `setup` and `reset_config` only clear what was; spec, data, start and task are made in the first `step`, where a
    fault is a report like any other.
    """

    def setup(  # type: ignore[override]  # what tune.with_parameters adds comes as keywords
        self, config: dict[str, Any], *, spec: StudySpec, server: Any
    ) -> None:
        self._trials = TrialSpace(spec, task_named(spec.task))
        self._task: Task | None = None
        self._server = server
        self._data: Recent[str, Any] = Recent(_KEPT)
        self._starts: Recent[str, Start] = Recent(_KEPT_STARTS)
        self._notes: list[str] = []
        self._device = "cuda" if spec.resources.gpu > 0 else "cpu"
        self._no_device = no_cuda(spec.resources)
        torch.set_num_threads(max(1, int(spec.resources.cpu)))
        make_repeatable(self._device)
        self._server.enroll.remote(ray.get_runtime_context().current_actor)
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
            reason = _line(error)
        except RayError:
            raise
        except Exception as error:  # a user's model, or the device, may raise anything
            reason = _line(error)
            ray.get(self._server.put_traceback.remote(number, traceback.format_exc()))
        self._task = None
        self._free_memory()
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
            ray.get(self._server.prepare.remote(number))
            self._task = self._make_task(number)
            self._facts["epochs"] = self._task.epochs
            report = self._go_on(number)
            if report is not None:
                return dict(report)
        before = self._task.epoch
        metrics = _checked(self._task, self._task.step(), self._trials.study)
        if self._task.epoch <= before:
            raise TrialFailed(f"after a step its task still says epoch {before}; step must add to self.epoch")
        self._facts["epoch"] = self._task.epoch
        report = {**metrics, **self._facts, "state": "complete" if self._task.done else "running"}
        if all(metrics.get(name) is not None for name in self._trials.study.objectives):
            path, digest = ray.get(self._server.put_artifact.remote(number, _artifact(self._task)))
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
        ray.get(self._server.put_checkpoint.remote(number, data))

    def _go_on(self, number: int) -> Mapping[str, Any] | None:
        """Puts the task where its checkpoint left it; gives that epoch's report. None: it begins at the beginning."""
        assert self._task is not None
        data = ray.get(self._server.begin.remote(number))
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
        if self._no_device:
            raise TrialFailed(self._no_device)
        kind = self._trials.task
        spec = self._trials.fill(self.config)
        spec = spec.model_copy(update={"seed": spec.seed + number})
        data = self._load(kind.load_key(spec))
        inputs = dict(kind.inputs(spec, data))
        document = spec.model_dump(mode="json")
        self._facts |= {
            "seed": spec.seed,
            "trial_fingerprint": fingerprint({**document, "inputs": inputs} if inputs else document),
        }
        start = self._start(spec, data, number)
        self._facts["start"] = start.origin
        meta = facts_of(self._trials.study.name, inputs, trial=number)
        task = kind(spec, data, start, device=self._device, meta=meta)
        for name in ("epochs", "epoch"):
            if not isinstance(getattr(task, name, None), int):
                raise TrialFailed(f"its task has no whole number in self.{name}; set it in __init__")
        return task

    def _load(self, key: str) -> Any:
        if key not in self._data:
            (reference,) = ray.get(self._server.data.remote(key, self.config))
            self._data[key] = ray.get(reference)
        return self._data[key]

    def _start(self, spec: TrialSpec, data: Any, number: int) -> Start:
        """What the trial starts from, with the figures that it reports of it."""
        kind, parent = self._trials.task, self.config.get(START_TRIAL)
        earlier = tuple(kind.earlier_start_keys(spec))
        if parent is not None:
            artifact, digest = ray.get(self._server.artifact.remote(parent))
            start = kind.start_from(spec, data, artifact)
            key, start = digest[:12], replace(start, origin=f"trial {parent} {digest}")
        else:
            key = kind.start_key(spec, data)
            start = self._shared(
                key, earlier, number, lambda report: kind.make_start(spec, data, device=self._device, report=report)
            )
        measured = kind.start_figures_key(spec, data)
        if not measured:
            return start
        figures = self._shared(
            f"{key}-{measured}",
            () if parent is not None else earlier,
            number,
            lambda report: Start({}, kind.measure_start(spec, data, start, device=self._device)),
        )
        return replace(start, facts={**start.facts, **figures.facts})

    def _shared(self, key: str, earlier: Sequence[str], number: int, make: Callable[[Report], Start]) -> Start:
        """A start that trials share: made by this one, or by another while this one waits."""
        while key not in self._starts:
            claim = ray.get(self._server.claim_start.remote(key, number, earlier))
            if claim.state == "ready":
                self._starts[key] = Start.from_bytes(ray.get(claim.start))
            elif claim.state == "failed":
                raise TrialFailed(f"its start failed: {claim.reason}")
            elif claim.state == "make":
                self._make_start(key, number, make)
            else:
                time.sleep(_WAIT_S)
        return self._starts[key]

    def _make_start(self, key: str, number: int, make: Callable[[Report], Start]) -> None:
        server = self._server

        def report(progress: Mapping[str, Any]) -> None:
            server.renew_start.remote(key, number, dict(progress))

        try:
            with _heartbeat(lambda: server.renew_start.remote(key, number)):
                start = make(report)
            if not isinstance(start, Start):
                raise TrialFailed(f"make_start returned {shown(start)}; it must return an atmc_search.tasks.Start")
            ray.get(server.put_start.remote(key, start.to_bytes()))
        except RayError:
            raise
        except Exception as error:
            if may_pass(error):
                self._notes.append(f"makes its start again, as it failed by an error that may pass ({_line(error)})")
                ray.get(server.give_up_start.remote(key, number, _line(error)))
                self._free_memory()
                return
            ray.get(server.fail_start.remote(key, _line(error)))
            raise

    def _free_memory(self) -> None:
        if self._device == "cuda":
            torch.cuda.empty_cache()


@contextmanager
def _heartbeat(beat: Callable[[], object]) -> Iterator[None]:
    """Inside, `beat` is called every `HEARTBEAT_S` seconds, however long a step of the work takes."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(HEARTBEAT_S):
            beat()

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _line(error: Exception) -> str:
    """What went wrong, on one line."""
    error = getattr(error, "cause", error)  # of an error in the server, Ray's own text has the whole traceback
    text = str(error) if isinstance(error, AtmcError) else f"{type(error).__name__}: {error}".removesuffix(": ")
    return " ".join(text.split())[:500]


_PLAIN = {
    "bool": "a plain bool",
    "int64": "a whole number, e.g. int(value)",
    "float64": "a plain number, e.g. float(value)",
    "string": "a text, e.g. str(value)",
}


def _artifact(task: Task) -> bytes:
    """The bytes of the task's last measurement.

    Raises:
        TrialFailed: they are something else.
    """
    data = task.artifact()
    if not isinstance(data, bytes):
        raise TrialFailed(f"artifact returned {shown(data)}; it must return the bytes of a file")
    return data


def _checked(task: Task, metrics: Mapping[str, Any], study: StudySpec) -> Mapping[str, Any]:
    """What a task's step returned, if the table can hold it and the search can rank it.

    Raises:
        TrialFailed: no mapping, a metric without a column, a value of another type than its column's, an objective or
            bounded metric that is not finite, or none on the last epoch.
    """
    if not isinstance(metrics, Mapping):
        raise TrialFailed(
            f"step returned {shown(metrics)}; it must return metrics by column name, e.g. {{'error': 0.1}}"
        )
    if unknown := sorted(map(str, metrics.keys() - {column.name for column in task.columns})):
        raise TrialFailed(f"step returned {shown(unknown[0])}, which is no column of its task; declare it in columns")
    ranked = {*study.objectives, *study.constraints}
    for column in task.columns:
        value = metrics.get(column.name)
        if value is None:
            if task.done and column.name in ranked:
                raise TrialFailed(f"{column.name} is missing after the last epoch; the task must return it")
            continue
        fits = isinstance(value, numbers.Real) if column.numeric else column.kind != "string" or isinstance(value, str)
        if fits and column.name in ranked and not math.isfinite(value):
            raise TrialFailed(f"{column.name} = {value}: not finite, so it cannot be ranked")
        if not fits or (column.kind == "int64" and not float(value).is_integer()):
            raise TrialFailed(
                f"{column.name} = {shown(value)}: its column is {column.kind}; return {_PLAIN[column.kind]}"
            )
    return metrics


def no_cuda(resources: ResourcesSpec) -> str:
    """Why a trial that is to have a GPU cannot use one in this process; empty where it can, or needs none."""
    if resources.gpu == 0 or torch.cuda.is_available():
        return ""
    return (
        f"resources.gpu = {resources.gpu:g}: torch {torch.__version__} on {socket.gethostname()} finds no CUDA device; "
        "install a CUDA build and driver there, or set resources.gpu: 0"
    )


def warm_up() -> None:
    """Run by Ray in every new worker process: importing this module was the work."""
