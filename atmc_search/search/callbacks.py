"""From Ray Tune's events to rows: every report is in Parquet before anything else happens with it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from ray.tune import Callback
from ray.tune.experiment import Trial

from atmc_search.results import RunFolder
from atmc_search.search.preflight import Prepared
from atmc_search.search.progress import Progress
from atmc_search.search.sampler import TRIAL_NUMBER
from atmc_search.search.scheduler import Rungs

_DERIVE_EVERY_S = 5.0


class Recorder(Callback):
    """Writes reports as they arrive, keeps the derived tables fresh, and feeds the progress display."""

    def __init__(self, prepared: Prepared, folder: RunFolder, progress: Progress, rungs: Rungs | None) -> None:
        self._prepared = prepared
        self._folder = folder
        self._progress = progress
        self._rungs = rungs
        self._next = folder.next_report()
        self._started: dict[int, dict[str, Any]] = {}
        self._rows: dict[int, dict[str, Any]] = {}
        self._derived_at = 0.0

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks for `Tuner.restore`, which is not used here; a terminal cannot be pickled.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config[TRIAL_NUMBER]
        if number not in self._started:  # Ray starts a trial anew after its actor was lost
            self._begin(number, trial)
            self._write(number, {"state": "running", "epoch": 0})

    def _begin(self, number: int, trial: Trial) -> None:
        parameters = {key: value for key, value in trial.config.items() if key != TRIAL_NUMBER}
        self._started[number] = {
            "trial": number,
            **parameters,
            "fingerprint": self._prepared.spec.fingerprint,
            "started_at": datetime.now(UTC),
        }

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        number = trial.config[TRIAL_NUMBER]
        report = dict(result["report"])
        if result.get("done") and report["state"] == "running":
            report["state"] = "stopped"
            report["reason"] = self._rungs.reasons.get(number, "") if self._rungs else ""
        self._write(number, report)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        # Exceptions inside a trial are reports; this is the loss of its whole process.
        text = trial.get_error() if hasattr(trial, "get_error") else None
        last_line = " ".join(str(text or "its worker process died").split())[:300]
        number = trial.config[TRIAL_NUMBER]
        if number not in self._started:  # its worker died before it began
            self._begin(number, trial)
        row = self._rows.get(number, {"epoch": 0})
        self._write(number, {**row, "state": "failed", "reason": f"worker lost: {last_line}"})

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._progress.refresh()

    def close(self) -> pd.DataFrame:
        """Marks trials that still run as interrupted, derives the tables once more, returns the trials."""
        for number, row in list(self._rows.items()):
            if row["state"] == "running":
                reason = "the sweep was stopped; run it again to go on"
                self._write(number, {**row, "state": "interrupted", "reason": reason})
        return self._derive()

    def _write(self, number: int, report: Mapping[str, Any]) -> None:
        # Only what this report says: metrics of an earlier epoch must not pass for this one's.
        now = datetime.now(UTC)
        row = {"reason": "", **self._started[number], **report, "reported_at": now}
        row["elapsed_s"] = (now - row["started_at"]).total_seconds()
        self._rows[number] = row
        self._folder.append(row, self._prepared.columns, self._next)
        self._next += 1
        self._progress.report(row)
        if row["state"] != "running" and time.monotonic() - self._derived_at > _DERIVE_EVERY_S:
            self._derive()

    def _derive(self) -> pd.DataFrame:
        trials = self._folder.write_derived(self._folder.read_reports(), self._prepared.spec, self._prepared.columns)
        self._derived_at = time.monotonic()
        return trials
