from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from atmc_search.errors import SpecError
from atmc_search.space import centre, distributions, extremes, fill

TEMPLATE: dict[str, Any] = {
    "z": {"lr": {"log_uniform": [1, 100]}, "name": "a"},
    "a": {"deep": {"bits": {"choice": [8, None, "x"]}, "list": [1, 2]}, "share": {"uniform": [0, 1]}},
    "n": {"int_uniform": [3, 8]},
}
SPACE: dict[str, BaseDistribution] = {
    "trial.z.lr": FloatDistribution(1.0, 100.0, log=True),
    "trial.a.deep.bits": CategoricalDistribution([8, None, "x"]),
    "trial.a.share": FloatDistribution(0.0, 1.0),
    "trial.n": IntDistribution(3, 8),
}


def test_distributions_are_found_by_path_in_the_order_written() -> None:
    found = distributions(TEMPLATE)
    assert found == SPACE
    assert list(found) == list(SPACE)


def test_a_kind_beside_another_key_is_no_distribution() -> None:
    assert distributions({"a": {"choice": [1], "also": 2}, "b": {"chioce": [1]}}) == {}


def test_fill_puts_each_value_in_its_place() -> None:
    config = {"trial.z.lr": 10.0, "trial.a.deep.bits": None, "trial.a.share": 0.25, "trial.n": 4}
    assert fill(TEMPLATE, config) == {
        "z": {"lr": 10.0, "name": "a"},
        "a": {"deep": {"bits": None, "list": [1, 2]}, "share": 0.25},
        "n": 4,
    }


def test_fill_leaves_the_rest_standing() -> None:
    assert fill(TEMPLATE, {}) == TEMPLATE
    partly = fill(TEMPLATE, {"trial.n": 5, "trial.unknown": 1})
    assert partly == {**TEMPLATE, "n": 5}
    assert distributions(partly) == {path: d for path, d in SPACE.items() if path != "trial.n"}
    assert TEMPLATE["n"] == {"int_uniform": [3, 8]}


@pytest.mark.parametrize(
    ("distribution", "middle"),
    [
        (CategoricalDistribution(["uvc", "none"]), "uvc"),
        (IntDistribution(1, 4), 2),
        (IntDistribution(-3, 3), 0),
        (FloatDistribution(1.0, 4.0), 2.5),
        (FloatDistribution(1.0, 100.0, log=True), pytest.approx(10.0)),
        (FloatDistribution(1e-300, 1e-200, log=True), pytest.approx(1e-250)),
        (FloatDistribution(1e200, 1e300, log=True), pytest.approx(1e250)),
        (FloatDistribution(1e308, 1.5e308), pytest.approx(1.25e308)),
    ],
)
def test_centre(distribution: BaseDistribution, middle: object) -> None:
    assert centre(distribution) == middle


positive = st.floats(5e-324, 1.7e308)


@given(positive, positive, st.booleans())
def test_the_centre_lies_inside(low: float, high: float, log: bool) -> None:
    low, high = min(low, high), max(low, high)
    middle = centre(FloatDistribution(low, high, log=log))
    assert isinstance(middle, float)
    assert low <= middle <= high


def test_extremes_move_one_path_at_a_time_to_each_extreme() -> None:
    base = {"trial.z.lr": pytest.approx(10.0), "trial.a.deep.bits": 8, "trial.a.share": 0.5, "trial.n": 5}
    moves = [
        (None, {}),
        ("trial.z.lr", {"trial.z.lr": 1.0}),
        ("trial.z.lr", {"trial.z.lr": 100.0}),
        ("trial.a.deep.bits", {"trial.a.deep.bits": 8}),
        ("trial.a.deep.bits", {"trial.a.deep.bits": None}),
        ("trial.a.deep.bits", {"trial.a.deep.bits": "x"}),
        ("trial.a.share", {"trial.a.share": 0.0}),
        ("trial.a.share", {"trial.a.share": 1.0}),
        ("trial.n", {"trial.n": 3}),
        ("trial.n", {"trial.n": 8}),
    ]
    assert list(extremes(SPACE)) == [(path, {**base, **move}) for path, move in moves]
    assert list(extremes({})) == [(None, {})]


@pytest.mark.parametrize(
    ("kind", "argument", "says"),
    [
        ("uniform", [1, 1], "give a plain value"),
        ("uniform", [2, 1], "did you mean [1, 2]?"),
        ("int_uniform", [True, 3], "finite numbers"),
        ("int_uniform", [1, 3.0], "whole numbers"),
        ("uniform", [0, 10**400], "finite numbers"),
        ("uniform", [0, float("inf")], "finite numbers"),
        ("log_uniform", [-1, 1], "above 0"),
        ("choice", [0, False], "twice"),
        ("choice", [float("nan")], "not finite"),
        ("choice", "abc", "must be a list"),
    ],
)
def test_a_bad_distribution_is_refused_by_its_path(kind: str, argument: object, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        distributions({"a": {"b": {kind: argument}}})
    assert f"trial.a.b.{kind}" in str(caught.value)
    assert says in str(caught.value)
