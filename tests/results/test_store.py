"""The run folder: rows come back as they went in, files appear whole or not at all, and one folder is one study."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from atmc_search.errors import RunError, StorageError
from atmc_search.results import Column, RunFolder, schema_of, write_atomic
from atmc_search.spec import StudySpec

Row = Callable[..., dict[str, Any]]
Columns = tuple[Column, ...]


@pytest.fixture
def folder(tmp_path: Path, study: StudySpec) -> RunFolder:
    made = RunFolder(tmp_path / "kept")
    made.create(study)
    return made


def same(left: Any, right: Any) -> bool:
    return (pd.isna(left) and pd.isna(right)) or left == right


def test_every_type_comes_back_with_and_without_a_value(folder: RunFolder) -> None:
    columns = [
        Column("trial", "int64", "", "a number"),
        Column("state", "string", "", "what became of it"),
        Column("count", "int64", "", "a count"),
        Column("share", "float64", "", "a share"),
        Column("word", "string", "", "a word"),
        Column("yes", "bool", "", "a truth"),
        Column("when", "timestamp", "UTC", "a time"),
    ]
    now = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
    rows: list[dict[str, Any]] = [
        {"trial": 0, "count": 2**60 + 1, "share": 0.1 + 0.2, "word": "naïve, 'quoted'\n", "yes": True, "when": now},
        {"trial": 1},
        {"trial": 2, "count": -1, "share": float("inf"), "word": "", "yes": False, "when": now + timedelta(days=1)},
        {"trial": 3, "count": None, "share": None, "word": None, "yes": None, "when": None, "unknown": 5},
    ]
    rows = [{"state": "running", **row} for row in rows]
    for number, row in enumerate(rows):
        folder.append(row, columns, number)
    read = folder.read_reports()
    assert list(read.columns) == [*(column.name for column in columns), "report"]
    assert read["report"].tolist() == [0, 1, 2, 3]
    for number, row in enumerate(rows):
        for column in columns:
            assert same(read.loc[number, column.name], row.get(column.name)), (number, column.name)
    assert [str(read[name].dtype) for name in ("count", "share", "yes")] == ["Int64", "float64", "boolean"]
    assert str(read["when"].dtype).endswith("UTC]")


def test_pandas_reads_the_folder_and_the_tables(folder: RunFolder, study: StudySpec, table: Columns, row: Row) -> None:
    reports = [
        row(0, "running", epoch=0),
        row(1, "running", epoch=0),
        row(0, size_bytes=900, clean_accuracy=0.9, robust_accuracy=0.5),
        row(1, "failed", reason="diverged"),
        row(2, "stopped", size_bytes=901, clean_accuracy=0.8, robust_accuracy=0.4),
    ]
    for number, report in enumerate(reports):
        folder.append(report, table, number)
    folder.write_derived(folder.read_reports(), study, table)

    as_folder = pd.read_parquet(folder.reports)
    assert as_folder["trial"].tolist() == [0, 1, 0, 1, 2]
    assert as_folder["state"].tolist() == [report["state"] for report in reports]
    trials = pd.read_parquet(folder.path / "trials.parquet")
    assert trials["trial"].tolist() == [0, 1, 2]
    assert trials["state"].tolist() == ["complete", "failed", "stopped"]
    front = pd.read_parquet(folder.path / "front.parquet")
    assert front["trial"].tolist() == [0]  # trial 2 is larger and worse
    assert front["trial.compress.bits"].tolist() == [4]
    for frame in (as_folder, trials, front):
        assert list(frame.columns) == [column.name for column in table]


@pytest.mark.parametrize("reports", [0, 1, 2])
def test_all_three_tables_have_the_declared_schema(
    folder: RunFolder, study: StudySpec, table: Columns, row: Row, reports: int
) -> None:
    for number in range(reports):  # of failed trials, whose metrics are null throughout
        folder.append(row(number, "failed"), table, number)
    folder.write_derived(folder.read_reports(), study, table)
    written = [folder.path / "trials.parquet", folder.path / "front.parquet", *sorted(folder.reports.iterdir())]
    assert len(written) == 2 + reports
    for path in written:
        schema = pq.read_schema(path)
        assert schema.equals(schema_of(table))
        for column in table:
            metadata = schema.field(column.name).metadata
            assert (metadata[b"unit"].decode(), metadata[b"meaning"].decode()) == (column.unit, column.meaning)


def test_what_is_no_report_is_not_read(folder: RunFolder, table: Columns, row: Row) -> None:
    folder.append(row(0), table, 0)
    folder.append(row(1), table, 1)
    good = (folder.reports / "00000001.parquet").read_bytes()
    (folder.reports / ".00000002.parquet.77.partial").write_bytes(good[:50])
    (folder.reports / ".x.partial").write_bytes(b"")
    (folder.reports / "notes.txt").write_text("mine")
    (folder.reports / "copy of 00000001.parquet").write_bytes(good)
    (folder.reports / "123.parquet").write_bytes(good)
    assert folder.read_reports()["trial"].tolist() == [0, 1]
    assert folder.next_report() == 2


def test_a_reader_beside_a_writer_sees_whole_reports_only(folder: RunFolder, table: Columns, row: Row) -> None:
    failures: list[BaseException] = []
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        try:
            while not done.is_set():
                trials = folder.read_reports()
                trials = [] if trials.empty else trials["trial"].tolist()
                assert trials == list(range(len(trials)))
                seen.append(len(trials))
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(80):
            folder.append(row(number), table, number)
    finally:
        done.set()
        reader.join()
    assert not failures
    assert seen == sorted(seen)


def test_a_write_that_dies_leaves_what_was_there(
    folder: RunFolder, table: Columns, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.append(row(0), table, 0)
    write_atomic(folder.artifacts / "a", b"old")

    def die(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", die)
        with pytest.raises(OSError, match="disk full"):
            write_atomic(folder.artifacts / "a", b"new and longer")
        with pytest.raises(StorageError, match="disk full"):
            folder.append(row(1), table, 1)
    assert (folder.artifacts / "a").read_bytes() == b"old"
    assert folder.read_reports()["trial"].tolist() == [0]
    assert len(pd.read_parquet(folder.reports)) == 1
    folder.append(row(1), table, folder.next_report())
    assert folder.read_reports()["trial"].tolist() == [0, 1]


def test_numbering_goes_on_in_a_folder_opened_again(folder: RunFolder, table: Columns, row: Row) -> None:
    assert folder.next_report() == 0
    for number in (0, 1, 41):
        folder.append(row(number), table, number)
    again = RunFolder.open(folder.path)
    assert again.next_report() == 42
    again.append(row(42), table, 42)
    assert again.read_reports()["trial"].tolist() == [0, 1, 41, 42]


def test_reports_come_in_the_order_of_their_numbers(folder: RunFolder, table: Columns, row: Row) -> None:
    for number in (10, 9, 2, 100):
        folder.append(row(number), table, number)
    assert folder.read_reports()["trial"].tolist() == [2, 9, 10, 100]


def test_reports_of_older_columns_are_read_beside_new_ones(folder: RunFolder, table: Columns, row: Row) -> None:
    fewer = [column for column in table if column.name not in ("nnz", "loss")]
    folder.append(row(0, nnz=5), fewer, 0)
    folder.append(row(1, nnz=7, loss=0.5), table, 1)
    read = folder.read_reports()
    assert read["nnz"].isna().tolist() == [True, False]
    assert read["nnz"].tolist()[1] == 7
    assert str(read["nnz"].dtype) == "Int64"


def test_open_wants_a_run(tmp_path: Path, study: StudySpec) -> None:
    with pytest.raises(RunError, match=r"nowhere: no such folder"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"holds no spec\.yaml"):
        RunFolder.open(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="no such folder"):
        RunFolder.open(tmp_path / "file")


def test_the_spec_comes_back(folder: RunFolder, study: StudySpec) -> None:
    assert RunFolder.open(folder.path).spec() == study


def test_one_folder_is_one_study(folder: RunFolder, study: StudySpec, make_study: Callable[..., StudySpec]) -> None:
    other = make_study(objectives={"size_bytes": "min"})
    with pytest.raises(RunError) as error:
        folder.create(other)
    for part in (str(folder.path), study.fingerprint, other.fingerprint):
        assert part in str(error.value)
    assert folder.spec() == study


@pytest.mark.parametrize("change", [{"search": {"trials": 9}}, {"resources": {"cpu": 2}}])
def test_a_study_goes_on_with_more_trials_or_other_resources(
    folder: RunFolder,
    make_study: Callable[..., StudySpec],
    table: Columns,
    row: Row,
    change: dict[str, Any],
) -> None:
    folder.append(row(0), table, 0)
    folder.create(make_study(**change))
    assert folder.spec() == make_study(**change)
    assert folder.read_reports()["trial"].tolist() == [0]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, study: StudySpec) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/kept: cannot be written \(.*\); choose another --runs folder"):
        RunFolder(tmp_path / "file" / "kept").create(study)


def test_artifacts_lie_where_the_row_says(folder: RunFolder) -> None:
    first = folder.write_artifact(7, b"first")
    path, digest = folder.write_artifact(7, b"second")
    assert path == first[0]
    assert not Path(path).is_absolute()
    assert (folder.path / path).read_bytes() == b"second"
    assert digest == hashlib.sha256(b"second").hexdigest()
    assert folder.write_artifact(8, b"second")[0] != path
    assert len(list(folder.artifacts.iterdir())) == 2


def test_trials_carry_their_study(
    tmp_path: Path, make_study: Callable[..., StudySpec], table: Columns, row: Row
) -> None:
    spec = make_study(constraints={"clean_accuracy": {"min": 0.5}})
    folder = RunFolder(tmp_path / "kept")
    folder.create(spec)
    with pytest.raises(RunError, match="holds no reports yet; run the study first"):
        folder.read_trials()
    folder.append(row(0, "running"), table, 0)
    folder.append(row(0, "complete"), table, 1)
    trials = folder.read_trials()
    assert trials["state"].tolist() == ["complete"]
    assert trials.attrs["name"] == "kept"
    assert trials.attrs["objectives"] == dict(spec.objectives)
    assert trials.attrs["constraints"] == {"clean_accuracy": {"min": 0.5, "max": None}}


def test_trials_are_derived_from_reports_not_from_the_table(
    folder: RunFolder, study: StudySpec, table: Columns, row: Row
) -> None:
    folder.append(row(0), table, 0)
    folder.write_derived(folder.read_reports(), study, table)
    folder.append(row(1), table, 1)  # arrived after the table was written
    assert folder.read_trials()["trial"].tolist() == [0, 1]
