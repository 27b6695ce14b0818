"""From Ray Tune's events to rows: every report is in Parquet before anything else happens with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import ray
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback

from atmc_search.errors import StorageError
from atmc_search.results import RunFolder
from atmc_search.search.checkpoints import Checkpoints
from atmc_search.search.preflight import Prepared
from atmc_search.search.progress import Progress
from atmc_search.search.sampler import START_TRIAL, TRIAL_NUMBER
from atmc_search.search.scheduler import Rungs
from atmc_search.search.stopping import StopRequest
from atmc_search.search.worker_loss import failures, why_lost

_DERIVE_EVERY_S = 5.0
_LOOK_EVERY_S = 1.0


class Recorder(Callback):
    """Writes reports as they arrive, keeps the derived tables fresh, feeds the progress display, and keeps time."""

    def __init__(
        self,
        prepared: Prepared,
        folder: RunFolder,
        progress: Progress,
        rungs: Rungs | None,
        server: Any,
        stop: StopRequest,
        unfinished: Sequence[Mapping[str, Any]],
    ) -> None:
        """`unfinished`: the last report of every trial that an earlier run left so."""
        self._prepared = prepared
        self._folder = folder
        self._progress = progress
        self._rungs = rungs
        self._server = server
        self._stop = stop
        self._checkpoints = Checkpoints(folder.path)
        self._next = folder.next_report()
        self._rows: dict[int, dict[str, Any]] = {int(row["trial"]): dict(row) for row in unfinished}
        self._started: dict[int, dict[str, Any]] = {}
        self._clocks: dict[int, float] = {}
        self._on_worker_since: dict[int, float] = {}
        self._timed_out: dict[int, str] = {}
        self._failed = 0
        self._announced = False
        self._derived_at = self._looked_at = 0.0
        self._trials = pd.DataFrame({"state": []})
        self.halted = False

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks for `Tuner.restore`, which is not used here; a terminal cannot be pickled.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config[TRIAL_NUMBER]
        self._on_worker_since[number] = time.monotonic()
        if number not in self._started:  # Ray starts a trial anew after its actor was lost
            self._begin(number, trial)

    def _begin(self, number: int, trial: Trial) -> None:
        parameters = {key: value for key, value in trial.config.items() if key not in (TRIAL_NUMBER, START_TRIAL)}
        parent = trial.config.get(START_TRIAL)
        before = self._rows.get(number, {})
        self._started[number] = {
            "trial": number,
            **parameters,
            "start": None if parent is None else f"trial {parent}",
            "fingerprint": self._prepared.spec.fingerprint,
            "started_at": before.get("started_at") or datetime.now(UTC),
        }
        self._clocks[number] = time.monotonic() - (before.get("elapsed_s") or 0.0)
        if before:
            self._rows[number] = {**before, "state": "running", "reason": ""}
            self._progress.report(self._rows[number])
        else:
            self._write(number, {"state": "running", "epoch": 0})

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        number = trial.config[TRIAL_NUMBER]
        report = dict(result["report"])
        if report["state"] == "unwritten":
            self._halt(report["reason"])
            return
        for note in result["notes"]:
            self._progress.say(f"trial {number} {note}")
        if report["state"] == "running" and self._rungs and number in self._rungs.reasons:
            report["state"] = "stopped"
            report["reason"] = self._rungs.reasons[number]
        if report["state"] == "running" and report["epoch"] <= self._rows[number]["epoch"]:
            return  # a trial that goes on from a checkpoint repeats its report, which may have been lost with a process
        self._write(number, report)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config[TRIAL_NUMBER]
        if number in self._rows:
            count, most = trial.num_failures, self._prepared.spec.search.max_failures
            self._progress.say(
                f"trial {number} lost its worker ({why_lost(failures(trial))}); it continues after epoch "
                f"{self._rows[number]['epoch']} (failures: {count}, search.max_failures {most})"
            )

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        # Exceptions inside a trial are reports; this is the loss of its whole process.
        number = trial.config[TRIAL_NUMBER]
        if number not in self._started:  # its worker died before it began
            self._begin(number, trial)
        text = failures(trial)
        self._guarded(lambda: ray.get(self._server.put_traceback.remote(number, text)))
        reason = self._timed_out.get(number) or f"worker lost: {why_lost(text)}"
        self._write(number, {**self._rows[number], "state": "failed", "reason": reason})

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._progress.refresh()
        now = time.monotonic()
        if now - self._looked_at > _LOOK_EVERY_S:
            self._looked_at = now
            self._end_overdue(trials)
            self._guarded(self._folder.check)
        if self._stop.requested and not self._announced and not self.halted:
            self._announced = True
            within = self._prepared.spec.search.stop_within_s
            again = " (Ctrl-C again: at once)" if self._stop.signal else ""
            self._progress.say(f"stopping: trials that run end their epoch, for {within:g} s at most{again}")
        self._stop.enforce()

    def _end_overdue(self, trials: list[Trial]) -> None:
        """Kills the workers of trials that have trained for too long: a step that hangs never returns."""
        most = self._prepared.spec.search.trial_timeout_s
        if most is None:
            return
        running = {trial.config[TRIAL_NUMBER]: trial for trial in trials if trial.status == Trial.RUNNING}
        for number, seconds in ray.get(self._server.training_s.remote(list(running))).items():
            trial = running[number]
            # The server may still tell the time of a worker that was lost.
            if min(seconds, time.monotonic() - self._on_worker_since[number]) <= most:
                continue
            self._timed_out[number] = f"timeout: trained for longer than search.trial_timeout_s = {most:g} s"
            trial.max_failures = 0
            ray.kill(trial.temporary_state.ray_actor)  # type: ignore[arg-type]  # it runs, so it has one

    def close(self) -> pd.DataFrame:
        """Marks trials that still run as interrupted, derives the tables once more, returns the trials."""
        for number, row in list(self._rows.items()):
            if row["state"] == "running":
                reason = "the sweep was stopped; run it again to continue"
                self._write(number, {**row, "state": "interrupted", "reason": reason})
        unfinished = {number for number, row in self._rows.items() if row["state"] == "interrupted"}
        self._guarded(lambda: self._checkpoints.keep_only(unfinished))
        self._guarded(self._derive)
        return self._trials

    def _write(self, number: int, report: Mapping[str, Any]) -> None:
        # Only what this report says: metrics of an earlier epoch must not pass for this one's.
        now = datetime.now(UTC)
        row = {"reason": "", **self._started.get(number, {}), **report, "reported_at": now}
        if number in self._clocks:
            row["elapsed_s"] = time.monotonic() - self._clocks[number]
        self._rows[number] = row
        self._guarded(lambda: self._record(number, row))

    def _record(self, number: int, row: Mapping[str, Any]) -> None:
        self._folder.append(row, self._prepared.columns, self._next)
        self._next += 1
        self._progress.report(row)
        if row["state"] in ("complete", "stopped", "failed"):
            self._checkpoints.drop(number)
            self._count_failure(row)
        if row["state"] != "running" and time.monotonic() - self._derived_at > _DERIVE_EVERY_S:
            self._derive()

    def _count_failure(self, row: Mapping[str, Any]) -> None:
        self._failed += row["state"] == "failed"
        if self._failed == self._prepared.spec.search.max_failed_trials:
            self._stop.request(
                f"search.max_failed_trials = {self._failed}: so many trials failed in this run, the last for "
                f"{row['reason']!r}; mend that, or raise it, and run again"
            )

    def _derive(self) -> None:
        self._trials = self._folder.derive(self._prepared.spec, self._prepared.columns)
        self._derived_at = time.monotonic()

    def _guarded(self, write: Callable[[], object]) -> None:
        """Does what touches the run folder, while that is ours and can be written; from the first fault on nothing."""
        if self.halted:
            return
        try:
            write()
        except StorageError as error:
            self._halt(str(getattr(error, "cause", error)))
        except OSError as error:
            self._halt(f"{self._folder.path}: cannot be written ({error.strerror}); mend that, then run again")

    def _halt(self, reason: str) -> None:
        self.halted = True
        self._stop.request(reason, at_once=True)


class Unprinted(TrialProgressCallback):
    """In place of Tune's own, which prints a line a trial at a stop however quiet it is told to be."""

    def _print(self, msg: str) -> None:
        pass
