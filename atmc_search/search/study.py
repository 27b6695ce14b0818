"""A study from start to end: check, replay what there is, run the rest on Ray, leave the tables behind."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import ray
from ray import tune
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from atmc_search.errors import RunError
from atmc_search.results import RunFolder, trials_of
from atmc_search.results.checks import require_columns
from atmc_search.search.callbacks import Recorder, Unprinted
from atmc_search.search.checkpoints import Checkpoints
from atmc_search.search.cluster import check_address, ray_for
from atmc_search.search.preflight import Prepared, prepare
from atmc_search.search.progress import Progress
from atmc_search.search.sampler import OptunaSearcher
from atmc_search.search.scheduler import Rungs, make_scheduler
from atmc_search.search.server import TrialServer, data_references
from atmc_search.search.stopping import StopNow, StopRequest
from atmc_search.search.trainable import TrialTrainable
from atmc_search.search.worker_loss import every_loss_is_one_of_an_actor
from atmc_search.spec import StudySpec
from atmc_search.tasks import TrialSpace

_END_S = 10.0
_FINISHED = ("complete", "stopped", "failed")
_AGAIN = "failed, to be run again"


@dataclass(frozen=True)
class StudyResult:
    """What a run left.

    Attributes:
        folder: where.
        trials: one row a trial.
        ran: trials that this call ran (the rest were there already).
        interrupted: whether the sweep was stopped before its end.
        hypervolume: of the front; None without a reference point.
        signal: the number of the signal that stopped it; None if none did.
    """

    folder: RunFolder
    trials: pd.DataFrame
    ran: int
    interrupted: bool
    hypervolume: float | None
    signal: int | None = None


def run_study(
    spec: StudySpec,
    *,
    runs: str | Path = "runs",
    address: str = "local",
    cpus: int | None = None,
    retry_failed: bool = False,
    console: Console | None = None,
) -> StudyResult:
    """Runs a study, or what is left of it.

    Args:
        spec: the study.
        runs: folder that holds the run folders.
        address: of a Ray cluster; "local" starts Ray here for the time of the run.
        cpus: cores to use when Ray is started here; default: all.
        retry_failed: whether trials that failed in earlier runs are run again.
        console: where progress goes; default: standard error.

    Raises:
        AtmcError: a mistake in the spec, the data or the folder, found before anything runs; or too many failed trials.
    """
    prepared = prepare(spec)
    check_address(address)
    folder = RunFolder(Path(runs) / spec.name)
    with folder.locked(prepared.spec, prepared.trials.defaults, prepared.inputs):
        return _run(prepared, folder, address, cpus, retry_failed, console or Console(stderr=True))


def _run(
    prepared: Prepared, folder: RunFolder, address: str, cpus: int | None, retry_failed: bool, console: Console
) -> StudyResult:
    spec = prepared.spec
    earlier = folder.read_reports()
    require_columns(earlier, prepared.trials.distributions, folder.reports)
    before = trials_of(earlier)
    if retry_failed and len(before):  # their rows stay; from here on they are trials that have not begun
        before = before.assign(state=before["state"].replace("failed", _AGAIN))
    finished = _count_finished(before)
    if finished >= spec.search.trials:
        trials = folder.write_derived(earlier, spec, prepared.columns)
        with Progress(prepared, console, list) as progress:
            progress.earlier(_rows(trials))
        return StudyResult(folder, trials, 0, False, progress.hypervolume)

    unfinished = [row for row in _rows(before) if row["state"] not in (*_FINISHED, _AGAIN)]
    checkpoints = Checkpoints(folder.path)
    checkpoints.keep_only({int(row["trial"]) for row in unfinished})
    stop = StopRequest(spec.search.stop_within_s)
    searcher = OptunaSearcher(prepared.trials, earlier=len(before), stop=stop)
    scheduler, rungs = make_scheduler(spec, stop)
    _replay(earlier, before, prepared.trials, searcher, rungs)
    trials, hypervolume = before, None
    try:
        # Ray takes SIGTERM for itself when it starts, so that the handlers are set once more.
        with stop.on_signals(at_once=True), ray_for(spec.resources, address, cpus), stop.on_signals():
            server = _start_server(folder, prepared)
            progress = Progress(prepared, console, lambda: ray.get(server.starts.remote()))
            if len(before):
                progress.earlier([row for row in _rows(before) if row["state"] in _FINISHED])
                under_way = f"{finished} of {spec.search.trials} trials done, {len(unfinished)} under way"
                progress.say(f"{folder.path}/: continuing; {under_way}")
            recorder = Recorder(prepared, folder, progress, rungs, server, stop, unfinished)
            try:
                with progress, tempfile.TemporaryDirectory(prefix="atmc-search-") as scratch:
                    _fit(spec, searcher, scheduler, recorder, server, spec.search.trials - finished, scratch)
            except KeyboardInterrupt:  # StopNow; Ray makes a plain one of what a signal raises while it waits
                if not stop.requested:
                    raise
            finally:
                trials, hypervolume = recorder.close(), progress.hypervolume
                _end(server)
    except KeyboardInterrupt:  # likewise, while Ray starts or ends
        if not stop.requested:
            raise
    except SystemExit:  # how Ray takes SIGTERM until the handlers are ours
        with suppress(StopNow):
            stop.take(signal.SIGTERM, at_once=True)
    done = _count_finished(trials)
    if stop.reason and (recorder.halted or done < spec.search.trials):
        raise RunError(stop.reason)
    return StudyResult(folder, trials, done - finished, done < spec.search.trials, hypervolume, signal=stop.signal)


def _fit(
    spec: StudySpec,
    searcher: OptunaSearcher,
    scheduler: Any,
    recorder: Recorder,
    server: Any,
    samples: int,
    scratch: str,
) -> None:
    trainable = tune.with_resources(
        tune.with_parameters(TrialTrainable, spec=spec, server=server),
        {"cpu": spec.resources.cpu, "gpu": spec.resources.gpu},
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(search_alg=searcher, scheduler=scheduler, num_samples=samples, reuse_actors=True),
        run_config=tune.RunConfig(
            name=spec.name,
            storage_path=scratch,  # Tune's own state is not used: reports are what a study goes on from
            callbacks=[recorder, Unprinted()],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=spec.search.max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    with every_loss_is_one_of_an_actor():
        tuner.fit()


def _count_finished(trials: pd.DataFrame) -> int:
    return 0 if trials.empty else int(trials["state"].isin(_FINISHED).sum())


def _end(server: Any) -> None:
    """Ends what this study left in a Ray that may go on: Tune keeps handles, and workers would hold their resources."""
    with suppress(RayError):
        for worker in ray.get(server.workers.remote(), timeout=_END_S):
            ray.kill(worker)
    ray.kill(server)


def _start_server(folder: RunFolder, prepared: Prepared) -> Any:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Ray may kill it for memory as any worker; what it holds is on disk, or made again by whoever asks.
    options = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1, "max_task_retries": -1}
    server: Any = (
        ray.remote(TrialServer).options(**options).remote(str(folder.path.resolve()), prepared.spec, folder.token)
    )
    server.put_data.remote(data_references(prepared.data))  # not waited for: it comes up while the first workers do
    return server


def _replay(
    reports: pd.DataFrame, trials: pd.DataFrame, space: TrialSpace, searcher: OptunaSearcher, rungs: Rungs | None
) -> None:
    """Tells the sampler and the rungs all that happened before."""
    for row in _rows(trials):
        config = {path: row[path] for path in space.distributions}
        searcher.replay(int(row["trial"]), config, row["state"], row)
    if rungs is not None and len(reports):
        judged = reports[reports["state"].isin(("running", "stopped")) & (reports["epoch"] > 0)]
        # Of trials that go on from a checkpoint, too: they passed these rungs.
        for row in _rows(judged.reindex(columns=["trial", "epoch", "epochs", *space.study.objectives])):
            rungs.replay(int(row["trial"]), int(row["epoch"]), int(row["epochs"]), row)


def _rows(frame: pd.DataFrame) -> Sequence[dict[str, Any]]:
    """The rows as plain dicts: numpy scalars to Python's, missing values to None."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [{str(k): v.item() if hasattr(v, "item") else v for k, v in row.items()} for row in plain.to_dict("records")]
