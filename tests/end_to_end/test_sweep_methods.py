"""A sweep that mixes methods: trials have only the values that their method uses, in every table and after a stop."""

from __future__ import annotations

from io import StringIO

import pandas as pd
import pytest
from again import measured_again
from rich.console import Console

from atmc_search import front
from atmc_search.search import StudyResult, run_study
from atmc_search.search.sampler import OptunaSearcher
from atmc_search.spec import StudySpec, parse_study
from atmc_search.tasks import TrialSpace

pytestmark = pytest.mark.usefixtures("ray_here")


def mixed(trials: int) -> StudySpec:
    fgsm = {"name": "fgsm"}
    return parse_study(
        {
            "name": "mixed",
            "trial": {
                "method": {"choice": ["nap", "al0", "atmc"]},
                "data": {"name": "digits", "train_size": 256, "validation_size": 100, "test_size": 50},
                "model": {"name": "small_cnn", "width": 4},
                "threat": {"eps": 0.05},
                "dense": {"epochs": 2, "lr": 0.1, "batch_size": 32, "attack": fgsm},
                "train": {"epochs": 1, "lr": {"log_uniform": [0.01, 0.1]}, "batch_size": 32, "attack": fgsm},
                "compress": {"keep": {"log_uniform": [0.05, 0.9]}, "bits": {"choice": [2, 4, 8]}, "dual_every": 4},
                "evaluate": {"attack": {"name": "pgd", "steps": 2}, "masking_images": 20},
            },
            "search": {"trials": trials, "sampler": {"name": "random"}, "seed": 1},
        }
    )


@pytest.fixture(scope="module")
def result(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    return run_study(mixed(6), runs=tmp_path_factory.mktemp("runs"), console=Console(file=StringIO()))


def test_values_that_a_method_fixes_are_missing_and_no_others(result: StudyResult) -> None:
    trials = pd.read_parquet(result.folder.path / "trials.parquet")
    assert set(trials["state"]) == {"complete"}
    assert set(trials["trial.method"]) == {"nap", "al0", "atmc"}
    atmc = trials["trial.method"] == "atmc"
    assert trials.loc[atmc, "trial.compress.bits"].isin([2, 4, 8]).all()
    assert trials.loc[~atmc, "trial.compress.bits"].isna().all()
    assert trials[["trial.train.lr", "trial.compress.keep"]].notna().all(axis=None)
    assert trials["dense_clean_accuracy"].nunique() == 2  # nap starts from a model of its own


def test_measuring_again_and_choosing_work_on_every_method(result: StudyResult) -> None:
    trials = result.folder.read_trials()
    again = list(measured_again(result.folder, trials, split="validation"))
    assert [row["robust_accuracy"] for row in again] == trials["robust_accuracy"].tolist()
    assert len(front(trials)) > 0


def test_a_study_that_goes_on_replays_them_as_they_were(result: StudyResult) -> None:
    folder = result.folder
    trials = folder.read_trials()
    space = TrialSpace.of(mixed(8))
    searcher = OptunaSearcher(space, earlier=6)
    for row in trials.to_dict("records"):
        searcher.replay(row["trial"], {path: row[path] for path in space.distributions}, row["state"], row)
    for frozen, row in zip(searcher.study.trials, trials.to_dict("records"), strict=True):
        used = {path for path in space.distributions if path != "trial.compress.bits" or row["trial.method"] == "atmc"}
        assert frozen.params == {path: row[path] for path in used}
    more = run_study(mixed(8), runs=folder.path.parent, console=Console(file=StringIO()))
    assert more.ran == 2
    assert len(pd.read_parquet(folder.path / "trials.parquet")) == 8
