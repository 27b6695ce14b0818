"""What travels in a file with each column: it reads back as it was declared, and a stranger's words do no harm."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atmc_search.api.runs import described_columns, load_trials
from atmc_search.report import columns_in
from atmc_search.results import STUDY_COLUMNS, Column, RunFolder, columns_of, parameter_columns, reports, schema_of
from atmc_search.spec import StudySpec
from atmc_search.tasks import TrialSpace
from atmc_search.tasks.atmc.columns import ATMC_COLUMNS

FORMATS = Path(__file__).parent / "formats"
GROUPED = Column("trial.kind", "string", "", "sampled", role="parameter", order=("b", "a"))
PLAIN = Column("x", "float64", "", "")


@pytest.mark.parametrize("column", [*STUDY_COLUMNS, *ATMC_COLUMNS, GROUPED], ids=lambda column: column.name)
def test_a_column_reads_back_as_it_was_declared(column: Column) -> None:
    described = column.described()
    assert all(isinstance(text, str) for text in described.values())
    # `needs` is for the search, which has the declaration.
    assert Column.from_described(column.name, column.kind, described) == replace(column, needs=None)
    (back,) = columns_of(schema_of([column]))
    assert back == replace(column, needs=None)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {b"\xff\xfe": b"\x80garbage\x00"},
        {b"role": b"king", b"log": b"\xff", b"better": b"\xff"},
        {b"log": b'"true"', b"better": b'"up"', b"order": b"[1, 2]", b"samples": b"3", b"warning": b"[]"},
        {b"log": b"1", b"better": b"true", b"order": b'"abc"', b"low": b"true", b"high": b'"9"', b"baseline": b"null"},
        {b"low": b"NaN", b"high": b"1" * 400, b"order": b"{}"},
        {b"low": b"1" * 5000, b"high": b"[" * 100_000, b"log": b"{" * 100_000},
        {b"log": b" " * 1_000_000, b"order": b"[" + b'"a",' * 100_000},
        {b"name": b"y", b"kind": b"string", b"needs": b'["a", "b"]', b"PANDAS": b"{}", b"__class__": b'"x"'},
    ],
    ids=lambda metadata: str(metadata)[:40],
)
def test_what_is_no_description_of_ours_is_left_out(metadata: dict[bytes, bytes] | None) -> None:
    (found,) = columns_of(pa.schema([pa.field("x", pa.float64(), metadata=metadata)]))
    assert found == PLAIN


def test_ends_may_be_infinite_and_whole() -> None:
    found = Column.from_described("x", "float64", {"low": "-Infinity", "high": "3"})
    assert (found.low, found.high) == (-math.inf, 3)
    assert isinstance(found.high, float)


def test_columns_of_types_that_ours_never_have_are_left_out() -> None:
    kinds = [pa.list_(pa.int64()), pa.struct([("a", pa.int64())]), pa.binary(), pa.null(), pa.float32()]
    found = columns_of(pa.schema([(str(place), kind) for place, kind in enumerate(kinds)]))
    assert [(column.name, column.kind) for column in found] == [("4", "float64")]


def test_a_run_whose_descriptions_are_a_stranger_s_is_read(
    tmp_path: Path, study: StudySpec, table: tuple[Column, ...], row: Callable[..., dict[str, Any]]
) -> None:
    folder = RunFolder(tmp_path / "kept")
    folder.create(study)
    folder.append(row(0, size_bytes=900), table, 0)
    (path,) = folder.reports.iterdir()
    written = pq.ParquetFile(path).read()
    hostile = {b"role": b"\xff", b"unit": b"\x1b[2J", b"log": b"[" * 100_000, b"order": b"3", b"low": b"1" * 400}
    fields = [field.with_metadata(hostile) for field in written.schema]
    pq.write_table(written.cast(pa.schema(fields)), path)
    trials = load_trials(folder.path)
    assert trials["size_bytes"].tolist() == [900]
    assert len(columns_in(trials.attrs)) == len(table)


@pytest.mark.parametrize("compact_at", [3, 512])
def test_descriptions_survive_compaction_and_travel_into_the_tables(
    tmp_path: Path,
    study: StudySpec,
    row: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    compact_at: int,
) -> None:
    monkeypatch.setattr(reports, "COMPACT_AT", compact_at)
    table = (*STUDY_COLUMNS, *ATMC_COLUMNS, *TrialSpace.of(study).parameter_columns, GROUPED)
    declared = tuple(replace(column, needs=None) for column in table)
    folder = RunFolder(tmp_path / "kept")
    with folder.locked(study):
        for number in range(7):
            folder.append(row(number, size_bytes=900 + number), table, number)
        folder.derive(study, table)
    many = [path for path in folder.reports.iterdir() if "-" in path.name]
    assert len(many) == (2 if compact_at == 3 else 0)
    for path in (*many, folder.path / "trials.parquet", folder.path / "front.parquet"):
        assert columns_of(pq.read_schema(path)) == declared, path.name
    assert folder.columns() == declared
    assert columns_in(load_trials(folder.path).attrs) == declared


def test_the_newest_description_of_a_column_counts(
    tmp_path: Path, study: StudySpec, table: tuple[Column, ...], row: Callable[..., dict[str, Any]]
) -> None:
    folder = RunFolder(tmp_path / "kept")
    folder.create(study)
    for number, unit in enumerate(("seconds", "minutes")):
        mine = (*table, Column("mine", "float64", unit, "of mine"), Column(f"m{number}", "int64", "m", "once"))
        folder.append(row(number), mine, number)
    by_name = {column.name: column for column in folder.columns()}
    assert by_name["mine"].unit == "minutes"
    assert (by_name["m0"].unit, by_name["m1"].unit) == ("m", "m")


def test_files_of_earlier_releases_have_the_columns_that_are_declared_today() -> None:
    folder = RunFolder.open(FORMATS / "0")
    assert not any(b"role" in (f.metadata or {}) for f in pq.read_schema(folder.reports / "00000000.parquet"))
    columns = {column.name: column for column in described_columns(folder)}
    today = {column.name: column for column in (*STUDY_COLUMNS, *ATMC_COLUMNS)}
    assert columns["size_bytes"] == today["size_bytes"]
    assert columns["size_bytes"].log
    assert columns["clean_accuracy"].baseline == "dense_clean_accuracy"
    assert all(columns[name] == column for name, column in today.items() if name in columns)
    spec = folder.spec()
    sampled = {name for name, column in columns.items() if column.role == "parameter"}
    assert sampled == set(spec.distributions)
    assert columns_in(load_trials(folder.path).attrs) == tuple(
        replace(column, needs=None) for column in columns.values()
    )


# --- a task's own columns


def test_a_task_may_name_its_columns_as_atmc_does_with_types_of_its_own(
    tmp_path: Path, make_study: Callable[..., StudySpec]
) -> None:
    """All its reports count: nothing of a valid report is ever moved away."""
    from atmc_search.spec import parse_study

    spec = parse_study(
        {
            "name": "mine",
            "task": "somebodys_module:TheirTask",
            "trial": {"depth": {"int_uniform": [1, 9]}},
            "objectives": {"size_bytes": "min", "clean_accuracy": "max"},
            "search": {"trials": 4},
        }
    )
    own = (
        Column("size_bytes", "float64", "bytes", "on average"),
        Column("loss", "string", "", "which loss was best"),
        Column("clean_accuracy", "int64", "", "how many are clean"),
        Column("masking_flags", "bool", "", "whether there are masks"),
        Column("nnz", "timestamp", "", "when"),
        Column("macs", "string", "", "computers"),
    )
    columns = (*STUDY_COLUMNS, *own, *parameter_columns(spec.distributions))
    folder = RunFolder(tmp_path / "mine")
    for session in range(2):  # the second tidies up what the first left
        with folder.locked(spec):
            for trial in (2 * session, 2 * session + 1):
                values = {"size_bytes": 10.5 - trial, "loss": "hinge", "clean_accuracy": trial, "masking_flags": True}
                report = {"trial": trial, "state": "complete", "trial.depth": 3, "macs": "two", **values}
                folder.append(report, columns, folder.next_report())
            folder.derive(spec, columns)
    assert not folder.damaged.exists()
    trials = load_trials(folder.path)
    assert trials["trial"].tolist() == [0, 1, 2, 3]
    assert set(trials["loss"]) == {"hinge"}
    assert pq.ParquetFile(folder.path / "front.parquet").read()["trial"].to_pylist() == [3]
    assert json.loads(json.dumps(trials.attrs["columns"]["loss"]))[1]["meaning"] == "which loss was best"
