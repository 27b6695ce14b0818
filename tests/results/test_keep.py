"""Which artifacts may go: checked against every front that can be asked for, by the front's own definition."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import atmc_search
from atmc_search.results import Column, RunFolder, front_of
from atmc_search.results.keep import DiskUse, on_a_front
from atmc_search.spec import BoundSpec, StudySpec

STATES = ("complete", "stopped", "running", "failed", "interrupted")
value = st.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan, np.inf])
rows = st.lists(st.tuples(st.sampled_from(STATES), value, value, value), min_size=1, max_size=10)
bounds = st.dictionaries(
    st.sampled_from("abc"), st.builds(lambda low: BoundSpec(min=low), st.sampled_from([0.5, 1.0, 2.0])), max_size=2
)


@settings(deadline=None, max_examples=50)
@given(rows, st.lists(st.sampled_from(["min", "max"]), min_size=1, max_size=3), bounds, st.randoms())
def test_whoever_is_on_a_front_that_can_be_asked_for_is_kept(
    made: list[tuple[Any, ...]], directions: list[str], constraints: dict[str, BoundSpec], chance: Any
) -> None:
    trials = pd.DataFrame(made, columns=["state", "a", "b", "c"]).assign(trial=range(len(made)))
    objectives = dict(zip("abc", directions, strict=False))
    kept = set(trials.loc[on_a_front(trials, objectives, constraints), "trial"])
    needed: set[int] = set()
    order = list(range(len(made)))
    for _ in range(2):  # of trials that tie, a front shows the first of the table that it is given
        for size in range(1, len(objectives) + 1):
            for some in combinations(objectives, size):
                asked = {name: objectives[name] for name in some}
                for within in (None, constraints):
                    needed |= set(front_of(trials.iloc[order], asked, within)["trial"])
        chance.shuffle(order)
    assert needed <= kept
    assert all(trials.loc[trial, "state"] in ("complete", "stopped") for trial in kept)


@settings(deadline=None, max_examples=50)
@given(rows, st.sampled_from(["a", "b", "c"]), st.floats(0, 3), st.floats(0, 3))
def test_what_choose_finds_under_bounds_on_objectives_is_kept(
    made: list[tuple[Any, ...]], best: str, most: float, least: float
) -> None:
    trials = pd.DataFrame(made, columns=["state", "a", "b", "c"]).assign(trial=range(len(made)))
    objectives = {"a": "min", "b": "max", "c": "max"}
    decision = atmc_search.choose(trials, best=best, max={"a": most}, min={"b": least}, objectives=objectives)
    if decision.trial is not None and np.isfinite([decision.trial[name] for name in "abc"]).all():
        assert on_a_front(trials, objectives, {})[decision.trial["trial"]]


def test_what_is_dropped_is_dominated_and_stays_so() -> None:
    generator = np.random.default_rng(0)
    trials = pd.DataFrame(generator.random((60, 3)), columns=["a", "b", "c"]).assign(state="complete", trial=range(60))
    objectives = {"a": "min", "b": "max", "c": "min"}
    kept = [set(np.flatnonzero(on_a_front(trials.head(count), objectives, {}))) for count in range(1, 61)]
    for count, (before, after) in enumerate(pairwise(kept), start=1):
        assert after <= before | {count}  # nothing that was dropped is wanted again
    assert len(kept[-1]) < 30


def test_many_objectives_do_not_take_for_ever() -> None:
    names = [f"m{i}" for i in range(20)]
    trials = pd.DataFrame(np.random.default_rng(0).random((50, 20)), columns=names).assign(state="complete")
    assert on_a_front(trials, dict.fromkeys(names, "min"), {}).all()  # 1,351 fronts, not 2^20


@pytest.fixture
def sweep(
    tmp_path: Path, make_study: Callable[..., StudySpec], table: tuple[Column, ...], row: Callable[..., dict[str, Any]]
) -> Callable[[str], tuple[RunFolder, StudySpec]]:
    """A sweep of seven trials, by what is to be kept: two on the front, two beaten, and three that are not done."""

    def make(keep: str) -> tuple[RunFolder, StudySpec]:
        spec = make_study(storage={"keep_artifacts": keep}, constraints={"clean_accuracy": {"min": 0.5}})
        folder = RunFolder(tmp_path / keep)
        outcomes = [
            ("complete", 900, 0.9, 0.5),
            ("complete", 901, 0.8, 0.4),  # beaten by trial 0 in all
            ("stopped", 100, 0.6, 0.1),
            ("stopped", 90, 0.4, 0.0),  # outside the bound, but smallest of all
            ("running", 950, 0.1, 0.1),
            ("interrupted", 950, 0.1, 0.1),
            ("failed", 100, 0.5, 0.1),
            ("complete", 120, 0.6, 0.0),  # beaten by trial 2
        ]
        with folder.locked(spec):
            for number, (state, size, clean, robust) in enumerate(outcomes):
                path, _ = folder.write_artifact(number, bytes(size))
                metrics = {"size_bytes": size, "clean_accuracy": clean, "robust_accuracy": robust, "artifact": path}
                folder.append(row(number, state, **metrics), table, number)
            (folder.starts / "dense.safetensors").write_bytes(bytes(5000))
            folder.derive(spec, table)
        return folder, spec

    return make


def test_artifacts_that_no_front_needs_go_and_are_counted(sweep: Callable[[str], tuple[RunFolder, StudySpec]]) -> None:
    folder, _ = sweep("front")
    left = sorted(int(path.stem) for path in folder.artifacts.iterdir())
    assert left == [0, 2, 3, 4, 5]
    assert folder.freed == DiskUse(3, 901 + 100 + 120)
    use = folder.disk_use()
    assert use["artifacts"] == DiskUse(5, 900 + 100 + 90 + 950 + 950)
    assert use["starts"] == DiskUse(1, 5000)
    assert use["reports"].files == 8
    assert sum(part.size_bytes for part in use.values()) == sum(
        path.stat().st_size for path in folder.path.rglob("*") if path.is_file()
    )
    for trials in (folder.read_trials(), pd.read_parquet(folder.path / "trials.parquet")):
        assert trials.loc[trials["artifact"].notna(), "trial"].tolist() == left
    front = pd.read_parquet(folder.path / "front.parquet")
    assert front["artifact"].tolist() == ["artifacts/00002.atmc", "artifacts/00000.atmc"]
    for name in front["artifact"]:
        assert (folder.path / name).is_file()


def test_by_default_every_artifact_stays(sweep: Callable[[str], tuple[RunFolder, StudySpec]]) -> None:
    folder, _ = sweep("all")
    assert len(list(folder.artifacts.iterdir())) == 8
    assert folder.freed == DiskUse()
    assert folder.read_trials()["artifact"].notna().all()


def test_a_study_may_change_its_mind(
    sweep: Callable[[str], tuple[RunFolder, StudySpec]], table: tuple[Column, ...], tmp_path: Path
) -> None:
    folder, spec = sweep("all")
    fewer = spec.model_copy(update={"storage": spec.storage.model_copy(update={"keep_artifacts": "front"})})
    assert fewer.fingerprint == spec.fingerprint
    with folder.locked(fewer):
        folder.derive(fewer, table)
    assert folder.freed.files == 3


def test_a_row_that_points_elsewhere_costs_nothing_there(
    sweep: Callable[[str], tuple[RunFolder, StudySpec]],
    table: tuple[Column, ...],
    row: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    folder, spec = sweep("front")
    mine = tmp_path / "mine"
    mine.write_text("mine")
    values = {"size_bytes": 999, "clean_accuracy": 0.1, "robust_accuracy": 0.0, "artifact": "../mine"}
    with folder.locked(spec):
        folder.append(row(9, "complete", **values), table, 8)
        folder.derive(spec, table)
    assert mine.read_text() == "mine"
