from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmc_search.measure import wilson_interval

# Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3 (Wilson's score, z = 1.95996).
PUBLISHED = [
    ((81, 263), (0.2553, 0.3662)),
    ((15, 148), (0.0624, 0.1605)),
    ((0, 20), (0.0, 0.1611)),
    ((1, 29), (0.0061, 0.1718)),
]


@pytest.mark.parametrize(("counts", "ends"), PUBLISHED)
def test_published_intervals(counts, ends):
    assert wilson_interval(*counts) == pytest.approx(ends, abs=6e-5)


@pytest.mark.parametrize(
    ("successes", "n", "ends"),
    [
        (0, 10, (0, 1.96**2 / (10 + 1.96**2))),
        (10, 10, (10 / (10 + 1.96**2), 1)),
        (5, 10, (0.5 - 0.98 / math.sqrt(10 + 1.96**2), 0.5 + 0.98 / math.sqrt(10 + 1.96**2))),
        (0, 1, (0, 1.96**2 / (1 + 1.96**2))),
    ],
)
def test_closed_forms_at_the_ends_and_in_the_middle(successes, n, ends):
    assert wilson_interval(successes, n) == pytest.approx(ends, abs=1e-12)


def score_root(successes: int, n: int, z: float, low: float, high: float) -> float:
    """The p in [low, high] at which |successes/n − p| = z √(p (1 − p) / n), by bisection."""

    def excess(p: float) -> float:
        return abs(successes / n - p) - z * math.sqrt(p * (1 - p) / n)

    inside_low = excess(low) < excess(high)
    for _ in range(100):
        middle = (low + high) / 2
        if (excess(middle) < 0) == inside_low:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@given(st.integers(2, 5000).flatmap(lambda n: st.tuples(st.integers(1, n - 1), st.just(n))), st.floats(0.5, 4))
def test_both_ends_solve_the_score_equation(counts, z):
    successes, n = counts
    low, high = wilson_interval(successes, n, z)
    share = successes / n
    assert low == pytest.approx(score_root(successes, n, z, 0.0, share), abs=1e-9)
    assert high == pytest.approx(score_root(successes, n, z, share, 1.0), abs=1e-9)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_lies_in_0_to_1_and_mirrors(counts):
    successes, n = counts
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_an_end_is_the_share_itself_where_nothing_or_everything_succeeds():
    for n in range(1, 2000):
        assert wilson_interval(0, n)[0] == 0
        assert wilson_interval(n, n)[1] == 1
