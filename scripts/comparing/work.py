"""Trains and measures what a comparison asks for, in several processes; what lies in the folder is not done again.

runs/NAME/starts/KEY.safetensors      dense starts, shared as in a sweep; KEY.failed: why there is none
runs/NAME/trials/KEY.json, KEY.atmc   a trial's settings and last metrics, and its artifact
runs/NAME/test/KEY-….json             the artifact on test images: written once, read from then on
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import torch

from atmc_search.artifact import unpack
from atmc_search.attacks import build_attack
from atmc_search.data import DeviceData, ImageSet
from atmc_search.errors import TrialFailed
from atmc_search.measure import measure
from atmc_search.models import placed
from atmc_search.results import write_atomic
from atmc_search.spec import fingerprint
from atmc_search.tasks import Start, start_of
from atmc_search.tasks.atmc import AtmcSpec, AtmcTask
from atmc_search.training import make_repeatable
from comparing.plan import Comparison, Job, TestOnce, jobs


def work(comparison: Comparison, folder: Path, *, workers: int, device: str, measuring: bool) -> list[dict[str, Any]]:
    """Does what is missing and returns a row a trial: its metrics, and its figures on test images.

    Args:
        comparison: the plan.
        folder: where results lie, or will.
        workers: processes at a time, each of one thread; 0: none, all in this one.
        device: torch device of all of them.
        measuring: test images too; only once every trial of the plan is there.
    """
    for part in ("starts", "trials", "test"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    todo = jobs(comparison)
    starts = {_start_path(job.spec, folder): job.spec for job in todo}
    _all(
        [partial(_start, spec, path, device) for path, spec in starts.items()],
        workers,
        device,
    )
    _all([partial(_train, job, folder, device) for job in todo], workers, device)
    rows = [json.loads(_paths(job, folder)[0].read_text()) for job in todo]
    test = comparison.test if measuring else None
    if test is not None:
        _all(
            [
                partial(_test, job, test, folder, device)
                for job, row in zip(todo, rows, strict=True)
                if "failed" not in row
            ],
            workers,
            device,
        )
    for job, row in zip(todo, rows, strict=True):
        tested = None if test is None else _test_path(job, test, folder)
        row["test"] = json.loads(tested.read_text()) if tested and tested.exists() else {}
    return rows


def _all(calls: Sequence[Callable[[], str | None]], workers: int, device: str) -> None:
    """Runs what is to be run, and says what each did."""
    began = time.monotonic()
    for number, said in enumerate(_results(calls, workers, device), start=1):
        if said:
            print(f"{number}/{len(calls)} {said}, {time.monotonic() - began:.0f} s gone", flush=True)


def _results(calls: Sequence[Callable[[], str | None]], workers: int, device: str) -> Iterator[str | None]:
    if not workers:
        yield from (call() for call in calls)
        return
    # Workers that are killed at a stop leave semaphores, of which Python's tracker would tell at length.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker")
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(device,))
    try:
        for future in as_completed([pool.submit(call) for call in calls]):
            yield future.result()
    except BaseException:  # an error, or Ctrl-C: at once, as what is half done is done again anyway
        for process in multiprocessing.active_children():
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(device: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    make_repeatable(device)


def _end_with_parent() -> None:
    """A killed parent leaves no process behind that goes on computing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


_loaded: dict[str, Any] = {}
"""What this process loaded last: trials of a comparison share their data."""


def _data(spec: AtmcSpec) -> Any:
    key = AtmcTask.load_key(spec)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = AtmcTask.load(spec)
    return _loaded[key]


def _start_path(spec: AtmcSpec, folder: Path) -> Path:
    """The file of a trial's dense start and its figures, equal for trials that can share both."""
    data = _data(spec)
    keys = AtmcTask.start_key(spec, data), AtmcTask.start_figures_key(spec, data)
    return folder / "starts" / f"{'-'.join(keys)}.safetensors"


def _start(spec: AtmcSpec, path: Path, device: str) -> str | None:
    failure = path.with_suffix(".failed")
    if path.exists() or failure.exists():
        return None
    try:
        start = start_of(AtmcTask, spec, _data(spec), device=device, report=lambda row: None)
    except TrialFailed as error:
        write_atomic(failure, str(error).encode())
        return f"dense start {path.stem} failed: {error}"
    write_atomic(path, start.to_bytes())
    return f"dense start {path.stem}"


def _paths(job: Job, folder: Path) -> tuple[Path, Path]:
    return folder / "trials" / f"{job.key}.json", folder / "trials" / f"{job.key}.atmc"


def _train(job: Job, folder: Path, device: str) -> str | None:
    path, artifact = _paths(job, folder)
    if path.exists():
        return None
    started = _start_path(job.spec, folder)
    row: dict[str, Any] = {"arm": job.arm, "point": job.point, "seed": job.seed}
    row["spec"] = job.spec.model_dump(mode="json", exclude_none=True)
    try:
        if not started.exists():
            raise TrialFailed(f"its dense start: {started.with_suffix('.failed').read_text()}")
        start = Start.from_bytes(started.read_bytes())
        task = AtmcTask(job.spec, _data(job.spec), start, device=device, meta={"study": folder.name})
        while not task.done:
            metrics = task.step()
    except TrialFailed as error:
        row["failed"] = str(error)
        said = f"{job.arm} {job.point} seed {job.seed}: failed, {error}"
    else:
        row["metrics"] = {name: value for name, value in metrics.items() if isinstance(value, int | float | str)}
        write_atomic(artifact, task.artifact())
        accuracies = ", ".join(f"{metrics[f'{kind}_accuracy']:.4f} {kind}" for kind in ("clean", "robust"))
        said = f"{job.arm} {job.point} seed {job.seed}: {metrics['size_bytes']:,} bytes, {accuracies} (validation)"
    write_atomic(path, json.dumps(row).encode())
    return said


def _test_path(job: Job, test: TestOnce, folder: Path) -> Path | None:
    """The name holds the artifact's and the settings' hashes: a figure never outlives what it was measured on."""
    artifact = _paths(job, folder)[1]
    if not artifact.exists():
        return None
    digest = hashlib.sha256(artifact.read_bytes()).hexdigest()[:12]
    return folder / "test" / f"{job.key}-{digest}-{fingerprint(test.model_dump(mode='json'))}.json"


def _test(job: Job, test: TestOnce, folder: Path, device: str) -> str | None:
    path = _test_path(job, test, folder)
    if path is None or path.exists():
        return None
    images = _data(job.spec).test
    model = placed(unpack(_paths(job, folder)[1].read_bytes(), allow_custom_models=True), device)
    figures: dict[str, Any] = {"images": 0}
    for name, component in test.attacks.items():
        n = test.images_for(name)
        data = DeviceData(ImageSet(images.images[:n], images.labels[:n]), torch.device(device))
        attack = build_attack(component, path=f"test.attacks.{name}")
        found = measure(model, data, attack, job.spec.threat, batch_size=500, seed=0)
        figures |= {name: found.robust.value, f"{name}_images": len(data)}
        if len(data) > figures["images"]:
            figures |= {"images": len(data), "clean": found.clean.value}
    write_atomic(path, json.dumps(figures).encode())
    return f"{job.arm} {job.point} seed {job.seed} on test images: {figures}"
