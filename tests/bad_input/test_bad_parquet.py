"""Reports that are no Parquet, or Parquet that is no report: the file and the fault are named, and nothing is changed.

One among sound ones is left out (`tests/results/test_reports.py`); here there is no other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folders import REPORT, one_report, reported, run_folder
from refusals import Case, case, refused
from shell import Run

AWAY = "run the study, which moves it to damaged/|move them away to continue without them"


def bad(name: str, changes: dict[str, Any], shown: str, rule: str, *, words: str = "front run", drop: str = "") -> Any:
    return case(name, words, shown, rule, AWAY, make=lambda folder: reported(folder, changes, drop=drop))


def torn(name: str, content: bytes, rule: str) -> Any:
    def make(folder: Path) -> None:
        one_report(folder)
        (folder / REPORT).write_bytes(content)

    return case(name, "front run", "00000001.parquet", rule, AWAY, make=make)


def cut(folder: Path) -> None:
    one_report(folder)
    content = (folder / REPORT).read_bytes()
    (folder / REPORT).write_bytes(content[: len(content) // 2])


def scrambled(folder: Path) -> None:
    one_report(folder)
    content = bytearray((folder / REPORT).read_bytes())
    content[-400:-50] = bytes(350)  # within the footer
    (folder / REPORT).write_bytes(content)


def a_folder(folder: Path) -> None:
    one_report(folder)
    (folder / REPORT).unlink()
    (folder / REPORT).mkdir()


def a_bomb(folder: Path) -> None:
    """Few bytes for two million rows."""
    one_report(folder)
    zeros = pa.array(np.zeros(2_000_000, np.int64))
    pq.write_table(pa.table({"trial": zeros, "state": pa.array(["complete"] * 2_000_000)}), folder / REPORT)


def twice(folder: Path) -> None:
    one_report(folder)
    one = pa.array([1])
    pq.write_table(
        pa.Table.from_arrays([one, one, pa.array(["complete"])], ["trial", "trial", "state"]), folder / REPORT
    )


CASES = [
    torn("empty", b"", "not readable as Parquet"),
    torn("junk", b"junk", "not readable as Parquet"),
    torn("magic-alone", b"PAR1PAR1", "not readable as Parquet"),
    torn("csv", b"trial,state\n0,complete\n", "not readable as Parquet"),
    torn("a-pickle", b"\x80\x04cos\nsystem\n(S'touch gone'\ntR.", "not readable as Parquet"),
    case("cut", "front run", "00000001.parquet", "not readable as Parquet", AWAY, make=cut),
    case(
        "scrambled", "choose run --best size_bytes", "00000001.parquet", "not readable as Parquet", AWAY, make=scrambled
    ),
    case("a-folder", "front run", "00000001.parquet", "not a file", AWAY, make=a_folder),
    case("a-bomb", "front run", "2,000,000 rows", "more than reports have", AWAY, make=a_bomb),
    case("a-column-twice", "front run", "'trial'", "two columns", AWAY, make=twice),
    bad("no-trial", {}, "'trial'", "no column", drop="trial"),
    bad("no-state", {}, "'state'", "no column", drop="state", words="choose run --best size_bytes"),
    bad("no-trial-and-a-report-drawn", {}, "'trial'", "no column", drop="trial", words="report run"),
    bad("trial-in-words", {"trial": "one"}, "'trial'", "is string, not int64"),
    bad("trial-below-0", {"trial": -3}, "trial", "no number from 0"),
    bad("trial-is-missing", {"trial": pa.array([None], pa.int64())}, "trial", "no trial in a row"),
    bad("size-in-words", {"size_bytes": "1 kB"}, "'size_bytes'", "is string, not a number"),
    bad("clean-accuracy-in-words", {"clean_accuracy": "good"}, "'clean_accuracy'", "is string, not a number"),
    bad("accuracy-is-a-list", {"clean_accuracy": [0.5]}, "'clean_accuracy'", "is list.*, not a plain value"),
    bad("state-is-a-number", {"state": 3}, "'state'", "is int64, not string"),
    bad("a-structure", {"mine": {"a": 1}}, "'mine'", "is struct.*, not a plain value"),
    bad("bytes", {"mine": b"\xff"}, "'mine'", "is binary, not a plain value"),
    bad("no-text", {"reason": pa.array([b"\xff\xfe"]).view(pa.string())}, "00000001.parquet", "not readable.*UTF8"),
    bad("a-name-with-escapes", {"\x1b[2Jx": b""}, "\\x1b[2Jx", "not a plain value"),
    bad("a-value-nobody-sampled", {"trial.compress.bits": 7}, "trial.compress.bits is 7", r"not sampled from \{4, 8\}"),
    bad("a-value-out-of-range", {"trial.train.lr": 5.0}, "trial.train.lr is 5.0", r"not sampled from \[0.01, 0.04\]"),
    bad("a-value-in-words", {"trial.train.lr": "x"}, "'x'", "not sampled from"),
    bad(
        "artifact-above", {"artifact": "../../secret"}, "'../../secret'", "outside the run's folder", words="verify run"
    ),
    bad("artifact-anywhere", {"artifact": "/etc/passwd"}, "'/etc/passwd'", "outside the run's folder"),
    bad("artifact-is-a-number", {"artifact": 3}, "'artifact'", "is int64, not string"),
]


@pytest.mark.parametrize("bad", CASES)
def test_a_bad_report_is_refused(atmc: Run, tmp_path: Path, bad: Case) -> None:
    refused(atmc, tmp_path, bad)


def test_a_folder_called_like_a_partition_changes_nothing(atmc: Run, tmp_path: Path) -> None:
    run_folder(tmp_path)
    (tmp_path / "seed=3").mkdir()
    (tmp_path / "run").rename(tmp_path / "seed=3" / "run")
    assert atmc("front", "seed=3/run").code == 0
