"""A study from start to end: check, replay what there is, run the rest on Ray, leave the tables behind."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from atmc_search.errors import RunError, SpecError
from atmc_search.results import RunFolder, trials_of
from atmc_search.results.checks import require_columns
from atmc_search.search.callbacks import Recorder
from atmc_search.search.depot import Depot, data_references
from atmc_search.search.preflight import Prepared, prepare
from atmc_search.search.progress import Progress
from atmc_search.search.sampler import OptunaSearcher
from atmc_search.search.scheduler import Rungs, make_scheduler
from atmc_search.search.trainable import TrialTrainable
from atmc_search.spec import StudySpec

_FINISHED = ("complete", "stopped", "failed")


@dataclass(frozen=True)
class StudyResult:
    """What a run left.

    Attributes:
        folder: where.
        trials: one row a trial.
        ran: trials that this call ran (the rest were there already).
        interrupted: whether the sweep was stopped before its end.
        hypervolume: of the front; None without a reference point.
    """

    folder: RunFolder
    trials: pd.DataFrame
    ran: int
    interrupted: bool
    hypervolume: float | None


def run_study(
    spec: StudySpec,
    *,
    runs: str | Path = "runs",
    address: str = "local",
    cpus: int | None = None,
    console: Console | None = None,
) -> StudyResult:
    """Runs a study, or what is left of it.

    Args:
        spec: the study.
        runs: folder that holds the run folders.
        address: of a Ray cluster; "local" starts Ray here for the time of the run.
        cpus: cores to use when Ray is started here; default: all.
        console: where progress goes; default: standard error.

    Raises:
        AtmcError: a mistake in the spec, the data or the folder, found before anything runs.
    """
    prepared = prepare(spec)
    folder = RunFolder(Path(runs) / spec.name)
    folder.create(spec)
    earlier = folder.read_reports()
    require_columns(earlier, spec.space, folder.reports)
    before = trials_of(earlier)
    finished = 0 if before.empty else int(before["state"].isin(_FINISHED).sum())
    console = console or Console(stderr=True)
    if finished >= spec.search.trials:
        trials = folder.write_derived(earlier, spec, prepared.columns)
        with Progress(prepared, console, list) as progress:
            progress.earlier(_rows(trials))
        return StudyResult(folder, trials, 0, False, progress.hypervolume)

    searcher = OptunaSearcher(spec, earlier=len(before))
    scheduler, rungs = make_scheduler(spec)
    _replay(earlier, before, spec, searcher, rungs)
    with _ray(spec, address, cpus):
        depot = _start_depot(folder, prepared)
        progress = Progress(prepared, console, lambda: ray.get(depot.starts_in_making.remote()))
        if finished:
            progress.earlier([row for row in _rows(before) if row["state"] in _FINISHED])
        recorder = Recorder(prepared, folder, progress, rungs)
        try:
            with progress, tempfile.TemporaryDirectory(prefix="atmc-search-") as scratch:
                _fit(spec, searcher, scheduler, recorder, depot, spec.search.trials - finished, scratch)
        finally:
            trials = recorder.close()
    done = int(trials["state"].isin(_FINISHED).sum())
    return StudyResult(folder, trials, done - finished, done < spec.search.trials, progress.hypervolume)


def _fit(
    spec: StudySpec,
    searcher: OptunaSearcher,
    scheduler: Any,
    recorder: Recorder,
    depot: Any,
    samples: int,
    scratch: str,
) -> None:
    trainable = tune.with_resources(
        tune.with_parameters(TrialTrainable, spec=spec, depot=depot),
        {"cpu": spec.resources.cpu, "gpu": spec.resources.gpu},
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(search_alg=searcher, scheduler=scheduler, num_samples=samples, reuse_actors=True),
        run_config=tune.RunConfig(
            name=spec.name,
            storage_path=scratch,  # Tune's own state is not used: reports are what a study goes on from
            callbacks=[recorder],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    tuner.fit()


def _start_depot(folder: RunFolder, prepared: Prepared) -> Any:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": here}
    return ray.remote(Depot).options(**options).remote(str(folder.path.resolve()), data_references(prepared.data))


def _replay(
    reports: pd.DataFrame, trials: pd.DataFrame, spec: StudySpec, searcher: OptunaSearcher, rungs: Rungs | None
) -> None:
    """Tells the sampler and the rungs all that happened before."""
    for row in _rows(trials):
        config = {path: row[path] for path in spec.space}
        searcher.replay(int(row["trial"]), config, row["state"], row)
    if rungs is not None:
        over = set(trials.loc[trials["state"].isin(_FINISHED), "trial"]) if len(trials) else set()
        for row in _rows(reports):
            if row["trial"] in over and row["state"] in ("running", "stopped") and row["epoch"]:
                rungs.record(int(row["trial"]), int(row["epoch"]), int(row["epochs"]), row)


def _rows(frame: pd.DataFrame) -> Sequence[Mapping[str, Any]]:
    """The rows as plain dicts: numpy scalars to Python's, missing values to None."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [{str(k): v.item() if hasattr(v, "item") else v for k, v in row.items()} for row in plain.to_dict("records")]


@contextmanager
def _ray(spec: StudySpec, address: str, cpus: int | None) -> Iterator[None]:
    """Ray up, quiet, and checked for the resources that one trial needs; down again if it was started here."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output engine prints a line even when told to be quiet
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1000000000"
    # Two pending trials: the older may take over a finished trial's actor while the younger's own still comes up.
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "2")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"include_dashboard": False, "num_cpus": cpus} if address == "local" else {}
    # Ray starts idle workers at once; with the imports done there, an actor is up in a moment. Without, a second actor
    # never came up in sweeps of short trials: the pending trial took over the first one's actor every time.
    options["runtime_env"] = {"worker_process_setup_hook": "atmc_search.search.trainable.warm_up"}
    began_here = not ray.is_initialized()
    if began_here:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"--address {address}: Ray does not answer there ({reason}); check the address") from None
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    try:
        have = ray.cluster_resources()
        for name, wanted in (("CPU", spec.resources.cpu), ("GPU", spec.resources.gpu)):
            if wanted > have.get(name, 0) and address == "local":
                raise SpecError(
                    f"resources.{name.lower()} = {wanted:g}: there are {have.get(name, 0):g} here, so no trial could "
                    f"start; ask for at most that, or give a cluster by --address"
                )
        yield
    finally:
        if began_here:
            ray.shutdown()
