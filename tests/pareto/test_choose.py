"""The choice against exhaustive search, and every relaxation by granting it."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isfinite, nan, nextafter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from atmc_search.errors import AtmcError
from atmc_search.pareto import Bound, Choice, choose

Table = dict[str, NDArray[np.float64]]
METRICS = ["size", "error", "robust"]

entries = st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, nan, inf, -inf])
kinds = st.sampled_from(["max", "min"])
all_bounds = st.lists(st.builds(Bound, st.sampled_from(METRICS), st.integers(-3, 7).map(float), kinds), max_size=3)
# bounds near the end of each column, so that mostly nothing fits and often no single change helps
tight_bounds = st.tuples(
    st.builds(Bound, st.just("size"), st.integers(-3, 0).map(float), st.just("max")),
    st.builds(Bound, st.just("error"), st.integers(-3, 0).map(float), st.just("max")),
    st.builds(Bound, st.just("robust"), st.integers(5, 7).map(float), st.just("min")),
).map(list)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    n = draw(st.integers(0, 7))
    return {name: np.array(draw(st.lists(entries, min_size=n, max_size=n)), dtype=float) for name in METRICS}


def inside(value: float, bound: Bound) -> bool:
    return isfinite(value) and (value <= bound.limit if bound.kind == "max" else value >= bound.limit)


def exhaustive(table: Table, bounds: list[Bound], *, maximise: bool) -> list[int]:
    """All rows that fit, best first: by "robust", ties by small "size" with NaN last, then by row."""
    rows = [
        i
        for i in range(len(table["size"]))
        if isfinite(table["robust"][i]) and all(inside(table[b.metric][i], b) for b in bounds)
    ]

    def key(i: int) -> tuple[float, bool, float, int]:
        size = table["size"][i]
        return (-table["robust"][i] if maximise else table["robust"][i], np.isnan(size), np.nan_to_num(size), i)

    return sorted(rows, key=key)


def decide(table: Table, bounds: list[Bound], *, maximise: bool) -> Choice:
    return choose(table, bounds, "robust", maximise=maximise, tie_break=[("size", False)])


@given(tables(), all_bounds, st.booleans())
def test_the_choice_is_that_of_exhaustive_search(table: Table, bounds: list[Bound], maximise: bool) -> None:
    rows = exhaustive(table, bounds, maximise=maximise)
    choice = decide(table, bounds, maximise=maximise)
    assert choice.candidates == len(rows)
    assert choice.index == (rows[0] if rows else None)
    assert choice.runner_up == (rows[1] if len(rows) > 1 else None)
    assert not (rows and choice.relaxations)


def usable(table: Table, bounds: list[Bound]) -> list[int]:
    names = {"robust", *(bound.metric for bound in bounds)}
    return [i for i in range(len(table["size"])) if all(isfinite(table[name][i]) for name in names)]


def check_relaxations(table: Table, bounds: list[Bound], *, maximise: bool) -> None:
    choice = decide(table, bounds, maximise=maximise)
    if choice.index is not None:
        return
    rows = usable(table, bounds)
    expected = []  # (position of the bound, limit needed), by trying every value of the column as the new limit
    for i, bound in enumerate(bounds):
        limits = sorted({table[bound.metric][r] for r in rows}, reverse=bound.kind == "min")
        for limit in limits:
            changed = [*bounds[:i], replace(bound, limit=limit), *bounds[i + 1 :]]
            if exhaustive(table, changed, maximise=maximise):
                expected.append((i, limit))
                break
    if expected:
        assert len(choice.relaxations) == len(expected)
        for relaxation, (i, limit) in zip(choice.relaxations, expected, strict=True):
            bound = bounds[i]
            assert (relaxation.metric, relaxation.kind, relaxation.limit) == (bound.metric, bound.kind, bound.limit)
            assert relaxation.needed == limit
            assert relaxation.by == abs(limit - bound.limit) > 0
            assert not relaxation.together
            granted = [*bounds[:i], replace(bound, limit=relaxation.needed), *bounds[i + 1 :]]
            assert decide(table, granted, maximise=maximise).index == relaxation.index
            short = nextafter(relaxation.needed, relaxation.limit)
            refused = [*bounds[:i], replace(bound, limit=short), *bounds[i + 1 :]]
            assert decide(table, refused, maximise=maximise).index is None
    elif rows:
        check_together(table, bounds, choice, rows, maximise=maximise)
    else:
        assert choice.relaxations == ()


def relative(table: Table, bounds: list[Bound], row: int, rows: list[int]) -> float:
    total = 0.0
    for bound in bounds:
        beyond = (table[bound.metric][row] - bound.limit) * (1 if bound.kind == "max" else -1)
        scale = abs(bound.limit) if bound.limit else max(abs(table[bound.metric][r]) for r in rows)
        total += beyond / scale if beyond > 0 else 0.0
    return total


def check_together(table: Table, bounds: list[Bound], choice: Choice, rows: list[int], *, maximise: bool) -> None:
    needed = {(r.metric, r.kind, r.limit): r.needed for r in choice.relaxations}
    assert len(needed) > 0
    assert all(r.together for r in choice.relaxations)
    (index,) = {r.index for r in choice.relaxations}
    assert relative(table, bounds, index, rows) == pytest.approx(min(relative(table, bounds, r, rows) for r in rows))

    def grant(short: tuple[str, str, float] | None = None) -> int | None:
        changed = []
        for bound in bounds:
            name = (bound.metric, bound.kind, bound.limit)
            limit = needed.get(name, bound.limit)
            changed.append(replace(bound, limit=nextafter(limit, bound.limit) if name == short else limit))
        return decide(table, changed, maximise=maximise).index

    assert grant() == index
    assert [grant(short=name) for name in needed] == [None] * len(needed)


@given(tables(), all_bounds, st.booleans())
def test_relaxations_hold_when_granted_and_not_a_bit_earlier(table: Table, bounds: list[Bound], maximise: bool) -> None:
    check_relaxations(table, bounds, maximise=maximise)


@given(tables(), tight_bounds, st.booleans())
def test_relaxations_of_tight_bounds_likewise(table: Table, bounds: list[Bound], maximise: bool) -> None:
    check_relaxations(table, bounds, maximise=maximise)


TABLE = {
    "size_bytes": np.array([100.0, 200.0, 400.0, 400.0]),
    "clean_accuracy": np.array([0.50, 0.80, 0.90, 0.90]),
    "robust_accuracy": np.array([0.30, 0.60, 0.70, 0.70]),
}


def test_best_within_bounds() -> None:
    bounds = [Bound("size_bytes", 300, "max")]
    assert choose(TABLE, bounds, "robust_accuracy", maximise=True) == Choice(index=1, candidates=2, runner_up=0)
    assert choose(TABLE, bounds, "size_bytes", maximise=False) == Choice(index=0, candidates=2, runner_up=1)


def test_a_value_on_the_limit_is_within() -> None:
    bounds = [Bound("size_bytes", 200, "max"), Bound("clean_accuracy", 0.8, "min")]
    assert choose(TABLE, bounds, "size_bytes", maximise=False) == Choice(index=1, candidates=1, runner_up=None)


def test_each_bound_alone() -> None:
    bounds = [Bound("size_bytes", 150, "max"), Bound("clean_accuracy", 0.7, "min")]
    choice = choose(TABLE, bounds, "robust_accuracy", maximise=True)
    assert choice.index is None
    assert [(r.metric, r.limit, r.needed, r.index, r.together) for r in choice.relaxations] == [
        ("size_bytes", 150, 200.0, 1, False),
        ("clean_accuracy", 0.7, 0.5, 0, False),
    ]
    assert [r.by for r in choice.relaxations] == pytest.approx([50.0, 0.2])


def test_a_bound_that_does_not_help_alone_is_left_out() -> None:
    bounds = [Bound("size_bytes", 150, "max"), Bound("clean_accuracy", 0.95, "min")]
    choice = choose(TABLE, bounds, "robust_accuracy", maximise=True)
    assert [(r.metric, r.needed) for r in choice.relaxations] == [("clean_accuracy", 0.5)]


def test_together_takes_the_least_relative_violation() -> None:
    # relative violations: row 0 1 + 0.5, row 1 3 + 0.2, so bytes do not count 1e2 times as much as accuracies
    bounds = [Bound("size_bytes", 50, "max"), Bound("clean_accuracy", 1.0, "min")]
    choice = choose(TABLE, bounds, "robust_accuracy", maximise=True)
    assert [(r.metric, r.needed, r.index, r.together) for r in choice.relaxations] == [
        ("size_bytes", 100.0, 0, True),
        ("clean_accuracy", 0.5, 0, True),
    ]


def test_together_leaves_bounds_that_hold_alone() -> None:
    bounds = [Bound("robust_accuracy", 0.1, "min"), Bound("size_bytes", 50, "max"), Bound("clean_accuracy", 1, "min")]
    choice = choose(TABLE, bounds, "robust_accuracy", maximise=True)
    assert [r.metric for r in choice.relaxations] == ["size_bytes", "clean_accuracy"]


@pytest.mark.filterwarnings("error")
def test_together_survives_a_limit_next_to_zero() -> None:
    table = {"a": np.array([2.0, 1.0]), "b": np.array([1.0, 2.0])}
    bounds = [Bound("a", 5e-324, "max"), Bound("b", -1.0, "max")]
    choice = choose(table, bounds, "b", maximise=True)
    assert [(r.metric, r.needed, r.index) for r in choice.relaxations] == [("a", 1.0, 1), ("b", 2.0, 1)]


def test_ties_go_to_tie_break_then_to_the_earlier_row() -> None:
    table = {**TABLE, "time_s": np.array([1.0, 1.0, nan, 5.0])}
    assert choose(table, [], "robust_accuracy", maximise=True).index == 2
    assert choose(table, [], "robust_accuracy", maximise=True, tie_break=[("time_s", False)]).index == 3
    assert choose(table, [], "robust_accuracy", maximise=True, tie_break=[("time_s", True)]).index == 3
    table["time_s"][2] = 4.0
    choice = choose(table, [], "robust_accuracy", maximise=True, tie_break=[("clean_accuracy", True), ("time_s", True)])
    assert (choice.index, choice.runner_up) == (3, 2)


def test_missing_values_do_not_qualify() -> None:
    table = {"a": np.array([nan, 1.0, 2.0]), "b": np.array([5.0, nan, 3.0])}
    assert choose(table, [Bound("a", 9, "max")], "b", maximise=True) == Choice(2, 1, None)
    assert choose(table, [], "b", maximise=True) == Choice(0, 2, 2)
    assert choose({"a": np.array([nan])}, [Bound("a", 9, "max")], "a", maximise=True) == Choice(None, 0, None)


def test_object_columns_of_a_frame_count_none_as_missing() -> None:
    assert choose({"a": np.array([None, 2, 1], dtype=object)}, [], "a", maximise=False) == Choice(2, 2, 1)


@pytest.mark.parametrize(
    ("kind", "expected"), [("max", [0.0, 0.0, 1.0, inf, inf, inf]), ("min", [3.0, 0.0, 0.0, inf, inf, inf])]
)
def test_violation(kind: str, expected: list[float]) -> None:
    bound = Bound("m", 2.0, kind)  # type: ignore[arg-type]
    assert bound.violation([-1.0, 2.0, 3.0, nan, inf, -inf]).tolist() == expected


@pytest.mark.parametrize(
    ("bounds", "best", "tie_break", "message"),
    [
        ([], "robust_acuracy", [], r"best = 'robust_acuracy': .*did you mean 'robust_accuracy'\?"),
        ([Bound("size", 1, "max")], "size_bytes", [], r"bound = 'size': not a metric of these results; "),
        ([], "size_bytes", [("zzz", True)], r"tie_break = 'zzz': .*known: clean_accuracy"),
        ([], "status", [], r"best = 'status': its values are not numbers"),
    ],
)
def test_a_wrong_metric_is_named(
    bounds: list[Bound], best: str, tie_break: list[tuple[str, bool]], message: str
) -> None:
    table = {**TABLE, "status": np.array(["ok", "ok", "ok", "failed"])}
    with pytest.raises(AtmcError, match=message) as caught:
        choose(table, bounds, best, maximise=True, tie_break=tie_break)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [nan, inf, -inf])
def test_a_limit_must_be_finite(limit: float) -> None:
    with pytest.raises(AtmcError, match=r"bound on size: limit = .*finite"):
        Bound("size", limit, "max")


def test_a_kind_is_max_or_min() -> None:
    with pytest.raises(AtmcError, match="bound on size: kind = 'atmost'"):
        Bound("size", 1.0, "atmost")  # type: ignore[arg-type]
