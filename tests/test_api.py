"""Reading a run, its front, choosing from it and loading what was chosen, as a user's Python would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import atmc_search
from atmc_search.data import Splits
from atmc_search.errors import ArtifactError, AtmcError, RunError
from atmc_search.pareto import Bound
from atmc_search.results import STUDY_COLUMNS, RunFolder, parameter_columns
from atmc_search.spec import parse_study
from atmc_search.tasks import Start
from atmc_search.tasks.atmc import AtmcTask
from atmc_search.tasks.atmc.columns import ATMC_COLUMNS
from atmc_search.tasks.atmc.spec import AtmcSpec

OBJECTIVES = {"size_bytes": "min", "clean_accuracy": "max", "robust_accuracy": "max"}
ROWS: list[tuple[str, int | None, float | None, float | None]] = [
    ("complete", 1000, 0.90, 0.50),  # 0
    ("stopped", 500, 0.80, 0.40),  # 1
    ("complete", 2000, 0.95, 0.60),  # 2
    ("complete", 900, 0.30, 0.55),  # 3: outside the study's constraint
    ("failed", None, None, None),  # 4
    ("complete", 1500, 0.85, 0.45),  # 5: dominated by 0
    ("running", 100, 0.99, 0.99),  # 6: not over
    ("complete", 3000, 0.95, 0.60),  # 7: ties with 2 in accuracies
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = parse_study(
        {
            "name": "made",
            "trial": {
                "data": {"name": "digits"},
                "model": {"name": "small_cnn", "width": 4},
                "threat": {"eps": 0.1},
                "dense": {"epochs": 1},
                "train": {"epochs": 1},
                "compress": {"keep": {"uniform": [0.1, 0.9]}},
            },
            "objectives": OBJECTIVES,
            "constraints": {"clean_accuracy": {"min": 0.5}},
            "search": {"trials": 8},
        }
    )
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "made")
    folder.create(spec)
    columns = (*STUDY_COLUMNS, *ATMC_COLUMNS, *parameter_columns(spec.distributions))
    for number, (state, size, clean, robust) in enumerate(ROWS):
        row: dict[str, Any] = {"trial": number, "state": state, "trial.compress.keep": 0.1 + number / 10}
        row |= {"size_bytes": size, "clean_accuracy": clean, "robust_accuracy": robust}
        row["artifact"] = None if state == "failed" else f"artifacts/{number:05d}.atmc"
        folder.append(row, columns, number)
    return folder.path


@pytest.fixture
def trials(run: Path) -> pd.DataFrame:
    return atmc_search.load_trials(run)


def test_trials_bring_their_objectives_along(run: Path) -> None:
    for path in (run, str(run)):
        trials = atmc_search.load_trials(path)
        assert trials["trial"].tolist() == list(range(8))
        assert trials.attrs["name"] == "made"
        assert trials.attrs["objectives"] == OBJECTIVES
        assert trials.attrs["constraints"] == {"clean_accuracy": {"min": 0.5, "max": None}}


def test_a_folder_that_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no spec\.yaml"):
        atmc_search.load_trials(tmp_path)


def test_the_front_is_the_study_s_unless_told_otherwise(trials: pd.DataFrame) -> None:
    def front(*args: Any, **kwargs: Any) -> list[int]:
        return atmc_search.front(trials, *args, **kwargs)["trial"].tolist()

    assert front() == [1, 0, 2]
    # given objectives come without the study's constraints: trial 3 counts
    assert front(OBJECTIVES) == [1, 3, 0, 2]
    assert front(OBJECTIVES, {"clean_accuracy": {"min": 0.5}}) == [1, 0, 2]
    assert front(constraints={"size_bytes": {"max": 900, "min": 600}}) == [3]
    assert front({"clean_accuracy": "max"}) == [2]
    assert front({"size_bytes": "max"}) == [7]
    assert front(constraints={}) == [1, 3, 0, 2]


def test_the_front_of_a_part_and_of_several_studies(trials: pd.DataFrame) -> None:
    part = trials[trials["trial"] >= 2]
    assert atmc_search.front(part)["trial"].tolist() == [5, 2]  # without 0, nothing dominates 5
    both = pd.concat([trials, trials.assign(size_bytes=trials["size_bytes"] - 1)])
    front = atmc_search.front(both, {"size_bytes": "min", "clean_accuracy": "max"})
    assert front["size_bytes"].tolist() == [499, 999, 1999]


def test_a_front_needs_objectives_that_are_there(trials: pd.DataFrame) -> None:
    bare = pd.DataFrame(trials.to_dict("list"))
    with pytest.raises(AtmcError, match="names no objectives; pass objectives="):
        atmc_search.front(bare)
    with pytest.raises(AtmcError, match="did you mean 'size_bytes'"):
        atmc_search.front(trials, {"size_byte": "min"})
    with pytest.raises(AtmcError, match=r"objectives\['size_bytes'\] = 'smallest'.*'min' or 'max'"):
        atmc_search.front(trials, {"size_bytes": "smallest"})
    with pytest.raises(AtmcError, match="'cleann_accuracy': no such column; did you mean 'clean_accuracy'"):
        atmc_search.front(trials, constraints={"cleann_accuracy": {"min": 0.5}})
    with pytest.raises(AtmcError, match=r"constraints\.clean_accuracy\.least: unknown key"):
        atmc_search.front(trials, constraints={"clean_accuracy": {"least": 0.5}})


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        ({"best": "robust_accuracy"}, 2),  # 7 ties, and is larger
        ({"best": "size_bytes"}, 1),
        ({"best": "max:size_bytes"}, 7),
        ({"best": "robust_accuracy", "max": {"size_bytes": 1999}}, 0),  # 3 is outside the study's constraint
        ({"best": "robust_accuracy", "max": {"size_bytes": 1999}, "constraints": {}}, 3),
        ({"best": "robust_accuracy", "constraints": {"size_bytes": {"max": 1999, "min": 901}}}, 0),
        ({"best": "size_bytes", "constraints": {"size_bytes": {"min": 901}}}, 0),
        ({"best": "robust_accuracy", "max": {"size_bytes": 1999}, "min": {"clean_accuracy": 0.5}}, 0),
        ({"best": "robust_accuracy", "max": {"size_bytes": 2000}, "min": {"clean_accuracy": 0.95}}, 2),
        ({"best": "min:trial.compress.keep"}, 0),
        ({"best": "min:clean_accuracy"}, 1),
        ({"best": "min:clean_accuracy", "constraints": {}}, 3),
        ({"best": "clean_accuracy", "objectives": {"clean_accuracy": "max", "size_bytes": "max"}}, 7),
    ],
)
def test_choose(trials: pd.DataFrame, arguments: dict[str, Any], taken: int) -> None:
    decision = atmc_search.choose(trials, **arguments)
    assert decision.trial is not None
    assert decision.trial["trial"] == taken
    assert decision.text.startswith(f"trial {taken}: ")
    assert f"artifact: {trials.attrs['folder']}/artifacts/{taken:05d}.atmc" in decision.text


def test_choose_says_why(trials: pd.DataFrame) -> None:
    decision = atmc_search.choose(trials, best="robust_accuracy", max={"size_bytes": 1500}, min={"clean_accuracy": 0.5})
    assert decision.text.splitlines() == [
        "trial 0: size_bytes 1,000, clean_accuracy 0.9, robust_accuracy 0.5",
        "highest robust_accuracy of the 3 (of 6) measured trials within size_bytes <= 1,500 and clean_accuracy >= 0.5 "
        "and the study's constraints (clean_accuracy >= 0.5)",
        "next best: trial 5, size_bytes 1,500, clean_accuracy 0.85, robust_accuracy 0.45",
        f"artifact: {trials.attrs['folder']}/artifacts/00000.atmc",
    ]


def test_choose_warns_of_gradient_masking(trials: pd.DataFrame) -> None:
    flagged = trials.assign(masking_flags="")
    flagged.attrs = trials.attrs
    assert "masking" not in atmc_search.choose(flagged, best="robust_accuracy").text
    flagged["masking_flags"] = "steps,transfer"
    text = atmc_search.choose(flagged, best="robust_accuracy").text
    assert "beware: it fails checks against gradient masking (steps,transfer)" in text


def test_choose_says_which_bound_to_relax(trials: pd.DataFrame) -> None:
    decision = atmc_search.choose(trials, best="robust_accuracy", max={"size_bytes": 600}, min={"clean_accuracy": 0.9})
    assert decision.trial is None
    lines = decision.text.splitlines()
    assert lines[0] == (
        "none of 6 measured trials is within size_bytes <= 600 and clean_accuracy >= 0.9 "
        "and the study's constraints (clean_accuracy >= 0.5)"
    )
    assert lines[1:] == [
        "raise --max size_bytes from 600 to 1,000 (by 400): then trial 0 with robust_accuracy 0.5",
        "lower --min clean_accuracy from 0.9 to 0.8 (by 0.1): then trial 1 with robust_accuracy 0.4",
    ]
    # what is said holds
    decision = atmc_search.choose(trials, best="robust_accuracy", max={"size_bytes": 1000}, min={"clean_accuracy": 0.9})
    assert decision.trial is not None
    assert decision.trial["trial"] == 0


def test_choose_relaxes_bounds_together_where_none_alone_helps(trials: pd.DataFrame) -> None:
    decision = atmc_search.choose(trials, best="clean_accuracy", max={"size_bytes": 400}, min={"robust_accuracy": 0.9})
    assert decision.trial is None
    assert [line.split(" from ")[0] for line in decision.text.splitlines()[1:]] == [
        "together: raise --max size_bytes",
        "and: lower --min robust_accuracy",
    ]


def test_choose_keeps_the_study_s_constraints_and_says_how_far_they_are_in_the_way(trials: pd.DataFrame) -> None:
    within = {"size_bytes": 950}
    assert atmc_search.choose(trials, best="robust_accuracy", max=within, constraints={}).text.startswith("trial 3: ")
    assert atmc_search.choose(trials, best="robust_accuracy", max=within).text.startswith("trial 1: ")  # 3 is outside
    decision = atmc_search.choose(trials, best="robust_accuracy", max=within, min={"robust_accuracy": 0.55})
    assert decision.trial is None
    assert decision.text.splitlines()[1:] == [
        "raise --max size_bytes from 950 to 2,000 (by 1,050): then trial 2 with robust_accuracy 0.6",
        "lower --min robust_accuracy from 0.55 to 0.4 (by 0.15): then trial 1 with robust_accuracy 0.4",
        "lower the study's constraints.clean_accuracy.min from 0.5 to 0.3 (by 0.2): then trial 3 with robust_accuracy "
        "0.55",
    ]


def test_a_bound_that_is_asked_for_and_the_study_s_own_has_to_give_way_in_both_places(trials: pd.DataFrame) -> None:
    same = {"clean_accuracy": {"min": 0.96}}
    decision = atmc_search.choose(trials, best="size_bytes", min={"clean_accuracy": 0.96}, constraints=same)
    assert decision.text.splitlines()[1:] == [
        "lower --min clean_accuracy and the study's constraints.clean_accuracy.min from 0.96 to 0.95 (by 0.01): then "
        "trial 2 with size_bytes 2,000"
    ]


def test_a_metric_that_is_no_objective_has_the_direction_that_its_column_gives(trials: pd.DataFrame) -> None:
    counted = trials.assign(nnz=[70, 60, 50, 40, 30, 20, 10, 80])
    counted.attrs = trials.attrs
    decision = atmc_search.choose(counted, best="nnz")
    assert (decision.direction, decision.trial is not None and decision.trial["trial"]) == ("min", 5)
    assert "lowest nnz of the 5 (of 6) measured trials" in decision.text
    assert atmc_search.choose(counted, best="max:nnz").text.startswith("trial 7: ")
    bare = counted.copy()
    bare.attrs = {key: value for key, value in trials.attrs.items() if key != "columns"}
    with pytest.raises(AtmcError, match="its direction is unknown; write max:nnz"):
        atmc_search.choose(bare, best="nnz")


def test_a_decision_is_data_before_it_is_words(trials: pd.DataFrame) -> None:
    flagged = trials.assign(masking_flags="steps")
    flagged.attrs = trials.attrs
    decision = atmc_search.choose(flagged, best="robust_accuracy", max={"size_bytes": 1500})
    assert decision.trial is not None
    assert decision.runner_up is not None
    assert (decision.trial["trial"], decision.runner_up["trial"]) == (0, 5)
    assert (decision.metric, decision.direction) == ("robust_accuracy", "max")
    assert decision.bounds == (Bound("size_bytes", 1500, "max"),)
    assert decision.constraints == (Bound("clean_accuracy", 0.5, "min"),)
    assert (decision.measured, decision.candidates, decision.relaxations) == (6, 3, ())
    assert decision.shown == ("size_bytes", "clean_accuracy", "robust_accuracy")
    assert decision.warnings == (
        "it fails checks against gradient masking (steps), its robust accuracy may be a mirage",
    )
    assert decision.artifact == Path(trials.attrs["folder"]) / "artifacts" / "00000.atmc"
    assert decision.text.splitlines() == [
        "trial 0: size_bytes 1,000, clean_accuracy 0.9, robust_accuracy 0.5",
        "highest robust_accuracy of the 3 (of 6) measured trials within size_bytes <= 1,500 and the study's "
        "constraints (clean_accuracy >= 0.5)",
        "next best: trial 5, size_bytes 1,500, clean_accuracy 0.85, robust_accuracy 0.45",
        f"beware: {decision.warnings[0]}",
        f"artifact: {decision.artifact}",
    ]
    (found,) = atmc_search.choose(trials, best="size_bytes", min={"robust_accuracy": 0.7}).relaxations
    assert (found.trial, found.value, found.relaxation.needed, found.relaxation.together) == (2, 2000, 0.6, False)


def test_nothing_measured_is_nothing_chosen(trials: pd.DataFrame) -> None:
    for rows in (trials[trials["state"] == "failed"], trials.iloc[:0]):
        decision = atmc_search.choose(rows, best="clean_accuracy", constraints={})
        assert decision.trial is None
        assert decision.text.startswith("none of 0 measured trials has a clean_accuracy")
        decision = atmc_search.choose(rows, best="clean_accuracy")
        assert decision.trial is None
        assert decision.text.startswith("none of 0 measured trials is within the study's constraints")


def test_a_missing_tie_breaker_does_not_stop_the_choice(trials: pd.DataFrame) -> None:
    trials.loc[trials["trial"] == 2, "size_bytes"] = pd.NA
    decision = atmc_search.choose(trials, best="min:trial.compress.keep", min={"clean_accuracy": 0.94})
    assert decision.text.startswith("trial 2: size_bytes unknown, clean_accuracy 0.95")
    # an objective that is no column at all (two studies in one table, say) is left out
    decision = atmc_search.choose(trials, best="clean_accuracy", objectives={"clean_accuracy": "max", "latency": "min"})
    assert "latency" not in decision.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"best": "loss"}, "best = 'loss': no objective of the study.*write max:loss"),
        ({"best": "up:size_bytes"}, "direction is unknown"),
        ({"best": "max:accuracy"}, "'accuracy': not a metric of these results; did you mean"),
        ({"best": "max:state"}, "'state': not a metric"),
        (
            {"best": "size_bytes", "max": {"size": 5}},
            "'size': not a metric .* did you mean 'size_bytes'",
        ),
        ({"best": "size_bytes", "min": {"clean_accuracy": float("nan")}}, "finite"),
        ({"best": "size_bytes", "objectives": {"size_bytes": "down"}}, "'down': no direction"),
        ({"best": "size_bytes", "constraints": {"sizes": {"max": 5}}}, "constraint on 'sizes': not a metric"),
        ({"best": "size_bytes", "constraints": {"state": {"max": 5}}}, "constraint on 'state': not a metric"),
        ({"best": "size_bytes", "constraints": {"nnz": {"most": 5}}}, r"constraints\.nnz\.most: unknown key"),
        ({"best": "size_bytes", "constraints": {"nnz": {"min": 5, "max": 3}}}, "nothing can meet both"),
        ({"best": "size_bytes", "min": {"nnz": 5}, "max": {"nnz": 3}}, "no value is both"),
    ],
)
def test_choose_refuses_what_makes_no_sense(trials: pd.DataFrame, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(AtmcError, match=words):
        atmc_search.choose(trials, **arguments)


@pytest.fixture(scope="module")
def artifact(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_trial: Callable[..., AtmcSpec],
    tiny_splits: Splits,
    tiny_start: Start,
) -> Path:
    task = AtmcTask(tiny_trial(), tiny_splits, tiny_start, device="cpu", meta={})
    task.step()
    path = tmp_path_factory.mktemp("artifact") / "model.atmc"
    path.write_bytes(task.artifact())
    return path


def test_an_artifact_loads_ready_to_use(artifact: Path) -> None:
    for path in (artifact, str(artifact)):
        model = atmc_search.load_artifact(path)
        assert not model.training
        assert next(model.parameters()).device.type == "cpu"
        assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "cut", "flipped", "text"])
def test_what_cannot_be_loaded_is_named(artifact: Path, tmp_path: Path, damage: str) -> None:
    data = artifact.read_bytes()
    path = tmp_path / "broken.atmc"
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        flipped = data[:100] + bytes([data[100] ^ 1]) + data[101:]
        path.write_bytes({"empty": b"", "cut": data[:-1], "flipped": flipped, "text": b"hello"}[damage])
    with pytest.raises(ArtifactError) as error:
        atmc_search.load_artifact(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_the_public_names_are_there() -> None:
    assert all(hasattr(atmc_search, name) for name in atmc_search.__all__)
    assert len(atmc_search.__all__) == len(set(atmc_search.__all__))
