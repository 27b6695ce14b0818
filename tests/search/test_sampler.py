"""What Optuna is told, how a study goes on from earlier trials, and that every sampler gets through a bad sweep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from optuna.trial import FrozenTrial, TrialState

from atmc_search.pareto import hypervolume
from atmc_search.search.sampler import START_TRIAL, TRIAL_NUMBER, OptunaSearcher
from atmc_search.spec import StudySpec, parse_study
from atmc_search.tasks import TrialSpace

MakeStudy = Callable[..., StudySpec]
MakeTrials = Callable[..., TrialSpace]
METRICS = {"size_bytes": 1000, "clean_accuracy": 0.9, "robust_accuracy": 0.5, "loss": 0.25}


def flat(state: str, **metrics: Any) -> dict[str, Any]:
    """A result as Ray hands it on: nested keys flattened, with things of Ray's own beside them."""
    return {"report/state": state, "training_iteration": 3, **{f"report/{k}": v for k, v in metrics.items()}}


def told(space: TrialSpace, result: dict[str, Any] | None, *, error: bool = False) -> FrozenTrial:
    searcher = OptunaSearcher(space)
    searcher.suggest("a")
    searcher.on_trial_complete("a", result, error)
    (trial,) = searcher.study.trials
    return trial


def play(searcher: OptunaSearcher, trials: int, cost: Callable[[Mapping[str, Any]], dict[str, Any]]) -> list[Any]:
    """Suggests and tells trial after trial; returns the configs."""
    configs = []
    for i in range(trials):
        config = searcher.suggest(str(i))
        configs.append(config)
        searcher.on_trial_complete(str(i), flat("complete", **cost(config)))
    return configs


def cheap(config: Mapping[str, Any]) -> dict[str, Any]:
    keep, lr = config["trial.compress.keep"], config["trial.train.lr"]
    return {
        "size_bytes": round(1000 * keep) + config["trial.compress.bits"],
        "clean_accuracy": keep / (1 + abs(lr - 0.3)),
        "robust_accuracy": 1 - abs(lr - 0.5),
        "loss": lr * keep,
    }


def test_complete_is_complete_with_its_values_in_the_order_of_the_objectives(make_trials: MakeTrials) -> None:
    trial = told(make_trials(), flat("complete", **METRICS))
    assert trial.state == TrialState.COMPLETE
    assert trial.values == [1000, 0.9, 0.5]


def test_the_study_knows_every_direction(make_trials: MakeTrials) -> None:
    searcher = OptunaSearcher(make_trials(objectives={"clean_accuracy": "max", "loss": "min", "nnz": "min"}))
    assert [direction.name for direction in searcher.study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]


def test_stopped_is_pruned(make_trials: MakeTrials) -> None:
    # the scheduler stops a trial whose last report says "running"
    for state in ("running", "stopped"):
        trial = told(make_trials(), flat(state, **METRICS))
        assert trial.state == TrialState.PRUNED
        assert not trial.values


@pytest.mark.parametrize("state", ["complete", "running"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, pd.NA, "many"])
@pytest.mark.parametrize("metric", ["size_bytes", "robust_accuracy", "loss"])
def test_what_is_not_finite_fails(make_trials: MakeTrials, state: str, value: Any, metric: str) -> None:
    space = make_trials(constraints={"loss": {"max": 1.0}})
    assert told(space, flat(state, **{**METRICS, metric: value})).state == TrialState.FAIL


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (flat("failed", reason="diverged"), False),
        (flat("failed", **METRICS), False),
        (flat("complete", size_bytes=5), False),
        (flat("complete", **METRICS), True),
        ({}, False),
        (None, False),
        (None, True),
    ],
)
def test_failed_is_fail(make_trials: MakeTrials, result: dict[str, Any] | None, error: bool) -> None:
    assert told(make_trials(), result, error=error).state == TrialState.FAIL


@pytest.mark.parametrize("state", ["complete", "running"])
def test_constraints_are_set_with_their_violation(make_trials: MakeTrials, state: str) -> None:
    bounds = {"clean_accuracy": {"min": 0.95}, "size_bytes": {"max": 1200, "min": 100}, "loss": {"max": 0.25}}
    trial = told(make_trials(constraints=bounds), flat(state, **METRICS))
    assert trial.constraints == pytest.approx({"clean_accuracy": 0.05, "size_bytes": -200, "loss": 0.0})


def test_infeasible_trials_are_not_among_the_best(make_trials: MakeTrials) -> None:
    searcher = OptunaSearcher(make_trials(constraints={"clean_accuracy": {"min": 0.5}}))
    for name, accuracy in (("good", 0.6), ("small but bad", 0.1)):
        searcher.suggest(name)
        searcher.on_trial_complete(name, flat("complete", **{**METRICS, "clean_accuracy": accuracy, "size_bytes": 9}))
    assert [trial.number for trial in searcher.study.best_trials] == [0]


def test_an_unknown_or_repeated_end_changes_nothing(make_trials: MakeTrials) -> None:
    searcher = OptunaSearcher(make_trials())
    searcher.suggest("a")
    searcher.on_trial_complete("a", flat("complete", **METRICS))
    searcher.on_trial_complete("a", None, True)
    searcher.on_trial_complete("never seen", flat("failed"))
    assert [trial.state for trial in searcher.study.trials] == [TrialState.COMPLETE]


def test_a_config_lies_in_its_space_and_has_its_number(make_trials: MakeTrials) -> None:
    space = make_trials()
    searcher = OptunaSearcher(space)
    for number in range(15):
        config = searcher.suggest(str(number))
        assert config.pop(TRIAL_NUMBER) == number
        assert list(config) == list(space.distributions)
        assert 0.01 <= config["trial.train.lr"] <= 1
        assert config["trial.compress.bits"] in (2, 4, 8)
        space.fill(config)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["tpe", "random", "nsga2"])
def test_every_sampler_gets_past_startup_with_bad_trials_among_them(
    make_trials: MakeTrials, name: str, objectives: int
) -> None:
    directions = {"size_bytes": "min", "clean_accuracy": "max", "robust_accuracy": "max", "loss": "min"}
    space = make_trials(
        objectives=dict(list(directions.items())[:objectives]),
        constraints={"clean_accuracy": {"min": 0.3}},
        search={"trials": 40, "sampler": {"name": name, "startup_trials": 6}},
    )
    searcher = OptunaSearcher(space)
    expected = []
    running: list[tuple[str, dict[str, Any]]] = []
    ends = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL]
    for i in range(40):
        running.append((str(i), searcher.suggest(str(i))))
        if len(running) < 4:
            continue  # four at a time, as in a sweep
        trial_id, config = running.pop(0)
        end = ends[int(trial_id) % len(ends)]
        expected.append(end)
        metrics = cheap(config)
        if end == TrialState.FAIL:
            result = flat("failed") if i % 2 else flat("complete", **{**metrics, "size_bytes": math.nan})
        else:
            result = flat("complete" if end == TrialState.COMPLETE else "running", **metrics)
        searcher.on_trial_complete(trial_id, result)
    for trial_id, _ in running:
        searcher.on_trial_complete(trial_id, None, True)
        expected.append(TrialState.FAIL)
    assert [trial.state for trial in searcher.study.trials] == expected


def test_tpe_learns(make_trials: MakeTrials) -> None:
    """Mean hypervolume after 60 trials over five seeds; seeds are fixed, and the gap is twice the margin asked."""

    def reached(name: str, seed: int) -> float:
        space = make_trials(
            objectives={"size_bytes": "min", "robust_accuracy": "max"},
            search={"trials": 60, "sampler": {"name": name}, "seed": seed},
        )
        points = []

        def cost(config: Mapping[str, Any]) -> dict[str, Any]:
            keep, lr = config["trial.compress.keep"], config["trial.train.lr"]
            accuracy = keep**0.25 - 3 * (lr - 0.3) ** 2 - (config["trial.compress.bits"] != 4) * 0.3
            points.append([keep, -accuracy])
            return {"size_bytes": keep, "robust_accuracy": accuracy}

        play(OptunaSearcher(space), 60, cost)
        return hypervolume(np.array(points), [1.0, 0.0])

    tpe = np.mean([reached("tpe", seed) for seed in range(5)])
    random = np.mean([reached("random", seed) for seed in range(5)])
    assert tpe > 1.03 * random


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_a_seed_gives_one_sequence(make_trials: MakeTrials, name: str) -> None:
    def sequence(seed: int) -> list[Any]:
        space = make_trials(search={"trials": 20, "sampler": {"name": name, "startup_trials": 5}, "seed": seed})
        return play(OptunaSearcher(space), 20, cheap)

    assert sequence(3) == sequence(3)
    assert sequence(3) != sequence(4)


def finished(space: TrialSpace, trials: int) -> list[tuple[dict[str, Any], str, dict[str, Any]]]:
    """Configs of a random sweep, each with its state and metrics."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(trials):
        config = {
            "trial.train.lr": float(rng.uniform(0.01, 1)),
            "trial.compress.keep": float(rng.uniform(0.1, 1)),
            "trial.compress.bits": int(rng.choice([2, 4, 8])),
        }
        rows.append((config, ("complete", "complete", "stopped", "failed")[i % 4], cheap(config)))
    return rows


def test_replayed_trials_look_like_told_ones(make_trials: MakeTrials) -> None:
    space = make_trials(constraints={"clean_accuracy": {"min": 0.5}})
    replayed, live = OptunaSearcher(space), OptunaSearcher(space)
    for number, (config, state, metrics) in enumerate(finished(space, 12)):
        replayed.replay(number, config, state, metrics)
        live.replay(number, config, "interrupted", {})
        assert live.suggest(str(number)) == {**config, TRIAL_NUMBER: number}
        live.on_trial_complete(str(number), flat(state, **metrics))
    for one, other in zip(replayed.study.trials, live.study.trials, strict=True):
        assert (one.state, one.values, one.params) == (other.state, other.values, other.params)
        assert one.constraints == other.constraints
    states = [trial.state for trial in replayed.study.trials]
    assert states == 3 * [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]


def test_after_replay_tpe_proposes_what_it_would_have_proposed(make_trials: MakeTrials) -> None:
    # Past startup, and with no random numbers drawn in either: the proposal follows from the trials alone.
    space = make_trials(search={"trials": 60, "sampler": {"name": "tpe", "startup_trials": 5}, "seed": 1})
    replayed, asked = OptunaSearcher(space), OptunaSearcher(space)
    for number, (config, state, metrics) in enumerate(finished(space, 20)):
        replayed.replay(number, config, state, metrics)
        asked.replay(number, config, "running", {})
        asked.suggest(str(number))
        asked.on_trial_complete(str(number), flat(state, **metrics))
    proposed = replayed.suggest("next")
    assert proposed == asked.suggest("next")
    # and it is the trials that it follows from:
    other = OptunaSearcher(space)
    for number, (config, state, metrics) in enumerate(finished(space, 20)):
        other.replay(number, config, state, {**metrics, "size_bytes": -metrics["size_bytes"]})
    assert other.suggest("next") != proposed


def test_a_trial_that_started_from_another_does_so_again(make_trials: MakeTrials) -> None:
    searcher = OptunaSearcher(make_trials())
    (config, _, _), (other, _, _) = finished(make_trials(), 2)
    searcher.replay(4, config, "interrupted", {"start": f"trial 3 {'ab' * 32}"})
    searcher.replay(5, other, "interrupted", {"start": "trained"})
    assert searcher.suggest("a") == {**config, TRIAL_NUMBER: 4, START_TRIAL: 3}
    assert searcher.suggest("b") == {**other, TRIAL_NUMBER: 5}


def test_interrupted_trials_come_first_as_they_were(make_trials: MakeTrials) -> None:
    searcher = OptunaSearcher(make_trials())
    rows = finished(make_trials(), 8)
    states = ["complete", "interrupted", "failed", "running", "stopped", "complete", "interrupted", "complete"]
    for number, ((config, _, metrics), state) in enumerate(zip(rows, states, strict=True)):
        searcher.replay(number, config, state, metrics)
    proposed = [searcher.suggest(f"again {i}") for i in range(5)]
    assert proposed[:3] == [{**rows[number][0], TRIAL_NUMBER: number} for number in (1, 3, 6)]
    assert [config[TRIAL_NUMBER] for config in proposed[3:]] == [8, 9]
    for i in range(5):
        searcher.on_trial_complete(f"again {i}", flat("complete", **METRICS))
    assert TrialState.RUNNING not in [trial.state for trial in searcher.study.trials]
    assert len(searcher.study.trials) == 5 + 5  # those that were told, and those that were asked


def test_numbers_go_on_after_the_highest(make_trials: MakeTrials) -> None:
    searcher = OptunaSearcher(make_trials())
    config = finished(make_trials(), 1)[0][0]
    searcher.replay(17, config, "complete", METRICS)
    searcher.replay(4, config, "failed", {})
    assert [searcher.suggest(str(i))[TRIAL_NUMBER] for i in range(3)] == [18, 19, 20]


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2"])
def test_a_study_that_goes_on_does_not_propose_the_same_configs_again(name):
    document = {
        "name": "again",
        "trial": {
            "data": {"name": "digits"},
            "model": {"name": "mlp"},
            "threat": {"eps": 0.1},
            "dense": {"epochs": 1},
            "train": {"epochs": 1, "lr": {"log_uniform": [0.001, 1.0]}},
            "compress": {"keep": {"uniform": [0.1, 0.9]}},
        },
        "search": {"trials": 8, "sampler": {"name": name, "startup_trials": 8}},
    }
    space = TrialSpace.of(parse_study(document))
    path = "trial.train.lr"
    first = OptunaSearcher(space)
    before = [first.suggest(str(i)) for i in range(4)]
    second = OptunaSearcher(space, earlier=4)
    for number, config in enumerate(before):
        second.replay(number, {key: config[key] for key in space.distributions}, "failed", {})
    after = [second.suggest(str(i)) for i in range(4)]
    assert not {config[path] for config in before} & {config[path] for config in after}


def mixing(make_study: MakeStudy) -> TrialSpace:
    plain = make_study()
    trial = {"method": {"choice": ["al0", "atmc", "da"]}, **plain.trial}
    return TrialSpace.of(parse_study({"name": "mixing", "trial": trial, "search": {"trials": 30, "seed": 2}}))


def test_a_trial_is_asked_only_for_what_its_method_uses(make_study: MakeStudy) -> None:
    searcher = OptunaSearcher(mixing(make_study))
    configs = play(searcher, 30, lambda config: METRICS)
    used = {"al0": {"keep"}, "atmc": {"keep", "bits"}, "da": set()}
    assert {config["trial.method"] for config in configs} == set(used)
    for config in configs:
        names = {name.rpartition(".")[2] for name in config if name.startswith("trial.compress")}
        assert names == used[config["trial.method"]]
        assert "trial.train.lr" in config


def test_values_that_a_method_does_not_use_are_left_out_of_a_replay(make_study: MakeStudy) -> None:
    searcher = OptunaSearcher(mixing(make_study))
    config = {"trial.method": "al0", "trial.train.lr": 0.5, "trial.compress.keep": 0.3, "trial.compress.bits": None}
    searcher.replay(0, config, "complete", METRICS)
    searcher.replay(1, config, "interrupted", METRICS)
    (trial,) = searcher.study.trials
    assert trial.state == TrialState.COMPLETE
    assert trial.params == {name: value for name, value in config.items() if value is not None}
    assert searcher.suggest("again") == {**trial.params, TRIAL_NUMBER: 1}
