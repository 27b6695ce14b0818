"""1-D k-means with a centre at zero against the exact dynamic programme."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from atmc_search.compress import kmeans_with_zero
from atmc_search.compress.kmeans import nearest

Values = NDArray[np.float32]
with_and_without_zero = pytest.mark.parametrize("zero", [True, False])


def cost(values: Values, centres: Values, *, zero: bool) -> float:
    grid = np.append(centres, np.float32(0)) if zero else centres
    x = values[values != 0].astype(np.float64)
    if len(x) == 0:
        return 0.0
    return float(((x[:, None] - grid.astype(np.float64)) ** 2).min(1).sum())


def optimum(values: Values, clusters: int, *, zero: bool) -> float:
    """The least cost, by the O(K n²) programme over prefixes of the sorted values: the last cell of each prefix has a
    centre of its own, or (with zero) the last value goes to zero.
    """
    x = np.sort(values[values != 0].astype(np.float64))
    n = len(x)
    sse = np.full((n, n + 1), np.inf)  # sse[j, i] of x[j:i] about its mean, by Welford's recurrence
    mean, total = np.zeros(n), np.zeros(n)
    for i in range(n):
        delta = x[i] - mean[: i + 1]
        mean[: i + 1] += delta / (i + 1 - np.arange(i + 1))
        total[: i + 1] += delta * (x[i] - mean[: i + 1])
        sse[: i + 1, i + 1] = total[: i + 1]
    best = np.concatenate([[0.0], np.cumsum(x * x)]) if zero else np.concatenate([[0.0], np.full(n, np.inf)])
    for _ in range(clusters):
        more = np.zeros(n + 1)
        for i in range(1, n + 1):
            more[i] = (best[:i] + sse[:i, i]).min()
            if zero:
                more[i] = min(more[i], more[i - 1] + x[i - 1] ** 2)
        best = np.minimum(best, more)
    return float(best[n])


KINDS = 7


def random_values(rng: np.random.Generator, kind: int, n: int) -> Values:
    match kind:
        case 0:
            x = rng.normal(0, 0.05, n)
        case 1:
            x = rng.laplace(0, 1, n)
        case 2:
            x = rng.uniform(-1, 3, n)
        case 3:
            x = rng.choice([-2.0, -1.0, 0.5, 3.0], n) + rng.normal(0, 0.05, n)
        case 4:
            x = rng.integers(-20, 20, n) / 7
        case 5:
            x = rng.choice([-1, 1], n) * 10 ** rng.uniform(-6, 2, n)
        case _:
            x = rng.normal(5, 0.01, n)
    return x.astype(np.float32)


@pytest.mark.parametrize(
    ("values", "clusters", "zero", "best"),
    [
        ([1, 2, 3, 4], 4, True, 0),
        ([1, 2, 10], 1, True, 1 + 4),  # 1 and 2 to zero, 10 alone
        ([1, 2, 10], 1, False, 1 + 4 + 10**2 - 3 * (13 / 3) ** 2 + 0),
        ([1, 2, 10, 11], 2, False, 1),
        ([-10, -9, 9, 10], 2, True, 1),
        ([0, 0, 5], 1, True, 0),
        ([-1, 1], 1, False, 2),
    ],
)
def test_the_programme_itself(values: list[float], clusters: int, zero: bool, best: float) -> None:
    assert optimum(np.array(values, np.float32), clusters, zero=zero) == pytest.approx(best)


def ratios(trials: int, low: int, high: int, clusters: list[int], *, zero: bool) -> NDArray[np.float64]:
    """Cost over optimum of random inputs of every kind."""
    found = np.ones(trials)
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        values = random_values(rng, trial % KINDS, int(rng.integers(low, high)))
        k = int(rng.choice(clusters))
        best = optimum(values, k, zero=zero)
        # Centres are float32, which alone costs about this much.
        if best > 1e-12 * float((values.astype(np.float64) ** 2).sum()):
            found[trial] = cost(values, kmeans_with_zero(values, k, zero=zero), zero=zero) / best
    assert found.min() >= 1 - 1e-5
    assert (found != 1).mean() > 0.5
    return found


@with_and_without_zero
def test_few_values_get_the_optimum(zero: bool) -> None:
    assert ratios(280, 5, 60, [1, 2, 4, 8, 16], zero=zero).max() < 1 + 1e-4


@with_and_without_zero
def test_many_values_get_close_to_the_optimum(zero: bool) -> None:
    found = ratios(28, 600, 800, [1, 2, 4, 8], zero=zero)
    assert found.max() <= 2
    assert np.mean(found <= 1.1) >= 0.9


@with_and_without_zero
def test_a_symmetric_cell_does_not_lose_its_centre(zero: bool) -> None:
    """Without zero, a cell's mean may be zero all the same; its values must not be sent far away for that."""
    values = np.array([-1] * 10 + [1] * 10 + [-1e-3] * 50 + [1e-3] * 50, dtype=np.float32)
    centres = kmeans_with_zero(values, 3, zero=zero)
    assert cost(values, centres, zero=zero) <= 2 * optimum(values, 3, zero=zero) + 1e-9
    assert len(kmeans_with_zero(np.array([-1, 1], dtype=np.float32), 1, zero=False)) == 1


@pytest.mark.parametrize("far", [-1e20, 1e20, -3e38, 1e12])
@with_and_without_zero
def test_an_outlier_does_not_blind_it_to_the_rest(far: float, zero: bool) -> None:
    rest = np.random.default_rng(0).normal(0, 0.01, 500).astype(np.float32)
    centres = kmeans_with_zero(np.append(rest, np.float32(far)), 8, zero=zero)
    assert np.float32(far) in centres
    alone = kmeans_with_zero(rest, 7, zero=zero)
    assert cost(rest, centres, zero=zero) <= 2 * cost(rest, alone, zero=zero)


value = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e-38, 3e38]) | st.floats(
    width=32, allow_nan=False, allow_infinity=False
)


@given(st.lists(value, max_size=40), st.integers(1, 12), st.booleans())
@settings(max_examples=300, deadline=None)
def test_centres_are_few_sorted_finite_and_never_zero(raw: list[float], clusters: int, zero: bool) -> None:
    values = np.array(raw, dtype=np.float32)
    kept = values.copy()
    centres = kmeans_with_zero(values, clusters, zero=zero)
    assert np.array_equal(values, kept)
    assert centres.dtype == np.float32
    assert len(centres) <= clusters
    assert bool((np.diff(centres) > 0).all())
    assert bool(np.isfinite(centres).all())
    assert 0 not in centres
    nonzero = values[values != 0]
    if not zero:
        assert len(centres) >= min(1, len(nonzero))
    if len(centres):
        assert nonzero.min() <= centres[0]
        assert centres[-1] <= nonzero.max()


@given(st.lists(value, max_size=30), st.booleans())
@settings(max_examples=150, deadline=None)
def test_as_many_centres_as_values_cost_nothing(raw: list[float], zero: bool) -> None:
    values = np.array(raw, dtype=np.float32)
    distinct = np.unique(values[values != 0])
    for clusters in (max(len(distinct), 1), len(distinct) + 3):
        centres = kmeans_with_zero(values, clusters, zero=zero)
        assert np.array_equal(centres, distinct)
        assert np.array_equal(nearest(values, centres, zero=zero), values)


@with_and_without_zero
def test_zeros_cost_nothing_and_claim_no_centre(zero: bool) -> None:
    values = random_values(np.random.default_rng(0), 2, 50)
    padded = np.concatenate([values, np.zeros(1000, np.float32), np.full(1000, -0.0, np.float32)])
    assert np.array_equal(kmeans_with_zero(padded, 4, zero=zero), kmeans_with_zero(values, 4, zero=zero))
    assert len(kmeans_with_zero(np.zeros(5, np.float32), 4, zero=zero)) == 0
    assert len(kmeans_with_zero(np.empty(0, np.float32), 4, zero=zero)) == 0


def test_zero_takes_the_small_values_and_only_where_allowed() -> None:
    values = np.array([0.01, -0.02, 0.04, 5, 5.1, -4], dtype=np.float32)
    centres = kmeans_with_zero(values, 2)
    assert centres.tolist() == pytest.approx([-4, 5.05])
    assert nearest(values, centres).tolist() == pytest.approx([0, 0, 0, 5.05, 5.05, -4])
    centres = kmeans_with_zero(values, 3, zero=False)
    assert centres.tolist() == pytest.approx([-4, 0.01, 5.05])
    assert 0 not in nearest(values, centres, zero=False)


def test_the_seed_decides() -> None:
    values = random_values(np.random.default_rng(0), 5, 3000)
    first = kmeans_with_zero(values, 16, seed=3)
    np.random.seed(7)  # noqa: NPY002 - the global generator must not matter
    assert np.array_equal(kmeans_with_zero(values, 16, seed=3), first)
    assert any(not np.array_equal(kmeans_with_zero(values, 16, seed=seed), first) for seed in range(4, 9))


def test_the_order_of_the_values_does_not_matter() -> None:
    values = random_values(np.random.default_rng(0), 1, 500)
    assert np.array_equal(kmeans_with_zero(values[::-1], 8), kmeans_with_zero(values, 8))


@with_and_without_zero
def test_a_warm_start_is_taken_up(zero: bool) -> None:
    """The result is never worse than the centres that were there before."""
    values = random_values(np.random.default_rng(0), 5, 700)
    costs = []
    for seed in range(6):
        warm = kmeans_with_zero(values, 32, zero=zero, seed=seed)
        again = kmeans_with_zero(values, 32, zero=zero, warm=warm)
        costs.append(cost(values, warm, zero=zero))
        assert cost(values, again, zero=zero) <= costs[-1] * (1 + 1e-6)
    assert max(costs) > min(costs) * 1.001  # so that the law could have failed
    none = np.empty(0, np.float32)
    assert np.array_equal(kmeans_with_zero(values, 32, zero=zero, warm=none), kmeans_with_zero(values, 32, zero=zero))


@with_and_without_zero
def test_memory_does_not_grow_with_the_codebook(zero: bool) -> None:
    n = 200_000
    values = np.random.default_rng(0).normal(0, 1, n).astype(np.float32)
    tracemalloc.start()
    centres = kmeans_with_zero(values, 256, zero=zero)
    nearest(values, centres, zero=zero)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(centres) == 256
    assert peak < 12 * n * 8


@with_and_without_zero
def test_large_inputs_reach_the_known_distortion(zero: bool) -> None:
    """A Gaussian's optimal quantisers of 16 and (zero is free) 17 levels: distortion 0.00950, 0.00846 (Max, 1960)."""
    values = np.random.default_rng(1).normal(0, 1, 100_000).astype(np.float32)
    distortion = float(np.mean((values - nearest(values, kmeans_with_zero(values, 16, zero=zero), zero=zero)) ** 2))
    assert distortion == pytest.approx(0.00846 if zero else 0.00950, rel=0.03)


@pytest.mark.parametrize(
    "centres",
    [
        [1 + 2**-23, 1 + 2**-22],  # whose midpoint float32 would round to the second
        [1 + 2**-22, 1 + 3 * 2**-23],
        [2e38, 3e38],  # whose sum float32 does not hold
        [-3e38, -2e38],
        [1e-45, 3e-45],
    ],
)
@with_and_without_zero
def test_centres_stay_where_they_are(centres: list[float], zero: bool) -> None:
    grid = np.array(centres, np.float32)
    assert np.array_equal(nearest(grid, grid, zero=zero), grid)


@given(
    st.lists(value, min_size=1, max_size=30),
    st.lists(value.filter(lambda v: v != 0), max_size=8),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_nearest_is_the_nearest(raw: list[float], raw_centres: list[float], zero: bool) -> None:
    values, centres = np.array(raw, np.float32), np.unique(np.array(raw_centres, np.float32))
    moved = nearest(values, centres, zero=zero)
    assert moved.dtype == np.float32
    assert moved.shape == values.shape
    grid = np.append(centres, np.float32(0)) if zero or len(centres) == 0 else centres
    for x, y in zip(values.astype(np.float64), moved.astype(np.float64), strict=True):
        if x == 0:
            assert y == 0
            continue
        assert np.float32(y) in grid
        # Halves of the gap are rounded in float64 where magnitudes differ by 2^53.
        assert abs(x - y) <= np.abs(x - grid.astype(np.float64)).min() * (1 + 1e-12)
