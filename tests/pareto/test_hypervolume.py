"""Hypervolume against closed forms and inclusion-exclusion."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from atmc_search.errors import AtmcError
from atmc_search.pareto import hypervolume, nondominated

Array = NDArray[np.float64]


@st.composite
def matrices(draw: st.DrawFn) -> Array:
    n, d = draw(st.integers(0, 6)), draw(st.integers(1, 5))
    rows = draw(st.lists(st.lists(st.integers(-1, 6), min_size=d, max_size=d), min_size=n, max_size=n))
    return np.array(rows, dtype=float).reshape(n, d)


def reference(values: Array) -> Array:
    return np.array([5.0, 4.0, 5.0, 6.0, 4.0])[: values.shape[1]]


def inclusion_exclusion(values: Array, corner: Array) -> float:
    total = 0.0
    for k in range(1, len(values) + 1):
        for rows in combinations(values, k):
            total -= (-1) ** k * np.prod(np.maximum(corner - np.max(rows, axis=0), 0.0))
    return total


@given(matrices())
def test_inclusion_exclusion(values: Array) -> None:
    corner = reference(values)
    assert hypervolume(values, corner) == pytest.approx(inclusion_exclusion(values, corner), abs=1e-9)


@given(matrices())
def test_dominated_rows_add_nothing(values: Array) -> None:
    corner = reference(values)
    assert hypervolume(values[nondominated(values)], corner) == pytest.approx(hypervolume(values, corner))


@given(matrices())
def test_scaling_one_objective_scales_the_volume(values: Array) -> None:
    corner = reference(values)
    stretch = np.ones(values.shape[1])
    stretch[0] = 1e6
    assert hypervolume(values * stretch, corner * stretch) == pytest.approx(1e6 * hypervolume(values, corner))


@pytest.mark.parametrize(
    ("values", "corner", "volume"),
    [
        ([[0.0, 0.0]], [2.0, 3.0], 6.0),
        ([[0.25], [0.5]], [1.0], 0.75),
        ([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]], [3.0, 3.0], 6.0),  # a staircase of 3 + 2 + 1 squares
        ([[1.0, 1.0, 1.0, 1.0, 1.0]], [3.0] * 5, 32.0),
        ([[1.0, 1.0], [1.0, 1.0]], [2.0, 2.0], 1.0),
    ],
    ids=["box", "one objective", "staircase", "five objectives", "duplicates"],
)
def test_closed_forms(values: list[list[float]], corner: list[float], volume: float) -> None:
    assert hypervolume(values, corner) == pytest.approx(volume)


def test_larger_fronts_in_one_more_dimension_than_needed() -> None:
    # a column of zeros under a reference of 1 leaves the volume alone but sends moocore to another algorithm
    values = np.random.default_rng(0).random((60, 2))
    ordered = values[nondominated(values)]
    ordered = ordered[np.argsort(ordered[:, 0])]
    right = np.append(ordered[1:, 0], 1.0)
    area = ((right - ordered[:, 0]) * (1.0 - ordered[:, 1])).sum()
    for extra in range(4):
        padded = np.hstack([values, np.zeros((60, extra))])
        assert hypervolume(padded, np.ones(2 + extra)) == pytest.approx(area)


@pytest.mark.parametrize(
    "row", [[1.0, 0.0], [0.0, 9.0], [np.nan, 0.0], [np.inf, 0.0], [-np.inf, 0.0], [-np.inf, -np.inf]]
)
def test_rows_on_or_behind_the_reference_or_not_finite_add_nothing(row: list[float]) -> None:
    assert hypervolume([row], [1.0, 1.0]) == 0.0
    assert hypervolume([row, [0.5, 0.5]], [1.0, 1.0]) == pytest.approx(0.25)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_no_rows(d: int) -> None:
    assert hypervolume(np.empty((0, d)), np.ones(d)) == 0.0


@pytest.mark.parametrize("corner", [[1.0], [1.0, 1.0, 1.0], [1.0, np.nan], [np.inf, 1.0], 1.0])
def test_a_wrong_reference_is_named(corner: object) -> None:
    with pytest.raises(AtmcError, match=r"^reference = .*one finite entry per objective; give 2 numbers$"):
        hypervolume([[0.0, 0.0]], corner)  # type: ignore[arg-type]
