"""Reports through damage, compaction and death: each is read once, in order, whatever files it lies in."""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults import NOBODY, Child, in_child, until

from atmc_search.errors import RunError, StorageError
from atmc_search.results import Column, RunFolder, reports, trials_of
from atmc_search.spec import StudySpec

Row = Callable[..., dict[str, Any]]
Columns = tuple[Column, ...]

SOME = (
    *("report", "trial", "state", "reason", "epoch", "artifact", "fingerprint", "reported_at"),
    *("size_bytes", "clean_accuracy", "robust_accuracy", "loss"),
)


@pytest.fixture
def table(table: Columns, study: StudySpec) -> Columns:
    """Few columns, as every file is written and read many times here."""
    return tuple(column for column in table if column.name in SOME or column.name in study.distributions)


@pytest.fixture
def folder(tmp_path: Path, study: StudySpec) -> RunFolder:
    made = RunFolder(tmp_path / "kept")
    made.create(study)
    return made


@pytest.fixture
def compact_at_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "COMPACT_AT", 4)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def copy_of_report_0(path: Path) -> None:
    shutil.copy(path.with_name("00000000.parquet"), path)


def two_rows(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table]), path)


def words_for_numbers(path: Path) -> None:
    table = pq.read_table(path)
    column = table.schema.get_field_index("clean_accuracy")
    pq.write_table(table.set_column(column, "clean_accuracy", pa.array(["high"])), path)


def a_folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "without its head": lambda path: path.write_bytes(path.read_bytes()[100:]),
    "magic": lambda path: path.write_bytes(b"PAR1"),
    "text": lambda path: path.write_bytes(b"not parquet at all"),
    "random": lambda path: path.write_bytes(b"PAR1" + random.Random(0).randbytes(3000) + b"PAR1"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "foreign columns": lambda path: pq.write_table(pa.table({"x": [1.0], "y": ["z"]}), path),
    "trial a word": lambda path: pq.write_table(pa.table({"trial": ["1"], "state": ["complete"]}), path),
    "trial missing": lambda path: pq.write_table(
        pa.table({"trial": pa.array([None], pa.int64()), "state": ["complete"]}), path
    ),
    "two rows": two_rows,
    "words for numbers": words_for_numbers,
    "copy of another": copy_of_report_0,
    "folder": a_folder,
    "pipe": a_pipe,
    "link to nothing": a_link_to_nothing,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_no_report_is_named_and_set_aside(
    folder: RunFolder,
    study: StudySpec,
    table: Columns,
    row: Row,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], object],
) -> None:
    for number in range(4):
        folder.append(row(number, clean_accuracy=0.5), table, number)
    path = folder.reports / "00000003.parquet"
    damage(path)

    reader = RunFolder.open(folder.path)
    assert reader.read_reports()["trial"].tolist() == [0, 1, 2]
    assert len(reader.read_trials()) == 3
    (warning,) = caplog.messages  # one, though it was read twice
    assert str(folder.path) in warning
    assert "reports/00000003.parquet (" in warning
    assert "\n" not in warning
    assert os.path.lexists(path)  # who only reads moves nothing

    caplog.clear()
    content = path.read_bytes() if path.is_file() else None
    with RunFolder(folder.path).locked(study):
        pass
    assert not path.exists()
    moved = folder.damaged / "reports" / "00000003.parquet"
    assert os.path.lexists(moved)
    assert content is None or moved.read_bytes() == content
    (warning,) = caplog.messages
    assert "moved to damaged/" in warning
    assert "reports/00000003.parquet (" in warning

    caplog.clear()
    driver = RunFolder(folder.path)
    with driver.locked(study):
        assert driver.next_report() == 4  # the number of what was moved stays taken
        driver.append(row(4), table, 4)
    assert driver.read_reports()["trial"].tolist() == [0, 1, 2, 4]
    assert len(pd.read_parquet(folder.reports)) == 4
    assert caplog.messages == []


@pytest.mark.parametrize("hidden", [["00000001.parquet"], ["00000000.parquet", "00000001.parquet"], ["."]])
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_what_cannot_be_read_for_now_is_not_damaged(
    make_study: Callable[..., StudySpec], table: Columns, row: Row, hidden: list[str]
) -> None:
    study = make_study(storage={"patience_s": 0.3})
    with tempfile.TemporaryDirectory() as everyones:  # pytest's own folders are closed to others
        path = Path(everyones) / "kept"
        driver = RunFolder(path)
        driver.create(study)
        for number in range(2):
            driver.append(row(number), table, number)
        for inside in (Path(everyones), path, *path.rglob("*")):
            os.chown(inside, NOBODY, NOBODY)
        for name in hidden:
            (driver.reports / name).chmod(0)

        def go_on() -> None:
            with RunFolder(path).locked(study):
                pass

        one = "reports" if hidden == ["."] else f"reports/{hidden[0]}"
        for action, often in ((go_on, r" in \d tries over 0\.3 s"), (lambda: RunFolder.open(path).read_trials(), "")):
            with pytest.raises(
                StorageError, match=rf"{one}: cannot be read \(Permission denied{often}\); mend its perm"
            ):
                in_child(action, uid=NOBODY)
        driver.reports.chmod(0o755)
        assert names(driver.reports) == ["00000000.parquet", "00000001.parquet"]
        assert not driver.damaged.exists()
        for name in names(driver.reports):
            (driver.reports / name).chmod(0o644)
        assert RunFolder.open(path).read_reports()["trial"].tolist() == [0, 1]


def test_a_read_that_fails_for_a_moment_is_tried_again(
    folder: RunFolder, study: StudySpec, table: Columns, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        folder.append(row(number), table, number)
    read, failures = Path.read_bytes, [errno.EIO, errno.ESTALE]

    def stale(self: Path) -> bytes:
        if failures and self.name == "00000001.parquet":
            raise OSError(failures.pop(), "not now", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", stale)
    with folder.locked(study):
        assert folder.read_reports()["trial"].tolist() == [0, 1, 2]
    assert not failures
    assert not folder.damaged.exists()


def test_a_damaged_that_is_no_folder_is_named(folder: RunFolder, study: StudySpec) -> None:
    (folder.reports / "notes.txt").write_text("mine")
    folder.damaged.write_text("a file")
    with (
        pytest.raises(
            StorageError, match=r"damaged: reports/notes.txt .* cannot be moved there \(\w.*must be a folder"
        ),
        folder.locked(study),
    ):
        pass
    assert (folder.reports / "notes.txt").read_text() == "mine"


def test_strange_names_are_set_aside_and_many_are_one_warning(
    folder: RunFolder, study: StudySpec, table: Columns, row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    folder.append(row(0), table, 0)
    for number in range(1, 6):
        (folder.reports / f"{number:08d}.parquet").write_bytes(b"")
    (folder.reports / "notes.txt").write_text("mine")
    (folder.reports / ".00000007.parquet.99.partial").write_bytes(b"PAR1")
    (folder.artifacts / "00001.atmc").mkdir()
    (folder.path / "trials.parquet").mkdir()
    with folder.locked(study):
        pass
    assert names(folder.reports) == ["00000000.parquet"]
    assert (folder.damaged / "reports" / "notes.txt").read_text() == "mine"
    assert names(folder.damaged) == ["artifacts", "reports", "trials.parquet"]
    assert any("00000001.parquet" in text and "and 2 more" in text for text in caplog.messages)
    folder.write_artifact(1, b"artifact")
    folder.derive(study, table)
    assert len(pd.read_parquet(folder.path / "trials.parquet")) == 1


def test_what_is_damaged_again_does_not_replace_what_was(
    folder: RunFolder, study: StudySpec, table: Columns, row: Row
) -> None:
    for content in (b"first", b"second", b"third"):
        (folder.reports / "00000000.parquet").write_bytes(content)
        with folder.locked(study):
            pass
    for place in ("/nowhere", "/elsewhere"):
        (folder.reports / "00000001.parquet").symlink_to(place)
        with folder.locked(study):
            pass
    moved = list((folder.damaged / "reports").iterdir())
    assert sorted(path.read_bytes() for path in moved if path.is_file()) == [b"first", b"second", b"third"]
    assert sorted(str(path.readlink()) for path in moved if path.is_symlink()) == ["/elsewhere", "/nowhere"]


def test_the_first_of_all_files_is_not_the_measure_of_the_others(
    folder: RunFolder, study: StudySpec, table: Columns, row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):  # of a task's own column nobody has declared the type
        column = Column("mine", "float64" if number else "string", "", "")
        RunFolder(folder.path).append(row(number, mine=0.5 if number else "x"), [*table, column], number)
    assert folder.read_reports()["trial"].tolist() == [1, 2, 3]
    assert "left out 00000000.parquet (columns of other types" in caplog.text
    with folder.locked(study):  # nothing valid is ever moved away
        assert folder.next_report() == 4
    assert len(names(folder.reports)) == 4
    assert not folder.damaged.exists()


def test_a_task_whose_column_has_another_type_now_is_told_so(
    folder: RunFolder, study: StudySpec, table: Columns, row: Row
) -> None:
    numbers, words = ([*table, Column("mine", kind, "", "")] for kind in ("float64", "string"))  # type: ignore[arg-type]
    with folder.locked(study):
        for number in range(2):
            folder.append(row(number, mine=0.5), numbers, number)
    before = names(folder.reports)
    with folder.locked(study):
        said = "column 'mine' is double in the reports there and string in a new one; give the spec another name"
        with pytest.raises(StorageError, match=said):
            folder.append(row(2, mine="x"), words, 2)
        folder.append(row(2, mine=1), [*table, Column("mine", "int64", "", "")], 2)  # a whole number is a number
    assert names(folder.reports) == [*before, "00000002.parquet"]
    assert folder.read_reports()["mine"].tolist() == [0.5, 0.5, 1]
    with pytest.raises(RunError, match="its reports have a column of another type than the study's task declares"):
        folder.write_derived(
            pd.DataFrame([row(0, mine="x", size_bytes=9, clean_accuracy=0.5, robust_accuracy=0.5)]), study, numbers
        )


def all_rows(row: Row, count: int) -> list[dict[str, Any]]:
    """Reports of a few trials that take turns, with metrics of their own."""
    return [
        row(n % 5, "complete" if n % 3 else "running", epoch=n, size_bytes=100 + n, loss=n / 7) for n in range(count)
    ]


@pytest.mark.usefixtures("compact_at_4")
def test_compacted_reports_read_as_before(
    folder: RunFolder, study: StudySpec, table: Columns, row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = all_rows(row, 15)
    plain = RunFolder(tmp_path / "plain")
    plain.create(study)
    with monkeypatch.context() as patch:
        patch.setattr(reports, "COMPACT_AT", 10**9)
        for number, one in enumerate(rows):
            plain.append(one, table, number)
    with folder.locked(study):
        for number, one in enumerate(rows):
            folder.append(one, table, number)
            if number % 3 == 2:
                trials = folder.derive(study, table)
                pd.testing.assert_frame_equal(trials, trials_of(plain.read_reports().head(number + 1)))
            assert len(names(folder.reports)) <= number // 4 + 4
    assert names(folder.reports) == [
        *(f"{first:08d}-{first + 3:08d}.parquet" for first in range(0, 12, 4)),
        "00000012.parquet",
        "00000013.parquet",
        "00000014.parquet",
    ]
    for read in (folder.read_reports(), RunFolder.open(folder.path).read_reports()):
        pd.testing.assert_frame_equal(read, plain.read_reports())
    pd.testing.assert_frame_equal(pd.read_parquet(folder.reports), pd.read_parquet(plain.reports))
    for path in folder.reports.iterdir():
        assert pq.read_schema(path).metadata == pq.read_schema(plain.reports / "00000000.parquet").metadata
    assert folder.next_report() == 15
    with folder.locked(study):  # goes on over the three that were left
        folder.append(row(9), table, 15)
    assert names(folder.reports)[-1] == "00000012-00000015.parquet"


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.usefixtures("compact_at_4")
def test_death_at_any_step_of_compacting_loses_nothing_and_doubles_nothing(
    study: StudySpec, table: Columns, row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    while True:  # until a run gets through
        folder = RunFolder(tmp_path / f"{steps}")
        folder.create(study)
        for number in range(3):
            folder.append(row(number, epoch=number), table, number)
        left = steps

        def mortal(step: Callable[..., Any]) -> Callable[..., Any]:
            def take(*args: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    raise Killed
                return step(*args, **named)

            return take

        with monkeypatch.context() as patch:
            for home, name in ((os, "fsync"), (os, "link"), (Path, "replace"), (Path, "unlink"), (Path, "open")):
                patch.setattr(home, name, mortal(getattr(home, name)))
            try:
                folder.append(row(3, epoch=3), table, 3)
            except Killed:
                died = True
            else:
                died = False
        there = RunFolder.open(folder.path).read_reports()["epoch"].tolist()
        assert there in ([0, 1, 2], [0, 1, 2, 3])
        driver = RunFolder(folder.path)
        with driver.locked(study):
            assert driver.read_reports()["epoch"].tolist() == there
            assert driver.derive(study, table)["trial"].tolist() == there
        assert pd.read_parquet(driver.reports)["epoch"].tolist() == there
        assert not [name for name in names(driver.reports) if name.startswith(".")]
        if not died:
            break
        steps += 1
    assert steps > 10
    assert names(folder.reports) == ["00000000-00000003.parquet"]


@pytest.mark.usefixtures("compact_at_4")
def test_a_driver_that_is_killed_loses_no_report_it_acknowledged(
    study: StudySpec, table: Columns, row: Row, tmp_path: Path
) -> None:
    path = tmp_path / "kept"
    RunFolder(path).create(study)
    log = tmp_path / "log"
    log.touch()

    def drive() -> None:
        folder = RunFolder(path)
        with folder.locked(study), log.open("a", buffering=1) as acknowledge:
            number = folder.next_report()
            while True:
                folder.append(row(number, epoch=number), table, number)
                acknowledge.write(f"{number}\n")
                number += 1

    chance = random.Random(1)
    for _ in range(12):
        before = len(log.read_text().splitlines())
        child, enough = Child(drive), before + chance.randrange(4)
        until(lambda enough=enough: len(log.read_text().splitlines()) >= enough)
        time.sleep(chance.uniform(0, 0.02))
        child.kill()
        acknowledged = [int(line) for line in log.read_text().splitlines()]
        found = RunFolder.open(path).read_reports()
        if found.empty:
            assert not acknowledged
            continue
        assert found["report"].tolist() == found["epoch"].tolist() == list(range(len(found)))
        assert set(acknowledged) <= set(found["report"])
        assert before <= len(acknowledged)
    assert len(acknowledged) > 8
    assert any("-" in name for name in names(path / "reports"))


@pytest.mark.usefixtures("compact_at_4")
def test_a_reader_beside_a_driver_that_compacts_sees_every_report_once(
    folder: RunFolder, study: StudySpec, table: Columns, row: Row
) -> None:
    failures: list[BaseException] = []
    written = [0]
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                at_least = written[0]
                found = RunFolder.open(folder.path).read_reports()
                seen = found["report"].tolist() if len(found) else []
                assert seen == list(range(len(seen)))
                assert len(seen) >= at_least
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with folder.locked(study):
            for number in range(40):
                folder.append(row(number), table, number)
                written[0] = number + 1
    finally:
        done.set()
        reader.join()
    assert not failures


def test_a_number_that_is_taken_is_refused(folder: RunFolder, table: Columns, row: Row) -> None:
    folder.append(row(0), table, 0)
    with pytest.raises(StorageError, match="report 0 is there already, so another driver writes beside this one"):
        RunFolder(folder.path).append(row(7), table, 0)
    assert folder.read_reports()["trial"].tolist() == [0]


@pytest.mark.usefixtures("compact_at_4")
def test_a_file_of_many_that_is_damaged_costs_no_other(
    folder: RunFolder, study: StudySpec, table: Columns, row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10):
        folder.append(row(number), table, number)
    (folder.reports / "00000004-00000007.parquet").write_bytes(b"PAR1")
    with folder.locked(study):
        assert folder.read_reports()["trial"].tolist() == [0, 1, 2, 3, 8, 9]
        assert folder.next_report() == 10
    assert "00000004-00000007.parquet" in caplog.text
