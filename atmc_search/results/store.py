"""The run folder: `runs/<study>/` with the spec, append-only reports, the tables derived from them, and artifacts.

    spec.yaml         the study as run
    reports/          one Parquet file a report, written as it arrives; the truth
    trials.parquet    one row a trial: its last report
    front.parquet     the nondominated rows of those
    artifacts/        one file a trial that was measured
    starts/           what trials share (dense weights), by key

Every file is written beside its place and moved there, so that a reader sees it whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from atmc_search.errors import RunError
from atmc_search.results.checks import check_reports, read_report, require_columns
from atmc_search.results.columns import Column, schema_of
from atmc_search.results.derive import front_of, trials_of
from atmc_search.spec import StudySpec, dump_yaml, load_study


class RunFolder:
    """Paths, atomic writes and reads of one study's folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.spec_path = self.path / "spec.yaml"
        self.reports = self.path / "reports"
        self.artifacts = self.path / "artifacts"
        self.starts = self.path / "starts"

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """A folder that holds a study.

        Raises:
            RunError: no such folder, or no study in it.
        """
        folder = cls(path)
        if not folder.path.is_dir():
            raise RunError(f"{folder.path}: no such folder; give a run's folder, runs/<study>")
        if not folder.spec_path.is_file():
            raise RunError(f"{folder.path}: holds no spec.yaml, so it is no run; give a run's folder, runs/<study>")
        return folder

    def create(self, spec: StudySpec) -> None:
        """Makes the folder, or goes on with the same study's; `spec` becomes the spec as run.

        Raises:
            RunError: the folder holds another study, or cannot be written.
        """
        if self.spec_path.exists():
            known = self.spec()
            if known.fingerprint != spec.fingerprint:
                raise RunError(
                    f"{self.path}: holds another study (fingerprint {known.fingerprint}, this spec has "
                    f"{spec.fingerprint}); give the spec another name, or move the folder away"
                )
        try:
            for folder in (self.reports, self.artifacts, self.starts):
                folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.spec_path, dump_yaml(spec).encode())
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written ({error.strerror}); choose another --runs folder") from None

    def spec(self) -> StudySpec:
        """The spec as run."""
        return load_study(self.spec_path)

    def append(self, row: Mapping[str, Any], columns: Sequence[Column], number: int) -> None:
        """Writes one report as reports/<number>.parquet. Columns that the row lacks are null."""
        table = pa.Table.from_pylist([dict(row)], schema=schema_of(columns))
        write_table(self.reports / f"{number:08d}.parquet", table)

    def next_report(self) -> int:
        """The number after the highest report's."""
        return 1 + max((int(p.stem) for p in self._report_files()), default=-1)

    def read_reports(self) -> pd.DataFrame:
        """All reports in the order in which they arrived; empty when there is none.

        Raises:
            RunError: a file is damaged.
        """
        files = self._report_files()
        if not files:
            return pd.DataFrame()
        try:
            table = pa.concat_tables([read_report(path) for path in files], promote_options="permissive")
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"{self.reports}: its files are not of one study ({reason}); move one kind away") from None
        reports: pd.DataFrame = table.to_pandas(types_mapper=_nullable, ignore_metadata=True)
        check_reports(reports, self.spec().space, self.reports)
        return reports

    def write_derived(self, reports: pd.DataFrame, spec: StudySpec, columns: Sequence[Column]) -> pd.DataFrame:
        """Derives and writes trials.parquet and front.parquet; returns the trials."""
        trials = trials_of(reports)
        schema = schema_of(columns)
        write_table(self.path / "trials.parquet", _to_arrow(trials, schema))
        write_table(self.path / "front.parquet", _to_arrow(front_of(trials, spec.objectives, spec.constraints), schema))
        return trials

    def read_trials(self) -> pd.DataFrame:
        """One row a trial, derived from the reports themselves; `attrs` hold the study's objectives.

        Raises:
            RunError: there is no report yet, or one is damaged.
        """
        reports = self.read_reports()
        if reports.empty:
            raise RunError(f"{self.path}: holds no reports yet; run the study first")
        trials = trials_of(reports)
        spec = self.spec()
        require_columns(reports, spec.space, self.reports)
        trials.attrs |= {
            "name": spec.name,
            "folder": str(self.path),
            "objectives": dict(spec.objectives),
            "constraints": {name: bound.model_dump() for name, bound in spec.constraints.items()},
        }
        return trials

    def write_artifact(self, trial: int, data: bytes) -> tuple[str, str]:
        """Writes a trial's artifact; returns its path relative to the run folder and its SHA-256."""
        path = self.artifacts / f"{trial:05d}.atmc"
        write_atomic(path, data)
        return path.relative_to(self.path).as_posix(), hashlib.sha256(data).hexdigest()

    def _report_files(self) -> list[Path]:
        found = self.reports.iterdir() if self.reports.is_dir() else iter(())
        return sorted(p for p in found if re.fullmatch(r"\d{8,}\.parquet", p.name))


def write_atomic(path: Path, data: bytes) -> None:
    """Writes `data` under `path` whole or not at all, flushed to the disk."""
    partial = _partial(path)
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file whole or not at all."""
    partial = _partial(path)
    pq.write_table(table, partial, compression="zstd")
    partial.replace(path)


def _partial(path: Path) -> Path:
    # Readers of a folder of Parquet files skip names that start with a dot.
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _nullable(kind: pa.DataType) -> Any:
    """Whole numbers and truth values keep their type where some are missing; all else is pandas' own choice."""
    if pa.types.is_integer(kind):
        return pd.Int64Dtype()
    if pa.types.is_boolean(kind):
        return pd.BooleanDtype()
    return None


def _to_arrow(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    present: Iterable[str] = [name for name in schema.names if name in frame.columns]
    table = pa.Table.from_pandas(frame[list(present)], preserve_index=False)
    arrays = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(frame), field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)
