from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmc_search.compress.knapsack import Option, allocate

option = st.tuples(st.integers(0, 20), st.integers(0, 20))
items_strategy = st.lists(st.lists(option, min_size=1, max_size=4), min_size=1, max_size=4)


def total(items: list[list[Option]], chosen: tuple[int, ...] | list[int]) -> Option:
    taken = [options[j] for options, j in zip(items, chosen, strict=True)]
    return sum(cost for cost, _ in taken), sum(distortion for _, distortion in taken)


def brute_force(items: list[list[Option]], budget: float) -> float | None:
    """The least distortion of all combinations within the budget."""
    every = [total(items, chosen) for chosen in itertools.product(*(range(len(options)) for options in items))]
    return min((distortion for cost, distortion in every if cost <= budget), default=None)


@given(items_strategy, st.integers(0, 60))
@settings(max_examples=400, deadline=None)
def test_against_brute_force(items: list[list[Option]], budget: int) -> None:
    best, chosen = brute_force(items, budget), allocate(items, budget)
    if best is None:
        assert chosen is None
        return
    assert chosen is not None
    cost, distortion = total(items, chosen)
    assert cost <= budget
    # Greedy can lose no more than the largest single step that did not fit.
    step = max(max(d for _, d in options) - min(d for _, d in options) for options in items)
    assert best <= distortion <= best + step
    # Of what it spends it makes the best: no other choice of that cost or less distorts less, if the queue ran dry or
    # every step fitted.
    if distortion == total(items, [options.index(min(options, key=lambda o: (o[1], o[0]))) for options in items])[1]:
        assert distortion == best


@given(items_strategy, st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_more_budget_that_is_spent_exactly_is_optimal(items: list[list[Option]], budget: int) -> None:
    """At the budgets at which greedy stops having skipped nothing, it is optimal (Sinha and Zoltners, 1979)."""
    chosen = allocate(items, budget)
    if chosen is None:
        return
    spent, distortion = total(items, chosen)
    again = allocate(items, spent)
    assert again is not None
    skipped_nothing = total(items, again) == (spent, distortion) and _in_order_of_slopes(items, again)
    if skipped_nothing:
        assert distortion == brute_force(items, spent)


def _in_order_of_slopes(items: list[list[Option]], chosen: list[int]) -> bool:
    """Whether one slope separates the steps taken from those left: λ-optimality, Σ distortion + λ cost is least."""
    slopes = {0.0, float("inf")}
    for options in items:
        for a, b in itertools.combinations(options, 2):
            if a[0] != b[0]:
                slopes.add(abs((a[1] - b[1]) / (a[0] - b[0])))
    grid = sorted(s for s in slopes if s < float("inf"))
    grid = sorted({*grid, *((a + b) / 2 for a, b in itertools.pairwise(grid)), grid[-1] + 1})
    return any(
        all(
            options[j][1] + slope * options[j][0] <= min(d + slope * c for c, d in options) + 1e-9
            for options, j in zip(items, chosen, strict=True)
        )
        for slope in grid
    )


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (1, None),
        (2, [0, 0]),
        (4, [1, 0]),  # 10 saved for 2, against 4 for 1 on the other item... which no longer fits beside it
        (5, [1, 1]),
        (100, [2, 1]),
    ],
)
def test_steps_are_taken_by_what_they_save_per_cost(budget: int, expected: list[int] | None) -> None:
    items: list[list[Option]] = [[(1, 20), (3, 10), (9, 8)], [(1, 6), (2, 2), (5, 2)]]
    assert allocate(items, budget) == expected


def test_an_option_that_a_mix_of_others_beats_is_taken_for_what_is_left_only() -> None:
    assert allocate([[(0, 10), (2, 9), (4, 0)]], 3) == [1]
    assert allocate([[(0, 10), (2, 9), (4, 0)]], 4) == [2]
    assert allocate([[(0, 10), (1, 5), (2, 0)]], 1) == [1]  # on the hull, between two others
    assert allocate([[(0, 10), (2, 9), (4, 0)], [(0, 5), (1, 1)]], 3) == [1, 1]
    assert allocate([[(5, 1), (3, 1), (4, 1)]], 9) == [1]  # the cheapest of equals
