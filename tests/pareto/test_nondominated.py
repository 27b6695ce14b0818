"""Dominance against its definition, the fronts by peeling, and the total order against a slow second algorithm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from atmc_search.pareto import nondominated, nondominated_sort, rank

Array = NDArray[np.float64]

few = st.integers(-2, 3).map(float)
anything = st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, 4.0, np.nan, np.inf, -np.inf])


@st.composite
def matrices(draw: st.DrawFn, entries: st.SearchStrategy[float] = few) -> Array:
    """(n, d) arrays of few distinct values, so that ties and duplicates are common."""
    n, d = draw(st.integers(0, 14)), draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(entries, min_size=d, max_size=d), min_size=n, max_size=n))
    return np.array(rows, dtype=float).reshape(n, d)


def dominates(a: Array, b: Array) -> bool:
    finite = all(np.isfinite(a)) and all(np.isfinite(b))
    return finite and all(x <= y for x, y in zip(a, b, strict=True)) and any(a < b)


def brute_force(values: Array) -> list[bool]:
    return [
        bool(np.isfinite(row).all())
        and not any(dominates(other, row) for other in values)
        and not any((other == row).all() for other in values[:i])
        for i, row in enumerate(values)
    ]


@given(matrices())
def test_nondominated_is_its_definition(values: Array) -> None:
    assert nondominated(values).tolist() == brute_force(values)


@given(matrices(anything))
def test_nondominated_ignores_rows_that_are_not_finite(values: Array) -> None:
    assert nondominated(values).tolist() == brute_force(values)


@pytest.mark.parametrize("d", [2, 3, 4, 5])
def test_nondominated_is_its_definition_on_many_rows(d: int) -> None:
    # moocore switches algorithm with n, so small cases alone would leave the fast one untried
    values = np.random.default_rng(d).integers(0, 12, (900, d)).astype(float)
    smaller = (values[:, None] <= values).all(axis=2)
    same = (values[:, None] == values).all(axis=2)
    beaten = (smaller & ~same) | (same & np.tri(900, k=-1, dtype=bool).T)
    mask = nondominated(values)
    assert mask.tolist() == (~beaten.any(axis=0)).tolist()
    assert 0 < mask.sum() < 900


def test_nondominated_keeps_the_first_of_duplicates() -> None:
    assert nondominated([[2, 2], [0, 1], [1, 0], [0, 1], [1, 0]]).tolist() == [False, True, True, False, False]


@pytest.mark.parametrize("function", [nondominated, nondominated_sort, rank])
def test_memory_layout_and_input_are_left_alone(function: Callable[[Any], NDArray[Any]]) -> None:
    values = np.random.default_rng(0).integers(0, 5, (40, 6)).astype(float)
    view = np.asfortranarray(values)[::2, ::-2]
    view.setflags(write=False)
    assert function(view).tolist() == function(view.copy(order="C")).tolist()
    assert (view == values[::2, ::-2]).all()


@pytest.mark.parametrize("function", [nondominated, nondominated_sort, rank])
def test_a_vector_is_refused(function: Callable[[Any], NDArray[Any]]) -> None:
    with pytest.raises(AssertionError, match=r"\(n, d\)"):
        function([1.0, 2.0])


@given(matrices(anything))
def test_sort_peels_one_front_after_the_other(values: Array) -> None:
    fronts = nondominated_sort(values)
    finite = np.isfinite(values).all(axis=1)
    expected, left, front = np.full(len(values), -1), finite.copy(), 0
    while left.any():
        beaten = [any(dominates(values[j], values[i]) for j in np.flatnonzero(left)) for i in range(len(values))]
        expected[left & ~np.array(beaten)] = front
        left &= np.array(beaten)
        front += 1
    expected[~finite] = front
    assert fronts.tolist() == expected.tolist()


@given(matrices())
def test_without_front_0_front_1_is_the_new_0(values: Array) -> None:
    fronts = nondominated_sort(values)
    assert nondominated_sort(values[fronts > 0]).tolist() == (fronts[fronts > 0] - 1).tolist()


@given(matrices())
def test_front_0_is_the_nondominated_rows_and_their_duplicates(values: Array) -> None:
    mask = nondominated(values)
    finite = np.isfinite(values).all(axis=1)
    assert (nondominated(values, ties=True) == (nondominated_sort(values) == 0) & finite).all()
    assert (nondominated_sort(values) == 0).tolist() == [any((row == v).all() for v in values[mask]) for row in values]


@pytest.mark.parametrize("d", [2, 3, 4])
def test_sort_of_many_rows_is_repeated_filtering(d: int) -> None:
    values = np.random.default_rng(d).random((700, d))  # no duplicates
    fronts = nondominated_sort(values)
    left = np.arange(700)
    for front in range(fronts.max() + 1):
        mask = nondominated(values[left])
        assert left[mask].tolist() == np.flatnonzero(fronts == front).tolist()
        left = left[~mask]
    assert not len(left)


def test_sort_puts_rows_that_are_not_finite_behind_the_last_front() -> None:
    values = np.array([[0, np.nan], [0, 0], [-np.inf, -1], [1, 1], [np.inf, 0]])
    assert nondominated_sort(values).tolist() == [2, 0, 2, 1, 2]
    assert nondominated_sort([[np.nan, 0.0], [0.0, np.inf]]).tolist() == [0, 0]


def slow_rank(values: Array) -> list[int]:
    """The same order from counting and plain loops."""
    finite = [i for i, row in enumerate(values) if np.isfinite(row).all()]
    fronts = nondominated_sort(values)

    def quantile(i: int, k: int) -> int:
        return sum(int(values[j, k] < values[i, k]) + int(values[j, k] <= values[i, k]) for j in finite)

    points = {i: [quantile(i, k) for k in range(values.shape[1])] for i in finite}

    def squared(i: int, j: int) -> int:
        return sum((a - b) ** 2 for a, b in zip(points[i], points[j], strict=True))

    order: list[int] = []
    for front in sorted({fronts[i] for i in finite}):
        members = [i for i in finite if fronts[i] == front]
        taken = [min(members, key=lambda i: (max(points[i]), i))]
        while len(taken) < len(members):
            rest = [i for i in members if i not in taken]
            taken.append(min(rest, key=lambda i: (-min(squared(i, j) for j in taken), i)))
        order += taken
    order += [i for i in range(len(values)) if i not in finite]
    return [order.index(i) for i in range(len(values))]


@given(matrices(anything))
def test_rank_is_the_slow_rank(values: Array) -> None:
    assert rank(values).tolist() == slow_rank(values)


@given(matrices(anything))
def test_rank_is_a_permutation_that_follows_the_fronts(values: Array) -> None:
    ranks = rank(values)
    assert sorted(ranks) == list(range(len(values)))
    fronts = nondominated_sort(values)[np.argsort(ranks)]
    assert (np.diff(fronts) >= 0).all()


@given(matrices(), st.data())
def test_rank_sees_only_the_order_within_each_objective(values: Array, data: st.DataObject) -> None:
    increasing: list[Callable[[Array], Array]] = [lambda x: 1e6 * x + 5, np.exp, lambda x: x**3 / 1e9, lambda x: x]
    changed = values.copy()
    for column in range(values.shape[1]):
        changed[:, column] = data.draw(st.sampled_from(increasing))(values[:, column])
    assert rank(changed).tolist() == rank(values).tolist()


@given(matrices())
def test_rank_does_not_depend_on_the_order_of_the_objectives(values: Array) -> None:
    assert rank(values[:, ::-1]).tolist() == rank(values).tolist()


def test_rank_gives_places_not_sorted_indices() -> None:
    # middle, one end, the other, then the gaps: rows 2, 0, 4, 1, 3, whose places differ from that list
    values = np.array([[0, 4], [1, 3], [2, 2], [3, 1], [4, 0]])
    assert rank(values).tolist() == [1, 3, 0, 4, 2]


def test_an_objective_in_large_units_does_not_drown_the_others() -> None:
    # Unscaled, row 4 is the farthest from the middle by its 100 MB alone, and row 0 (error 0.9) must wait.
    size_bytes = np.array([1e6, 2e6, 3e6, 4e6, 1e8])
    error = np.array([0.9, 0.5, 0.3, 0.1, 0.0])
    raw = np.column_stack([size_bytes, error])
    assert np.linalg.norm(raw - raw[2], axis=1).argmax() == 4
    assert rank(raw).tolist() == [1, 3, 0, 4, 2]
    assert rank(raw * [1e-6, 1.0]).tolist() == rank(raw * [1.0, 1e6]).tolist() == [1, 3, 0, 4, 2]


def test_duplicates_come_last_in_their_front() -> None:
    values = [[1, 1], [1, 1], [0, 2], [2, 0], [3, 3]]
    assert rank(values).tolist() == [0, 3, 1, 2, 4]


def test_no_rows() -> None:
    empty = np.empty((0, 3))
    assert nondominated(empty).shape == nondominated_sort(empty).shape == rank(empty).shape == (0,)
