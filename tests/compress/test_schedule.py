from __future__ import annotations

import pytest

from atmc_search.compress import CubicSchedule


@pytest.mark.parametrize(
    ("progress", "k"),
    [(0.0, 1100), (0.1, 1100), (0.35, 100 + 125), (0.6, 100), (0.6 + 1e-9, 100), (1.0, 100), (0.225, 100 + 422)],
)
def test_the_budget_is_all_until_begin_k_from_end_and_cubic_between(progress, k):
    """N = 1100, k = 100: half way (1 - 1/2)³ = 1/8 of the 1000 are left, a quarter of the way 27/64."""
    assert CubicSchedule(entries=1100, k=100, begin=0.1, end=0.6).k_at(progress) == k


def test_the_budget_never_rises_again():
    schedule = CubicSchedule(entries=10_000, k=7, begin=0.0, end=1.0)
    budgets = [schedule.k_at(step / 500) for step in range(501)]
    assert budgets == sorted(budgets, reverse=True)
    assert (budgets[0], budgets[-1]) == (10_000, 7)


@pytest.mark.parametrize(("freeze", "progress", "frozen"), [(0.8, 0.79, False), (0.8, 0.8, True), (1.0, 0.999, False)])
def test_the_support_is_frozen_from_its_share_on(freeze, progress, frozen):
    assert CubicSchedule(entries=9, k=3, begin=0.1, end=0.6, freeze=freeze).frozen(progress) == frozen
