"""A small real sweep on the digits: every figure in the tables is true of the files beside them."""

from __future__ import annotations

import hashlib
import json
import sys
from io import StringIO

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from again import measured_again
from rich.console import Console

from atmc_search import cli, front, load_artifact
from atmc_search.data import load_splits
from atmc_search.results import STUDY_COLUMNS, RunFolder, schema_of
from atmc_search.search import StudyResult, run_study
from atmc_search.search.scheduler import Rungs
from atmc_search.spec import StudySpec, parse_study
from atmc_search.tasks import TrialSpace
from atmc_search.tasks.atmc.columns import ATMC_COLUMNS

pytestmark = pytest.mark.usefixtures("ray_here")


def digits(trials: int) -> StudySpec:
    return parse_study(
        {
            "name": "small",
            "trial": {
                "data": {"name": "digits", "train_size": 512, "validation_size": 200, "test_size": 100},
                "model": {"name": "small_cnn", "width": 4},
                "threat": {"eps": 0.05},
                "dense": {"epochs": 4, "lr": 0.1, "batch_size": 32, "attack": {"name": "pgd", "steps": 1}},
                "train": {
                    "epochs": 3,
                    "lr": {"log_uniform": [0.01, 0.1]},
                    "batch_size": 32,
                    "attack": {"name": "pgd", "steps": 1},
                },
                "compress": {
                    "factors": {"choice": ["none", "uvc"]},
                    "keep": {"log_uniform": [0.05, 0.9]},
                    "bits": {"choice": [2, 4, 8]},
                    "dual_every": 4,
                },
                "evaluate": {"attack": {"name": "pgd", "steps": 3}},
                "seed": 40,
            },
            "search": {
                "trials": trials,
                "sampler": {"name": "random"},
                "scheduler": {"name": "mo_asha", "grace_epochs": 1, "reduction_factor": 2},
                "seed": 3,
            },
        }
    )


@pytest.fixture(scope="module")
def said() -> StringIO:
    return StringIO()


@pytest.fixture(scope="module")
def result(ray_here: None, tmp_path_factory: pytest.TempPathFactory, said: StringIO) -> StudyResult:
    return run_study(digits(6), runs=tmp_path_factory.mktemp("runs"), console=Console(file=said, width=80))


@pytest.fixture(scope="module")
def trials(result: StudyResult) -> pd.DataFrame:
    return pd.read_parquet(result.folder.path / "trials.parquet")


def test_every_trial_ends(result: StudyResult, trials: pd.DataFrame, said: StringIO) -> None:
    assert (result.ran, result.interrupted) == (6, False)
    assert trials["trial"].tolist() == list(range(6))
    assert set(trials["state"]) == {"complete", "stopped"}
    assert trials["seed"].tolist() == [40 + number for number in range(6)]
    assert (trials["fingerprint"] == TrialSpace.of(digits(6)).study.fingerprint).all()
    assert trials["trial_fingerprint"].nunique() == 6
    complete = trials[trials["state"] == "complete"]
    assert (complete["epoch"] == complete["epochs"]).all()
    for name in ("host", "device", "torch_version", "ray_version", "optuna_version", "python_version"):
        assert trials[name].notna().all()
    lines = [line for line in said.getvalue().splitlines() if line.startswith("trial ")]
    assert len(lines) == 6
    assert " | 6/6 trials, " in lines[-1]


def test_columns_are_typed_and_filled(result: StudyResult, trials: pd.DataFrame) -> None:
    columns = (*STUDY_COLUMNS, *ATMC_COLUMNS, *TrialSpace.of(digits(6)).parameter_columns)
    for name in ("trials.parquet", "front.parquet"):
        assert pq.read_schema(result.folder.path / name).equals(schema_of(columns))
    empty = [column.name for column in columns if column.needs is None and trials[column.name].isna().all()]
    assert empty == []
    assert trials["masking_flags"].notna().all()  # of stopped trials too: any measurement may be a trial's last
    assert set(trials["trial.compress.factors"]) <= {"none", "uvc"}
    assert set(trials["trial.compress.bits"]) <= {2, 4, 8}
    assert trials["trial.compress.bits"].dtype == np.int64
    assert trials["trial.compress.keep"].between(0.05, 0.9).all()
    for column in ATMC_COLUMNS:
        if column.needs is None and column.kind in ("int64", "float64"):
            assert trials[column.name].between(column.low, column.high).all(), column.name


def test_sizes_and_hashes_are_those_of_the_files(result: StudyResult, trials: pd.DataFrame) -> None:
    for _, row in trials.iterrows():
        data = (result.folder.path / row["artifact"]).read_bytes()
        assert row["size_bytes"] == len(data)
        assert row["artifact_sha256"] == hashlib.sha256(data).hexdigest()
    assert len(list(result.folder.artifacts.iterdir())) == 6


def test_accuracies_are_those_of_the_files(result: StudyResult, trials: pd.DataFrame) -> None:
    """Clean accuracy counted here, by nothing but the loaded model."""
    space = TrialSpace.of(digits(6))
    for _, row in trials.iterrows():
        trial = space.fill({path: row[path] for path in space.distributions})
        validation = load_splits(trial.data).validation
        model = load_artifact(result.folder.path / row["artifact"])
        with torch.no_grad():
            predicted = model(torch.from_numpy(validation.images).float() / 255).argmax(1).numpy()
        assert row["validation_images"] == len(validation) == 200
        assert row["clean_accuracy"] == (predicted == validation.labels).mean()
        assert 0 <= row["robust_accuracy"] <= row["clean_accuracy"]
        assert row["clean_accuracy_low"] <= row["clean_accuracy"] <= row["clean_accuracy_high"]


def test_measuring_again_gives_the_same_digits(result: StudyResult, trials: pd.DataFrame) -> None:
    again = list(measured_again(result.folder, trials, split="validation"))
    assert [row["trial"] for row in again] == trials["trial"].tolist()
    for name in ("size_bytes", "clean_accuracy", "robust_accuracy"):
        assert [row[name] for row in again] == trials[name].tolist()
        assert [row[f"recorded_{name}"] for row in again] == trials[name].tolist()
    assert {row["images"] for row in again} == {200}
    assert {row["images"] for row in measured_again(result.folder, trials.head(2), split="test")} == {100}


def test_the_dense_start_is_trained_once(result: StudyResult, trials: pd.DataFrame) -> None:
    start, figures = sorted(path.stem for path in result.folder.starts.iterdir())  # the model, and what it measures
    assert figures.startswith(f"{start}-")
    for name in ("dense_s", "dense_size_bytes", "dense_clean_accuracy", "dense_robust_accuracy"):
        assert trials[name].nunique() == 1
    assert trials["dense_clean_accuracy"][0] > 0.3  # it was trained


def test_the_front_is_of_these_trials(result: StudyResult, trials: pd.DataFrame) -> None:
    on_disk = pd.read_parquet(result.folder.path / "front.parquet")
    assert on_disk["trial"].tolist() == front(result.folder.read_trials())["trial"].tolist()
    values = trials[["size_bytes", "clean_accuracy", "robust_accuracy"]].to_numpy(float) * [1, -1, -1]
    best = [
        i
        for i, row in enumerate(values)
        if not any((other <= row).all() and ((other < row).any() or j < i) for j, other in enumerate(values) if j != i)
    ]
    assert sorted(on_disk["trial"]) == best
    assert result.hypervolume is not None
    assert result.hypervolume > 0


def test_trials_were_stopped_by_the_rule(result: StudyResult, trials: pd.DataFrame) -> None:
    spec = TrialSpace.of(digits(6)).study
    rungs = Rungs(spec.objectives, spec.search.scheduler)
    reports = result.folder.read_reports()
    for row in reports.to_dict("records"):
        if row["state"] in ("running", "stopped"):
            metrics = {name: None if pd.isna(row[name]) else row[name] for name in spec.objectives}
            goes_on = rungs.record(row["trial"], row["epoch"], row["epochs"], metrics) if row["epoch"] else True
            assert goes_on == (row["state"] == "running")
    stopped = trials[trials["state"] == "stopped"]
    assert dict(zip(stopped["trial"], stopped["reason"], strict=True)) == rungs.reasons
    assert len(stopped)


def test_the_command_line_reads_the_run(
    result: StudyResult, trials: pd.DataFrame, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["atmc-search", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 0
        return capsys.readouterr().out

    path = result.folder.path
    rows = json.loads(run("verify", path, "--split", "validation", "--trial", 0, "--trial", 3, "--json"))
    assert [row["trial"] for row in rows] == [0, 3]
    for row in rows:
        assert row["clean_accuracy"] == row["recorded_clean_accuracy"] == trials["clean_accuracy"][row["trial"]]
    assert "n = 100 test images" in run("verify", path, "--steps", 1)
    assert run("report", path).startswith("wrote ")


def test_again_runs_nothing_and_more_trials_run_only_the_rest(result: StudyResult, trials: pd.DataFrame) -> None:
    folder: RunFolder = result.folder
    said = StringIO()

    def go_on(count: int) -> StudyResult:
        return run_study(digits(count), runs=folder.path.parent, console=Console(file=said))

    reports = folder.next_report()
    again = go_on(6)
    assert (again.ran, again.interrupted) == (0, False)
    assert folder.next_report() == reports
    assert again.hypervolume == pytest.approx(result.hypervolume)

    more = go_on(8)
    assert (more.ran, more.interrupted) == (2, False)
    assert more.trials["trial"].tolist() == list(range(8))
    assert set(folder.read_reports()["trial"][reports:]) == {6, 7}
    pd.testing.assert_frame_equal(pd.read_parquet(folder.path / "trials.parquet").head(6), trials)
    assert len(list(folder.starts.iterdir())) == 2
    assert more.trials["dense_s"].nunique() == 1
    assert folder.spec().search.trials == 8
