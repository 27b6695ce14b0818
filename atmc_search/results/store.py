"""The run folder: `runs/<study>/` with the spec, append-only reports, the tables derived from them, and artifacts.

    spec.yaml         the study as run
    study.json        the format of all this (`layout`)
    reports/          one Parquet file a report, written as it arrives, compacted later (`reports`); the truth
    trials.parquet    one row a trial: its last report
    front.parquet     the nondominated rows of those
    artifacts/        one file a trial that was measured
    starts/           what trials share (dense weights), by key
    checkpoints/      what trials that have not ended continue from (`search.checkpoints`)
    errors/           tracebacks of trials that failed
    damaged/          what was found here and could not be read
    lock/             which driver runs the study (`lock`)

Every file is written beside its place and moved there (`atomic`), so that a reader sees it whole or not at all.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from atmc_search.errors import RunError, SpecError, StorageError
from atmc_search.results.atomic import is_partial, patiently, write_atomic
from atmc_search.results.checks import check_values, require_columns
from atmc_search.results.columns import Column, columns_of, schema_of
from atmc_search.results.damaged import DAMAGED, quarantine, warn
from atmc_search.results.derive import front_of, trials_of
from atmc_search.results.frames import table_bytes, to_arrow, to_frame
from atmc_search.results.keep import OVER, DiskUse, disk_use, on_a_front
from atmc_search.results.layout import check_defaults, check_format, check_inputs, format_bytes
from atmc_search.results.lock import StudyLock, check_token
from atmc_search.results.reports import Reports
from atmc_search.spec import StorageSpec, StudySpec, dump_yaml, load_study

_Result = TypeVar("_Result")


class RunFolder:
    """Paths, atomic writes and reads of one study's folder."""

    def __init__(self, path: str | Path, *, token: str | None = None) -> None:
        """`token`: of the driver on whose behalf this process writes; writes fail once it lost the study."""
        self.path = Path(path)
        self.spec_path = self.path / "spec.yaml"
        self.format_path = self.path / "study.json"
        self.reports = self.path / "reports"
        self.artifacts = self.path / "artifacts"
        self.starts = self.path / "starts"
        self.damaged = self.path / DAMAGED
        self.freed = DiskUse()
        self._token = token
        self._patience_s: float | None = None
        self._gave_up = -math.inf
        self._lock: StudyLock | None = None
        self._reports = Reports(
            self.reports,
            damaged=self.damaged / "reports",
            write=self.write,
            write_new=lambda path, data: self._write(path, data, new=True),
            check=self._check_reports,
            quarantine=self.quarantine,
        )

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """A folder that holds a study.

        Raises:
            RunError: no such folder, no study in it, or one that a later release wrote.
        """
        folder = cls(path)
        if not folder.path.is_dir():
            raise RunError(f"{folder.path}: no such folder; give a run's folder, runs/<study>")
        if not check_format(folder.format_path):
            warn(f"{folder.format_path}: damaged; the next run of the study writes it anew")
        if not folder.spec_path.is_file():
            raise RunError(f"{folder.path}: holds no spec.yaml, so it is no run; give a run's folder, runs/<study>")
        return folder

    @contextmanager
    def locked(
        self, spec: StudySpec, defaults: Mapping[str, Any] | None = None, inputs: Mapping[str, str] | None = None
    ) -> Iterator[None]:
        """The folder as the one driver's of its study: made or continued, tidied up, locked until the end.

        Args as `create`.

        Raises:
            RunError: as `create`, or another driver holds the study.
        """
        check_format(self.format_path)
        self._known(spec)
        lock = StudyLock(self.path / "lock", spec.storage.lease_s)
        try:
            lock.acquire()
        except OSError as error:
            raise self._unwritable(error) from None
        self._lock = lock
        try:
            self.create(spec, defaults, inputs)
            self._tidy()
            yield
        finally:
            self._lock = None
            lock.release()

    def check(self) -> None:
        """That the study is still held, where it was: a suspended driver may have lost it.

        Raises:
            StorageError: it was lost.
        """
        patiently(self._check, self.path, self.patience_s)

    @property
    def token(self) -> str | None:
        """What a process that helps this driver opens the folder with."""
        return None if self._lock is None else self._lock.token

    def create(
        self, spec: StudySpec, defaults: Mapping[str, Any] | None = None, inputs: Mapping[str, str] | None = None
    ) -> None:
        """Makes the folder, or continues the same study's; `spec` becomes the spec as run.

        Args:
            spec: the study.
            defaults: `TrialSpace.defaults`; None: whatever they were.
            inputs: SHA-256 of files that results depend on, by name; None: whatever they were.

        Raises:
            RunError: the folder holds another study, one with other defaults or inputs, or cannot be written.
        """
        sound = check_format(self.format_path)
        for path, known in ((self.format_path, sound), (self.spec_path, self._known(spec))):
            if not known:
                self.quarantine({path: "not what it should hold"})
        check_inputs(self.format_path, inputs or {})
        known = defaults is None or check_defaults(self.format_path, defaults)
        if not known and any(self.reports.glob("*.parquet")):
            warn(f"{self.path}: does not say which defaults it ran with; new trials take those of this release")
        self._patience_s = spec.storage.patience_s
        try:
            for folder in (self.reports, self.artifacts, self.starts):
                folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.format_path, format_bytes(self.format_path, defaults, inputs))
            write_atomic(self.spec_path, dump_yaml(spec).encode())
        except OSError as error:
            raise self._unwritable(error) from None

    def spec(self) -> StudySpec:
        """The spec as run."""
        return load_study(self.spec_path)

    @property
    def patience_s(self) -> float:
        """For how long a write here is tried again."""
        if self._patience_s is None:
            known = self.spec_path.is_file()
            self._patience_s = self.spec().storage.patience_s if known else StorageSpec().patience_s
        return self._patience_s

    def write(self, path: Path, data: bytes) -> None:
        """Writes a file of this folder whole or not at all, with patience.

        Raises:
            StorageError: it cannot be written, or another driver has taken over the study.
        """
        self._write(path, data, new=False)

    def read(self, path: Path) -> bytes:
        """What a file of this folder holds, with patience.

        Raises:
            StorageError: it cannot be read.
        """
        return patiently(path.read_bytes, path, self.patience_s, "read")

    def append(self, row: Mapping[str, Any], columns: Sequence[Column], number: int) -> None:
        """Writes one report as reports/<number>.parquet. Columns that the row lacks are null.

        Raises:
            StorageError: as `write`.
        """
        try:
            self._reports.append(row, columns, number)
        except FileExistsError:
            raise StorageError(
                f"{self.reports}: report {number} is there already, so another driver writes beside this one; stop "
                "one of them"
            ) from None

    def next_report(self) -> int:
        """The number after the highest report's."""
        return self._reports.next_number()

    def read_reports(self) -> pd.DataFrame:
        """All reports in the order in which they arrived, each once; empty when there is none.

        Files that are no reports are named in a warning; the driver moves them to damaged/.

        Raises:
            StorageError: they cannot be read for now.
        """
        return to_frame(self._patiently_read(self._reports.read))

    def columns(self) -> tuple[Column, ...]:
        """The columns of the reports, as the files describe them; () where there are no reports.

        Raises:
            StorageError: they cannot be read for now.
        """
        table = self._patiently_read(self._reports.read)
        return () if table is None else columns_of(table.schema)

    def derive(self, spec: StudySpec, columns: Sequence[Column]) -> pd.DataFrame:
        """Brings trials.parquet and front.parquet up to date; returns the trials. Reads the reports only once."""
        return self.write_derived(to_frame(self._patiently_read(self._reports.latest)), spec, columns)

    def write_derived(self, reports: pd.DataFrame, spec: StudySpec, columns: Sequence[Column]) -> pd.DataFrame:
        """Derives and writes trials.parquet and front.parquet; returns the trials.

        With `storage.keep_artifacts: front` the artifacts that no front needs go first; `freed` counts them.
        """
        trials = trials_of(reports)
        if len(trials) and spec.storage.keep_artifacts == "front":
            self._drop_artifacts(trials, spec)
            trials = self._without_dropped(trials, spec)
        schema = schema_of(columns)
        front = front_of(trials, spec.objectives, spec.constraints)
        for name, frame in (("trials", trials), ("front", front)):
            try:
                table = to_arrow(frame, schema)
            except pa.ArrowException as error:
                raise RunError(
                    f"{self.path}: its reports have a column of another type than the study's task declares "
                    f"({str(error).splitlines()[0]}); give the spec another name"
                ) from None
            self.write(self.path / f"{name}.parquet", table_bytes(table))
        return trials

    def read_trials(self) -> pd.DataFrame:
        """One row a trial, derived from the reports themselves; `attrs` hold the study's objectives and its columns.

        Raises:
            RunError: there is no report yet, or the spec is not one that a study was run with.
        """
        table = self._patiently_read(self._reports.read)
        if table is None:
            raise RunError(f"{self.path}: holds no reports yet; run the study first")
        spec = self.spec()
        if not spec.objectives:
            raise RunError(f"{self.spec_path}: names no objectives; add those that the study ran with")
        reports = to_frame(table)
        require_columns(reports, spec.distributions, self.reports, some=True)
        trials = self._without_dropped(trials_of(reports), spec)
        trials.attrs |= {
            "name": spec.name,
            "folder": str(self.path),
            "objectives": dict(spec.objectives),
            "constraints": {name: bound.model_dump() for name, bound in spec.constraints.items()},
            "columns": {column.name: [column.kind, column.described()] for column in columns_of(table.schema)},
        }
        return trials

    def write_artifact(self, trial: int, data: bytes, suffix: str = ".atmc") -> tuple[str, str]:
        """Writes a trial's artifact; returns its path relative to the run folder and its SHA-256."""
        path = self.artifacts / f"{trial:05d}{suffix}"
        self.write(path, data)
        return path.relative_to(self.path).as_posix(), hashlib.sha256(data).hexdigest()

    def disk_use(self) -> dict[str, DiskUse]:
        """Files and bytes by part of the folder, the largest first."""
        return disk_use(self.path)

    def quarantine(self, files: Mapping[Path, str], *, nothing_else: bool = False, move: bool | None = None) -> None:
        """`damaged.quarantine`; by default files move if this process holds the study."""
        quarantine(self.path, files, nothing_else=nothing_else, move=self._lock is not None if move is None else move)

    def _write(self, path: Path, data: bytes, *, new: bool) -> None:
        def once() -> None:
            self._check()
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, data, new=new)

        # Others may wait to write after this one: what was tried for long in vain is not tried for long again.
        recently = time.monotonic() - self._gave_up < self.patience_s
        try:
            patiently(once, path, 0.0 if recently else self.patience_s)
        except StorageError:
            self._gave_up = time.monotonic()
            raise

    def _check(self) -> None:
        if self._lock is not None:
            self._lock.check()
        elif self._token:
            check_token(self.path / "lock", self._token)

    def _check_reports(self, table: pa.Table) -> None:
        """Passes if trials of this study can have made these reports; what a damaged spec would say is left out.

        Raises:
            ValueError: says why not.
        """
        try:
            spec = self.spec()
        except SpecError:
            check_values(table, {})
        else:
            check_values(table, spec.distributions, [*spec.objectives, *spec.constraints])

    def _known(self, spec: StudySpec) -> bool:
        """Whether the folder's spec, if it has one, can be read; else what its reports say decides whose it is.

        Raises:
            RunError: the folder holds another study.
        """
        if not self.spec_path.exists():
            return True
        try:
            known = {self.spec().fingerprint}
        except SpecError as error:
            reports = self.read_reports()
            known = set(reports["fingerprint"].dropna()) if "fingerprint" in reports else set()
            if known != {spec.fingerprint}:
                raise RunError(
                    f"{error}, and its reports do not tell that it is this study; move the folder away"
                ) from None
            return False
        if known != {spec.fingerprint}:
            raise RunError(
                f"{self.path}: holds another study (fingerprint {', '.join(known)}, this spec has {spec.fingerprint}); "
                "give the spec another name, or move the folder away"
            )
        return True

    def _tidy(self) -> None:
        """Removes what writers that died left behind, moves away what cannot be a file of ours."""
        try:
            for path in [path for path in self.path.rglob(".*") if is_partial(path) and path.parent.name != "lock"]:
                path.unlink(missing_ok=True)
            for path in [*self.artifacts.iterdir(), *self.starts.iterdir(), *self.path.glob("*.parquet")]:
                if not path.is_file():
                    self.quarantine({path: "not a file"})
        except OSError as error:
            raise self._unwritable(error) from None
        self._patiently_read(self._reports.tidy)

    def _patiently_read(self, action: Callable[[], _Result]) -> _Result:
        """Reads reports; only a driver, whose sweep would end, waits for them."""
        return patiently(action, self.reports, self.patience_s if self._lock is not None else 0.0, "read")

    def artifact_paths(self) -> dict[int, Path]:
        """Where artifacts lie, by trial. Their names say whose they are, never a row, which might point anywhere."""
        return {int(path.stem): path for path in self.artifacts.iterdir() if re.fullmatch(r"\d{5,}", path.stem)}

    def _drop_artifacts(self, trials: pd.DataFrame, spec: StudySpec) -> None:
        over = trials["state"].isin(OVER).to_numpy()
        needless = over & ~on_a_front(trials, spec.objectives, spec.constraints)
        there = self.artifact_paths()
        for trial in trials.loc[needless, "trial"]:
            if (path := there.get(int(trial))) is not None:
                self.freed += DiskUse(1, path.stat().st_size)
                path.unlink()

    def _without_dropped(self, trials: pd.DataFrame, spec: StudySpec) -> pd.DataFrame:
        """`trials`, of which none names an artifact that was dropped."""
        if spec.storage.keep_artifacts == "all" or "artifact" not in trials:
            return trials
        there = self.artifact_paths()
        kept = np.array([int(trial) in there for trial in trials["trial"]])
        return trials.assign(artifact=trials["artifact"].where(kept))

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(f"{self.path}: cannot be written ({error.strerror}); choose another --runs folder")
