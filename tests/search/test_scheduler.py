"""Rungs against the rule written out literally, and their way into Ray's scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from atmc_search.search.sampler import TRIAL_NUMBER
from atmc_search.search.scheduler import Rungs, StudyScheduler, make_scheduler
from atmc_search.search.stopping import StopRequest
from atmc_search.spec import SchedulerSpec
from atmc_search.tasks import TrialSpace

TWO = {"size_bytes": "min", "clean_accuracy": "max"}


def rungs(objectives: dict[str, str] | None = None, *, grace: int = 1, factor: float = 3) -> Rungs:
    settings = SchedulerSpec(name="mo_asha", grace_epochs=grace, reduction_factor=factor)
    return Rungs(objectives or TWO, settings)


def place_of_last(vectors: list[tuple[float, ...]]) -> int:
    """The rank of the last vector, from counting and loops: fronts by peeling, then farthest first within a front."""
    n, d = len(vectors), len(vectors[0])

    def dominates(i: int, j: int) -> bool:
        return all(a <= b for a, b in zip(vectors[i], vectors[j], strict=True)) and vectors[i] != vectors[j]

    def quantile(i: int, k: int) -> int:
        return sum(int(v[k] < vectors[i][k]) + int(v[k] <= vectors[i][k]) for v in vectors)

    def squared(one: list[int], other: list[int]) -> int:
        return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))

    points = [[quantile(i, k) for k in range(d)] for i in range(n)]
    order: list[int] = []
    left = list(range(n))
    while left:
        front = [i for i in left if not any(dominates(j, i) for j in left)]
        taken = [min(front, key=lambda i: (max(points[i]), i))]
        while len(taken) < len(front):
            rest = [i for i in front if i not in taken]
            near = {i: min(squared(points[i], points[j]) for j in taken) for i in rest}
            taken.append(min(rest, key=lambda i: (-near[i], i)))
        order += taken
        left = [i for i in left if i not in front]
    return order.index(n - 1)


@pytest.mark.parametrize(
    ("grace", "factor", "epochs", "levels"),
    [
        (1, 3, 30, [1, 3, 9, 27]),
        (1, 3, 27, [1, 3, 9]),  # the last epoch is no rung
        (2, 2, 8, [2, 4]),
        (2, 2, 9, [2, 4, 8]),
        (1, 1.5, 6, [1, 2, 3, 5]),  # 1, 1.5, 2.25, 3.375, 5.06: rounded, each once
        (5, 3, 5, []),
        (1, 3, 1, []),
    ],
)
def test_levels(grace: int, factor: float, epochs: int, levels: list[int]) -> None:
    assert rungs(grace=grace, factor=factor).levels(epochs) == levels


few = st.integers(0, 4)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 10), few, few), max_size=40),
    st.sampled_from([1.5, 2, 3, 4]),
    st.integers(1, 3),
)
def test_verdicts_are_the_rule_itself(reports: list[tuple[int, int, int, int]], factor: float, grace: int) -> None:
    judged = rungs(grace=grace, factor=factor)
    levels = judged.levels(10)
    seen: dict[int, list[int]] = {level: [] for level in levels}
    vectors: dict[int, list[tuple[float, ...]]] = {level: [] for level in levels}
    for number, epoch, size, accuracy in reports:
        verdict = judged.record(number, epoch, 10, {"size_bytes": size, "clean_accuracy": accuracy, "loss": 5})
        reached = [level for level in levels if level <= epoch]
        if epoch == 10 or not reached or number in seen[reached[-1]]:
            assert verdict
            continue
        seen[reached[-1]].append(number)
        at = vectors[reached[-1]]
        at.append((float(size), -float(accuracy)))
        goes_on = place_of_last(at) < len(at) / factor
        assert verdict == goes_on
        if not goes_on:
            place = place_of_last(at) + 1
            assert judged.reasons[number] == f"rank {place} of {len(at)} at the rung of {reached[-1]} epochs"


@pytest.mark.parametrize(("direction", "better", "worse"), [("min", 1.0, 2.0), ("max", 2.0, 1.0)])
def test_directions(direction: str, better: float, worse: float) -> None:
    judged = rungs({"loss": direction}, factor=2)
    assert judged.record(0, 1, 9, {"loss": better})
    assert not judged.record(1, 1, 9, {"loss": worse})
    judged = rungs({"loss": direction}, factor=2)
    assert judged.record(0, 1, 9, {"loss": worse})
    assert judged.record(1, 1, 9, {"loss": better})
    assert judged.reasons == {}


def test_places_are_ranks_not_sorted_indices() -> None:
    # Sizes recorded 2, 3, 1 have ranks 1, 2, 0; sorted indices would be 2, 0, 1 and stop the smallest of all.
    judged = rungs({"size_bytes": "min"}, factor=2)
    assert judged.record(0, 1, 9, {"size_bytes": 2})
    assert not judged.record(1, 1, 9, {"size_bytes": 3})
    assert judged.record(2, 1, 9, {"size_bytes": 1})


@pytest.mark.parametrize("value", [None, math.nan, math.inf, pd.NA, np.nan])
def test_a_report_that_did_not_measure_counts_for_no_rung(value: Any) -> None:
    judged = rungs({"size_bytes": "min"}, factor=2)
    assert judged.record(0, 1, 9, {"size_bytes": value})
    assert judged.record(1, 1, 9, {})
    assert judged.record(2, 1, 9, {"size_bytes": 5})
    assert not judged.record(3, 1, 9, {"size_bytes": 6})
    assert judged.reasons[3] == "rank 2 of 2 at the rung of 1 epochs"  # neither 0 nor 1 stands there
    assert judged.record(0, 2, 9, {"size_bytes": 4})  # measured later, 0 is judged at last: best of three


def test_a_trial_is_judged_once_at_a_rung() -> None:
    judged = rungs({"size_bytes": "min"}, grace=2, factor=2)
    assert judged.record(0, 2, 9, {"size_bytes": 5})
    for number in (1, 2, 3):
        assert not judged.record(number, 2, 9, {"size_bytes": 5 + number})
    # far worse now, but between the rungs of 2 and 4 nobody asks
    assert judged.record(0, 3, 9, {"size_bytes": 99})
    assert judged.record(4, 2, 9, {"size_bytes": 4})
    assert not judged.record(5, 2, 9, {"size_bytes": 10})
    assert judged.reasons[5] == "rank 6 of 6 at the rung of 2 epochs"


@pytest.mark.parametrize("epoch", [9, 10])
def test_the_last_epoch_never_stops(epoch: int) -> None:
    judged = rungs({"size_bytes": "min"}, factor=2)
    for number in range(4):
        judged.record(number, 8, 9, {"size_bytes": 1})
    assert judged.record(9, epoch, 9, {"size_bytes": 99})
    assert sorted(judged.reasons) == [1, 2, 3]


def test_replayed_reports_give_the_same_verdicts() -> None:
    rng = np.random.default_rng(2)
    reports = [
        (int(rng.integers(30)), int(rng.integers(1, 10)), {"size_bytes": rng.random(), "clean_accuracy": rng.random()})
        for _ in range(120)
    ]
    live, replayed = rungs(), rungs()
    for number, epoch, metrics in reports[:80]:
        live.record(number, epoch, 9, metrics)
    for number, epoch, metrics in reports[:80]:
        replayed.replay(number, epoch, 9, dict(metrics))
    assert replayed.reasons == {}  # what was judged is not judged again
    live.reasons.clear()
    assert [live.record(n, e, 9, m) for n, e, m in reports[80:]] == [
        replayed.record(n, e, 9, m) for n, e, m in reports[80:]
    ]
    assert live.reasons == replayed.reasons
    assert live.reasons


def result(epoch: int, size: float, state: str = "running") -> dict[str, Any]:
    return {"report/state": state, "report/epoch": epoch, "report/epochs": 9, "report/size_bytes": size}


def test_ray_is_told_to_stop_what_is_sorted_out() -> None:
    judged = rungs({"size_bytes": "min"}, factor=2)
    stop = StopRequest(20)
    scheduler = StudyScheduler(judged, stop)

    def decide(number: int, report: dict[str, Any]) -> str:
        trial: Any = SimpleNamespace(config={TRIAL_NUMBER: number})
        return scheduler.on_trial_result(None, trial, report)

    assert decide(0, result(1, 5)) == TrialScheduler.CONTINUE
    assert decide(1, result(1, 6)) == TrialScheduler.STOP
    assert decide(2, result(1, 7, "complete")) == TrialScheduler.CONTINUE  # it is over anyway, and took no place
    assert decide(3, result(1, 8, "failed")) == TrialScheduler.CONTINUE
    assert decide(4, result(1, 9)) == TrialScheduler.STOP
    assert judged.reasons[4] == "rank 3 of 3 at the rung of 1 epochs"
    assert not scheduler.supports_buffered_results
    assert decide(5, result(1, 1)) == TrialScheduler.CONTINUE
    stop.request("enough")
    assert decide(6, result(1, 0.5)) == TrialScheduler.STOP  # by the request: it passed its rung
    assert 6 not in judged.reasons


def test_the_scheduler_that_a_study_names(make_trials: Callable[..., TrialSpace]) -> None:
    scheduler, none = make_scheduler(make_trials().study, StopRequest(20))
    assert isinstance(scheduler, FIFOScheduler)
    assert none is None
    named = {"name": "mo_asha", "grace_epochs": 2, "reduction_factor": 2}
    scheduler, judged = make_scheduler(make_trials(search={"trials": 4, "scheduler": named}).study, StopRequest(20))
    assert judged is not None
    assert judged.levels(9) == [2, 4, 8]


def test_after_a_stop_nothing_starts_and_what_waits_is_ended_with_a_folder() -> None:
    told: list[tuple[str, int]] = []

    def trial(number: int, status: str) -> Any:
        return SimpleNamespace(status=status, init_local_path=lambda: told.append(("folder", number)), number=number)

    trials = [trial(0, Trial.RUNNING), trial(1, Trial.PENDING), trial(2, Trial.PENDING), trial(3, Trial.TERMINATED)]
    controller: Any = SimpleNamespace(
        get_trials=lambda: trials, stop_trial=lambda trial: told.append(("stop", trial.number))
    )
    stop = StopRequest(20)
    stop.request("enough")
    assert StudyScheduler(None, stop).choose_trial_to_run(controller) is None
    assert told == [("folder", 1), ("stop", 1), ("folder", 2), ("stop", 2)]
