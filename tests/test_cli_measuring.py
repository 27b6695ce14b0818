"""`verify`, `curves` and `evaluate` on the command line: what they print, of ATMC's runs and of a user's own task."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shell import Run, one_line, program

from atmc_search.artifact import Architecture, CompressedModel, pack
from atmc_search.compress import factorise
from atmc_search.results import STUDY_COLUMNS, Column, RunFolder, parameter_columns
from atmc_search.spec import parse_study
from atmc_search.tasks.atmc.columns import ATMC_COLUMNS

ATMC: dict[str, Any] = {
    "data": {"name": "digits", "train_size": 100, "validation_size": 50, "test_size": 40},
    "model": {"name": "mlp", "hidden": [8]},
    "threat": {"norm": "linf", "eps": 0.1},
    "dense": {"epochs": 1},
    "train": {"epochs": 1},
    "compress": {"keep": {"uniform": [0.1, 0.9]}},
    "evaluate": {"attack": {"name": "pgd", "steps": 1}},
}
THEIRS = """
from pydantic import Field
from atmc_search.errors import ArtifactError
from atmc_search.results import Column
from atmc_search.spec import Section, TrialSpec
from atmc_search.tasks import Figure, Remeasured, Task

class Depth(Section):
    levels: int = Field(ge=1)

class Spec(TrialSpec):
    tree: Depth

class Tree(Task):
    Spec = Spec
    columns = (Column("error_mm", "float64", "mm", "root mean square", better="min"),)
    objectives = {"error_mm": "min"}

    def __init__(self, spec, data, start, *, device, meta): ...
    def step(self): ...
    def artifact(self): ...
    def state_dict(self): ...
    def load_state_dict(self, tensors, facts): ...

    @classmethod
    def remeasure(cls, artifact, spec, data, *, split, options, start, device, trust):
        if artifact == b"rotten":
            raise ArtifactError("rotten; plant it again")
        assert (options, start()) == ({}, None)
        error = spec.tree.levels + len(artifact)
        return Remeasured(
            (Figure("error_mm", error), Figure("share", 0.25, 0.125, 0.5)), (7, f"{split} trees"), "in spring",
            {"bent": "it leans"}, ("measured twice",), {"error_mm": error},
        )
"""


@pytest.fixture
def atmc(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`atmc("verify", "run")`: the program in this process, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return program(capsys, monkeypatch)


def make_run(path: Path, task: str, trial: dict[str, Any], columns: tuple[Column, ...], artifact: bytes, **row: Any):
    """A run of one complete trial."""
    objectives = {name: "min" for name in row if not name.startswith("trial")}
    study = parse_study(
        {"name": "one", "task": task, "trial": trial, "objectives": objectives, "search": {"trials": 1}}
    )
    folder = RunFolder(path)
    folder.create(study)
    where, digest = folder.write_artifact(0, artifact)
    report = {"trial": 0, "state": "complete", "artifact": where, "artifact_sha256": digest, **row}
    folder.append(report, (*STUDY_COLUMNS, *columns, *parameter_columns(study.distributions)), 0)


@pytest.fixture
def run(tmp_path: Path, atmc: Run) -> None:
    """`run`: of ATMC, with an untrained model."""
    architecture = Architecture("mlp", {"hidden": [8]}, (1, 8, 8), 10)
    model = architecture.build([0.3], [0.2], seed=1).eval()
    artifact = pack(CompressedModel.of(model, factorise(model, "none"), architecture, meta={}))
    figures = {"size_bytes": 1000, "clean_accuracy": 0.9, "robust_accuracy": 0.5, "trial.compress.keep": 0.5}
    make_run(tmp_path / "run", "atmc", ATMC, ATMC_COLUMNS, artifact, **figures)


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atmc: Run) -> Iterator[Path]:
    """`theirs`: a run of a user's own task."""
    (tmp_path / "their_trees.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path)
    columns = (Column("error_mm", "float64", "mm", "root mean square", better="min"),)
    trial = {"tree": {"levels": {"int_uniform": [1, 9]}}}
    values = {"error_mm": 7.5, "trial.tree.levels": 3}
    make_run(tmp_path / "theirs", "their_trees:Tree", trial, columns, b"oak", **values)
    yield tmp_path / "theirs"
    sys.modules.pop("their_trees", None)


@pytest.mark.usefixtures("run")
def test_verify_prints_figures_with_intervals_beside_what_was_recorded(atmc: Run) -> None:
    outcome = atmc("verify", "run")
    assert (outcome.code, outcome.err) == (0, "")
    heading, line, conditions = outcome.out.splitlines()
    assert heading.split("  ")[0] == "trial"
    for words in ("bytes", "clean accuracy", "robust accuracy", "recorded clean accuracy", "95 % interval"):
        assert words in heading
    (row,) = json.loads(atmc("verify", "run", "--json").out)
    low, high = row["robust_interval"]
    assert f"{row['clean_accuracy']:.4f}" in line
    assert f"{low:.3f} to {high:.3f}" in line
    assert line.split()[-2:] == ["0.9000", "0.5000"]
    assert conditions == (
        "n = 40 test images; attack pgd (steps 1, restarts 1, random_start true), linf eps 0.1; "
        "recorded: by the sweep, on validation"
    )
    assert (row["trial"], row["images"], row["norm"], row["eps"]) == (0, 40, "linf", 0.1)
    recorded = {name: value for name, value in row.items() if name.startswith("recorded")}
    assert recorded == {"recorded_size_bytes": 1000, "recorded_clean_accuracy": 0.9, "recorded_robust_accuracy": 0.5}
    assert type(row["recorded_size_bytes"]) is int


@pytest.mark.usefixtures("run")
def test_verify_says_that_it_looked_for_masking_where_it_found_none(atmc: Run) -> None:
    heading, line, *_, said, missing = atmc("verify", "run", "--checks").out.splitlines()
    assert heading.split()[-1] == "warnings"
    assert line.split()[-1] == "none"
    assert said == "masking: checked on 40 images"
    assert missing.startswith("the run holds no dense start of theirs")


@pytest.mark.usefixtures("run")
def test_curves_say_what_attacked(atmc: Run) -> None:
    outcome = atmc("curves", "run", "--eps", "0,0.1", "--steps", "1,2")
    assert (outcome.code, outcome.err) == (0, "")
    assert (
        "n = 40 test images; attack pgd (steps 1, restarts 1, random_start true), linf eps 0.1\nwrote run/curves.png"
    ) in outcome.out


def test_verify_measures_a_user_s_task_by_its_own_figures(atmc: Run, theirs: Path) -> None:
    assert "would import that code" in one_line(atmc("verify", "theirs"))
    outcome = atmc("verify", "theirs", "--trust")
    assert (outcome.code, outcome.err) == (0, "")
    heading, line, conditions, note, warning = outcome.out.splitlines()
    for words in ("error mm", "share", "recorded error mm", "warnings"):
        assert words in heading or words.replace(" mm", "") in heading
    assert line.split() == ["0", "3", "6.0000", "0.2500", "0.125", "to", "0.500", "7.5000", "bent"]
    assert conditions == "n = 7 test trees; in spring; recorded: by the sweep, on validation"
    assert (note, warning) == ("measured twice", "trial 0 fails bent: it leans")
    (row,) = json.loads(atmc("verify", "theirs", "--trust", "--json").out)
    assert row == {"trial": 0, "error_mm": 6, "recorded_error_mm": 7.5}


def test_what_a_user_s_task_cannot_do_is_one_line(atmc: Run, theirs: Path) -> None:
    said = one_line(atmc("curves", "theirs", "--trust"))
    assert "task Tree: its artifacts have no robustness curves; name a run of another task" in said


def test_an_artifact_that_a_task_refuses_is_named(atmc: Run, theirs: Path) -> None:
    (theirs / "artifacts" / "00000.atmc").write_bytes(b"rotten")
    assert "the artifact of trial 0 is not the file that was measured" in one_line(atmc("verify", "theirs", "--trust"))
    folder = RunFolder(theirs)
    columns = (*STUDY_COLUMNS, Column("error_mm", "float64", "mm", ""), *parameter_columns(folder.spec().distributions))
    digest = hashlib.sha256(b"rotten").hexdigest()
    report = {"trial": 0, "state": "complete", "artifact": "artifacts/00000.atmc", "artifact_sha256": digest}
    folder.append({**report, "error_mm": 1, "trial.tree.levels": 3}, columns, 1)
    assert "the artifact of trial 0: rotten; plant it again" in one_line(atmc("verify", "theirs", "--trust"))


def test_columns_of_a_user_s_run_and_task(atmc: Run, theirs: Path) -> None:
    for words in (["columns", "theirs"], ["columns", "--task", "their_trees:Tree"]):
        (line,) = [line for line in atmc(*words).out.splitlines() if line.startswith("error_mm ")]
        assert line.split() == ["error_mm", "float64", "mm", "root", "mean", "square"]
    assert "trial.tree.levels " in atmc("columns", "theirs").out
    assert "task = 'their_trees:Bush': " in one_line(atmc("columns", "--task", "their_trees:Bush"))
    assert "No such option" in one_line(atmc("columns", "theirs", "--trust"))
