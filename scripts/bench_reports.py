"""What reports cost a driver: a derivation of the tables, a start, an append; now, and with every file read each time.

    python scripts/bench_reports.py --reports 1000 4000 16000 --only-now 210000

Reports are made up: trials of 20 epochs, ten at a time, with the columns of the ATMC task. Times are the best of
`--repeats`; the last column of ratios is then / now.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from atmc_search.results import STUDY_COLUMNS, Column, RunFolder, schema_of, trials_of
from atmc_search.results.frames import table_bytes, to_frame
from atmc_search.results.reports import COMPACT_AT
from atmc_search.spec import StudySpec, parse_study
from atmc_search.tasks import TrialSpace
from atmc_search.tasks.atmc import ATMC_COLUMNS

EPOCHS, AT_A_TIME = 20, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=int, nargs="*", default=[1000, 4000, 16000])
    parser.add_argument("--only-now", type=int, nargs="*", default=[], help="sizes at which the old way is not run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to measure  [default: the system's temporary folder]")
    given = parser.parse_args()
    space = TrialSpace.of(_study())
    study, columns = space.study, (*STUDY_COLUMNS, *ATMC_COLUMNS, *space.parameter_columns)
    print(f"{len(columns)} columns; a derivation reads what is new, and writes trials.parquet and front.parquet")
    print(f"{'reports':>8} {'':>6} {'files':>7} {'MB':>7} {'start s':>8} {'derive s':>9} {'append ms':>10}")
    for count in [*given.reports, *given.only_now]:
        then = None if count in given.only_now else _measure(_Then, study, columns, count, given)
        now = _measure(_Now, study, columns, count, given)
        for name, figures in (("then", then), ("now", now)):
            if figures:
                files, size, start, derive, append = figures
                print(
                    f"{count:8} {name:>6} {files:7} {size / 1e6:7.1f} {start:8.3f} {derive:9.3f} {append * 1e3:10.1f}"
                )
        if then:
            ratios = [a / b for a, b in zip(then, now, strict=True)]
            print("{:8} {:>6} {:7.1f} {:7.1f} {:8.1f} {:9.1f} {:10.2f}".format(count, "ratio", *ratios))


class _Now:
    """The package as it is."""

    def __init__(self, folder: RunFolder, study: StudySpec, columns: tuple[Column, ...]) -> None:
        self.folder, self.study, self.columns = folder, study, columns

    def fill(self, count: int) -> None:
        """What a driver leaves that wrote so many reports."""
        schema, rows = schema_of(self.columns), _rows(count)
        for first in range(0, count - COMPACT_AT + 1, COMPACT_AT):
            many = pa.Table.from_pylist([next(rows) for _ in range(COMPACT_AT)], schema=schema)
            path = self.folder.reports / f"{first:08d}-{first + COMPACT_AT - 1:08d}.parquet"
            path.write_bytes(table_bytes(many))
        for row in rows:
            path = self.folder.reports / f"{row['report']:08d}.parquet"
            path.write_bytes(table_bytes(pa.Table.from_pylist([row], schema=schema)))

    def start(self) -> None:
        self.folder = RunFolder(self.folder.path)
        self.folder.derive(self.study, self.columns)

    def derive(self) -> None:
        self.folder.derive(self.study, self.columns)

    def append(self, row: dict[str, Any]) -> None:
        self.folder.append(row, self.columns, row["report"])


class _Then(_Now):
    """A file a report for good, all read at every derivation; appended without a flush to the disk."""

    def fill(self, count: int) -> None:
        for row in _rows(count):
            self.append(row)

    def start(self) -> None:
        self.derive()

    def derive(self) -> None:
        tables = [pq.read_table(path) for path in sorted(self.folder.reports.iterdir())]
        reports = to_frame(pa.concat_tables(tables, promote_options="permissive"))
        self.folder.write_derived(reports, self.study, self.columns)
        assert len(trials_of(reports)) == reports["trial"].nunique()

    def append(self, row: dict[str, Any]) -> None:
        path = self.folder.reports / f"{row['report']:08d}.parquet"
        partial = path.with_name(f".{path.name}.partial")
        pq.write_table(pa.Table.from_pylist([row], schema=schema_of(self.columns)), partial, compression="zstd")
        partial.replace(path)


def _measure(
    way: type[_Now], study: StudySpec, columns: tuple[Column, ...], count: int, given: argparse.Namespace
) -> tuple[float, ...]:
    """Files, bytes, and the seconds of a start, of a derivation after ten more reports, and of an append."""
    root = Path(tempfile.mkdtemp(prefix="bench-reports-", dir=given.folder))
    try:
        folder = RunFolder(root / study.name)
        folder.create(study)
        driver = way(folder, study, columns)
        driver.fill(count)
        there = list(folder.reports.iterdir())
        size = sum(path.stat().st_size for path in there)
        start = _best(driver.start, given.repeats)
        rows = _rows(count + 10 * given.repeats, first=count)
        appends, derives = [], []
        for _ in range(given.repeats):
            for _ in range(10):
                row = next(rows)
                appends.append(_best(lambda row=row: driver.append(row), 1))
            derives.append(_best(driver.derive, 1))
        assert len(pd.read_parquet(folder.path / "trials.parquet")) == len(
            {row["trial"] for row in _rows(count + 10 * given.repeats)}
        )
        return len(there), size, start, min(derives), sorted(appends)[len(appends) // 2]
    finally:
        shutil.rmtree(root)


def _best(action: Callable[[], None], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return min(times)


def _rows(count: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """Reports `first` to `count` - 1 of a sweep, the same at every call."""
    for number in range(first, count):
        chance = random.Random(number)
        group, place = divmod(number, EPOCHS * AT_A_TIME)
        epoch, lane = divmod(place, AT_A_TIME)
        trial = group * AT_A_TIME + lane
        metrics = {column.name: chance.random() for column in ATMC_COLUMNS if column.kind == "float64"}
        metrics |= {column.name: chance.randrange(1, 10**6) for column in ATMC_COLUMNS if column.kind == "int64"}
        yield {
            **metrics,
            "report": number,
            "trial": trial,
            "state": "complete" if epoch == EPOCHS - 1 else "running",
            "reason": "",
            "epoch": epoch + 1,
            "epochs": EPOCHS,
            "artifact": f"artifacts/{trial:05d}.atmc",
            "artifact_sha256": f"{chance.getrandbits(256):064x}",
            "reported_at": datetime.fromtimestamp(1.8e9 + number, UTC),
            "trial.train.lr": chance.uniform(0.001, 1.0),
            "trial.compress.keep": chance.uniform(0.01, 1.0),
            "trial.compress.bits": chance.choice([2, 3, 4]),
        }


def _study() -> StudySpec:
    return parse_study(
        {
            "name": "bench",
            "trial": {
                "data": {"name": "digits"},
                "model": {"name": "small_cnn"},
                "threat": {"eps": 0.1},
                "dense": {"epochs": 1},
                "train": {"epochs": EPOCHS, "lr": {"log_uniform": [0.001, 1.0]}},
                "compress": {"keep": {"uniform": [0.01, 1.0]}, "bits": {"choice": [2, 3, 4]}},
            },
            "search": {"trials": 10_000},
        }
    )


if __name__ == "__main__":
    main()
