"""The derived tables: the last report of a trial by arrival, and the front against its definition."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmc_search.errors import RunError
from atmc_search.results import front_of, trials_of
from atmc_search.spec import BoundSpec

STATES = ("complete", "stopped", "running", "failed", "interrupted")


def reports(*rows: tuple[int, str, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["trial", "state", "epoch"])


def test_a_trial_is_its_last_report_by_arrival() -> None:
    # trial 4 was interrupted at epoch 3 and ran again from the start: the later report wins, not the higher epoch
    arrived = reports(
        (4, "running", 3),
        (0, "running", 1),
        (4, "interrupted", 3),
        (2, "complete", 5),
        (4, "running", 0),
        (0, "stopped", 2),
        (4, "running", 1),
    )
    trials = trials_of(arrived)
    assert trials.to_dict("list") == {
        "trial": [0, 2, 4],
        "state": ["stopped", "complete", "running"],
        "epoch": [2, 5, 1],
    }
    assert trials.index.tolist() == [0, 1, 2]


def test_no_reports_no_trials() -> None:
    assert trials_of(pd.DataFrame()).empty
    assert front_of(pd.DataFrame(), {"a": "min"}).empty


value = st.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan, np.inf])
row = st.tuples(st.sampled_from(STATES), value, value, value)


@given(
    st.lists(row, min_size=1, max_size=12),
    st.lists(st.sampled_from(["min", "max"]), min_size=1, max_size=3),
    st.one_of(st.none(), st.tuples(st.sampled_from(["min", "max"]), st.sampled_from([0.5, 1.0, 2.0]))),
)
def test_the_front_is_its_definition(
    rows: list[tuple[Any, ...]], directions: list[str], bound: tuple[str, float] | None
) -> None:
    trials = pd.DataFrame(rows, columns=["state", "a", "b", "c"])
    trials["trial"] = range(len(rows))
    objectives = dict(zip("abc", directions, strict=False))
    constraints = {} if bound is None else {"c": BoundSpec.model_validate({bound[0]: bound[1]})}
    signs = [1 if direction == "min" else -1 for direction in directions]

    def counts(i: int) -> bool:
        state, *values = rows[i]
        inside = bound is None or (values[2] <= bound[1] if bound[0] == "max" else values[2] >= bound[1])
        return state in ("complete", "stopped") and inside and all(np.isfinite(values[: len(signs)]))

    def turned(i: int) -> list[float]:
        return [sign * v for sign, v in zip(signs, rows[i][1:], strict=False)]

    def beaten(i: int, j: int) -> bool:
        """Whether j stands in i's way: it dominates it, or is the same and earlier."""
        mine, other = turned(i), turned(j)
        if mine == other:
            return j < i
        return all(o <= m for m, o in zip(mine, other, strict=True))

    measured = [i for i in range(len(rows)) if counts(i)]
    expected = [i for i in measured if not any(beaten(i, j) for j in measured if j != i)]
    front = front_of(trials, objectives, constraints)
    assert sorted(front["trial"]) == expected
    best_first = [turned(i)[0] for i in front["trial"]]
    assert best_first == sorted(best_first)
    assert front.index.tolist() == list(range(len(front)))


@pytest.mark.parametrize(("state", "counted"), [(s, s in ("complete", "stopped")) for s in STATES])
def test_only_measured_trials_reach_the_front(state: str, counted: bool) -> None:
    trials = pd.DataFrame({"trial": [0], "state": [state], "a": [1.0]})
    assert len(front_of(trials, {"a": "min"})) == counted


def test_two_bounds_on_a_value_that_stands_on_them() -> None:
    trials = pd.DataFrame({"trial": [0, 1, 2, 3], "state": "complete", "a": [3, 2, 1, 0], "b": [0.5, 0.8, 0.9, 0.49]})
    both = {"b": BoundSpec(min=0.5, max=0.8)}
    assert front_of(trials, {"a": "min", "b": "min"}, both)["trial"].tolist() == [1, 0]


def test_missing_values_of_nullable_types_take_no_part() -> None:
    trials = pd.DataFrame({"trial": [0, 1, 2], "state": "complete"})
    for kind, name in product(("Int64", "Float64"), ("a",)):
        trials[name] = pd.array([None, 5, 7], dtype=kind)
        assert front_of(trials, {name: "max"})["trial"].tolist() == [2]


def test_what_is_no_column_is_said() -> None:
    trials = pd.DataFrame({"trial": [0], "state": ["complete"], "size_bytes": [1]})
    with pytest.raises(RunError, match=r"objective 'size_byte': no such column; did you mean 'size_bytes'"):
        front_of(trials, {"size_byte": "min"})
    with pytest.raises(RunError, match=r"constraint on 'clean': no such column"):
        front_of(trials, {"size_bytes": "min"}, {"clean": BoundSpec(min=0.5)})


def test_the_input_is_left_alone() -> None:
    trials = pd.DataFrame({"trial": [1, 0], "state": ["failed", "complete"], "a": [1.0, 2.0]})
    before = trials.copy(deep=True)
    front_of(trials, {"a": "max"}, {"a": BoundSpec(min=0.0)})
    pd.testing.assert_frame_equal(trials, before)
