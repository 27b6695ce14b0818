"""What must hold of a run folder whatever was killed, counted."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from atmc_search.results import RunFolder
from breaking.tick import gain_after

_OVER = ("complete", "stopped")
_ENDED = re.compile(r"^trial (\d+) (complete|stopped);", re.MULTILINE)


@dataclass
class Ledger:
    """Counts over all studies and kills; `broken` tells every promise that was not kept."""

    kills: int = 0
    studies: int = 0
    trials: int = 0
    reports: int = 0
    acknowledged: int = 0
    lines: int = 0
    files: int = 0
    epochs: int = 0
    redone: int = 0
    zombies: int = 0
    broken: list[str] = field(default_factory=list)

    def text(self) -> str:
        kinds = Counter(line.split(":")[0] for line in self.broken)
        rows = {
            "kills": self.kills,
            "studies, trials finished": f"{self.studies}, {self.trials}",
            "reports acknowledged (files seen at a kill or the end)": self.acknowledged,
            "trials acknowledged (lines printed)": self.lines,
            "reports found": self.reports,
            "reports lost": kinds["lost"],
            "reports twice": kinds["twice"],
            "reports with a figure that does not follow from those before": kinds["wrong"],
            "epochs missing between two that were reported": kinds["gap"],
            "finished trials that ran again": kinds["again"],
            "trials too many or too few": kinds["count"],
            "epochs trained, of these redone after a kill": f"{self.epochs}, {self.redone}",
            "kills after which more epochs were redone than trials ran": kinds["redone"],
            "Parquet files read after a kill": self.files,
            "Parquet files not readable": kinds["unreadable"],
            "zombies (processes left behind)": self.zombies,
        }
        width = max(map(len, rows))
        return "\n".join([*(f"{name:{width}}  {value}" for name, value in rows.items()), *self.broken])


class Study:
    """One study's folder under observation."""

    def __init__(self, ledger: Ledger, folder: Path, log: Path, workers: int) -> None:
        self._ledger, self._folder, self._log, self._workers = ledger, RunFolder(folder), log, workers
        self._seen: dict[str, str] = {}
        self._over: set[int] = set()
        self._noted = 0
        self._pairs: set[tuple[int, int]] = set()

    def count(self) -> int:
        """Reports that are there."""
        return sum(1 for _ in self._folder.reports.glob("[0-9]*.parquet"))

    def after(self, said: str, *, killed: bool) -> None:
        """Looks at everything, after a driver has gone that said this."""
        ledger = self._ledger
        for path in sorted(self._folder.path.rglob("[!.]*.parquet")):
            ledger.files += killed
            try:
                pq.read_table(path)
            except Exception as error:
                ledger.broken.append(f"unreadable: {path}: {error}")
        found = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self._folder.reports.glob("[0-9]*.parquet")
        }
        for name, digest in self._seen.items():
            if found.get(name) != digest:
                ledger.broken.append(f"lost: {name} of {self._folder.path} was there and is gone, or another")
        ledger.acknowledged += len(found.keys() - self._seen.keys())
        self._seen |= found
        trials = self._trials()
        for number, state in _ENDED.findall(said):
            ledger.lines += 1
            there = trials.get(int(number))
            if there != state:
                ledger.broken.append(f"lost: 'trial {number} {state}' was printed, the table has {there}")
        self._count_epochs(killed=killed)
        self._over = {number for number, state in trials.items() if state in _OVER}

    def finish(self, trials: int) -> None:
        """What must hold once the study is done."""
        ledger, reports = self._ledger, self._folder.read_reports()
        ledger.studies += 1
        ledger.reports += len(reports)
        states = self._trials()
        ledger.trials += len(states)
        if len(states) != trials or not set(states.values()) <= set(_OVER):
            ledger.broken.append(f"count: {len(states)} trials of {trials}, {Counter(states.values())}")
        measured = reports[reports["state"].isin(("running", *_OVER)) & (reports["epoch"] > 0)]
        for (trial, epoch), rows in measured.groupby(["trial", "epoch"]):
            if len(rows) > 1:
                ledger.broken.append(f"twice: trial {trial} epoch {epoch}, {len(rows)} reports")
        for trial, rows in measured.groupby("trial"):
            epochs = sorted(set(rows["epoch"]))
            if epochs != list(range(1, len(epochs) + 1)):
                ledger.broken.append(f"gap: trial {trial} reported epochs {epochs}")
            for row in rows.itertuples():
                if row.gain != gain_after(row.epoch, row.cost):
                    ledger.broken.append(f"wrong: trial {trial} epoch {row.epoch} has gain {row.gain}")
            last = rows.iloc[-1]
            if json.loads((self._folder.path / last["artifact"]).read_text()) != [trial, last["epoch"], last["gain"]]:
                ledger.broken.append(f"wrong: the artifact of trial {trial} is not of its last report")
        if left := [path.name for path in (self._folder.path / "checkpoints").glob("*")]:
            ledger.broken.append(f"count: checkpoints left behind: {left}")

    def _trials(self) -> dict[int, str]:
        reports = self._folder.read_reports()
        last: pd.DataFrame = reports.groupby("trial").tail(1) if len(reports) else reports
        return {int(row.trial): row.state for row in last.itertuples()}

    def _count_epochs(self, *, killed: bool) -> None:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        new = [tuple(map(int, line.split()[:2])) for line in lines[self._noted :]]
        self._noted = len(lines)
        redone = [pair for pair in new if pair in self._pairs]
        self._ledger.epochs += len(new)
        self._ledger.redone += len(redone)
        if len(redone) > self._workers or len(set(new)) != len(new):
            self._ledger.broken.append(f"redone: {redone} of {new} after one kill, with {self._workers} workers")
        for trial, epoch in new:
            if trial in self._over:
                self._ledger.broken.append(f"again: trial {trial} was over and ran epoch {epoch}")
        self._pairs |= set(new)
