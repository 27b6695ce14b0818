"""Entropy-constrained codebooks against brute force, the plain optimum, and what theory says of a Gaussian."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from atmc_search.compress import Codebook, kmeans_with_zero, priced_cells, requantised
from atmc_search.compress.entropy import Partition, envelope
from atmc_search.compress.kmeans import nearest

Values = NDArray[np.float64]
CENTRE_BITS = 16


def objective(values: Sequence[float], moved: Sequence[float], lam: float, zeros: int | None) -> float:
    """J, by its definition, of values moved to centres; entries that are zero already count where zero is a code."""
    x, y = np.array(values, np.float64), np.array(moved, np.float64)
    coded = np.concatenate([y, np.zeros(zeros or 0)])
    codes, counts = np.unique(coded, return_counts=True)
    bits = (counts * np.log2(len(coded) / counts)).sum()
    books = len(codes) if zeros is None else np.count_nonzero(codes)
    return float(((x - y) ** 2).sum() + lam * (bits + CENTRE_BITS * books))


def every_labelling(n: int, clusters: int, zero: bool) -> Iterator[tuple[int, ...]]:
    """Each value's cluster, in any order and not by intervals only; -1: to zero."""
    return itertools.product(range(-1 if zero else 0, clusters), repeat=n)


def brute(values: Sequence[float], clusters: int, lam: float, zeros: int | None) -> float:
    x, best = np.array(values), np.inf
    for labels in every_labelling(len(x), clusters, zeros is not None):
        of = np.array(labels)
        moved = np.array([0.0 if label < 0 else x[of == label].mean() for label in labels])
        best = min(best, objective(values, moved, lam, zeros))
    return best


@pytest.mark.parametrize("zeros", [None, 0, 3, 40])
@pytest.mark.parametrize("clusters", [1, 2, 3])
def test_few_values_get_the_optimum_over_all_partitions(clusters: int, zeros: int | None) -> None:
    distinct = set()
    for trial in range(9):
        rng = np.random.default_rng(trial)
        n = 6 if clusters == 2 else 5
        values = rng.normal(0, 1, n) + (trial % 3) * rng.choice([-2, 2], n)
        values[1] = values[0] if trial % 2 else values[1]  # a tie
        values = values.astype(np.float32)
        price = [1e-4, 0.01, 0.2][trial // 3]
        cells = priced_cells(values, clusters, price=price, zeros=zeros)
        lam = price * float(np.mean(values.astype(np.float64) ** 2))
        found = objective(values, cells.of(values), lam, zeros)
        assert found == pytest.approx(brute(values.tolist(), clusters, lam, zeros), rel=1e-5, abs=1e-9)
        assert np.count_nonzero(cells.centres) <= clusters
        distinct.add(len(np.unique(cells.of(values))))
    assert len(distinct) > 1 or clusters == 1


@given(
    codes=st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 9) | st.just(np.inf)), min_size=1, max_size=8),
    points=st.lists(st.floats(-8, 8), min_size=1, max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_the_envelope_has_the_cheapest_code_of_any_value(codes, points) -> None:
    codes = sorted({round(c, 2): r for c, r in codes}.items())
    centres, prices = np.array([c for c, _ in codes]), np.array([r for _, r in codes])
    if not np.isfinite(prices).any():
        return
    active, edges = envelope(centres, prices)
    assert (np.diff(edges) > 0).all()
    for x in points:
        costs = (x - centres) ** 2 + prices
        chosen = active[np.searchsorted(edges, x)]
        assert costs[chosen] <= costs.min() + 1e-9


@pytest.mark.parametrize("zeros", [None, 0, 2000])
@pytest.mark.parametrize("price", [0.003, 0.05])
def test_no_step_and_no_merging_raises_the_objective(zeros: int | None, price: float) -> None:
    rng = np.random.default_rng(0)
    x = np.sort(rng.laplace(0, 1, 700))
    lam = price * float(np.mean(x * x))
    partition = Partition(x, 32, lam, zeros)
    grid = np.sort(rng.choice(x, 32, replace=False))
    grid = grid if zeros is None else np.unique(np.append(grid, 0.0))
    found = partition.step(grid, np.zeros(len(grid)))
    costs = [partition.cost(*found)]
    for _ in range(30):
        found = partition.step(found[0], partition.prices(found[1]))
        costs.append(partition.cost(*found))
    assert (np.diff(costs) <= 1e-9 * costs[0]).all()
    assert costs[-1] < 0.99 * costs[0]
    fewer = partition.merged(*found)
    assert partition.cost(*fewer) <= costs[-1]
    assert len(fewer[0]) < len(found[0]) or price > 0.01
    _, edges = envelope(fewer[0], partition.prices(fewer[1]))
    moved = fewer[0][np.searchsorted(edges, x)]
    again = objective(
        x.tolist(), moved.tolist(), lam, zeros
    )  # shares of the cells, which the cost has of the step before
    assert again <= partition.cost(*fewer) + 1e-9 * costs[0]


@pytest.mark.parametrize("zeros", [None, 0, 500])
@pytest.mark.parametrize("price", [0.001, 0.02])
def test_many_values_get_close_to_the_optimum(monkeypatch, zeros: int | None, price: float) -> None:
    """200 values exactly, and as if they were many."""
    ratios = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        values = (rng.normal(0, 1, 200) + rng.choice([-2, 0, 3], 200)).astype(np.float32)
        lam = price * float(np.mean(values.astype(np.float64) ** 2))
        costs = []
        for exact in (256, 64):
            monkeypatch.setattr("atmc_search.compress.entropy.EXACT", exact)
            moved = priced_cells(values, 16, price=price, zeros=zeros).of(values)
            costs.append(objective(values.tolist(), moved.tolist(), lam, zeros))
        ratios.append(costs[1] / costs[0])
    assert min(ratios) > 1 - 1e-6
    assert max(ratios) < 1.08


def test_at_a_vanishing_price_it_is_k_means() -> None:
    for seed in range(5):
        values = np.random.default_rng(seed).normal(0, 1, 90).astype(np.float32)
        plain = nearest(values, kmeans_with_zero(values, 7, zero=False), zero=False)
        priced = priced_cells(values, 7, price=1e-12, zeros=None).of(values)
        assert np.allclose(priced, plain, atol=1e-6)


@pytest.mark.parametrize("price", [0.01, 0.04, 0.15])
def test_of_a_gaussian_it_takes_a_quarter_of_a_bit_more_than_any_code(price: float) -> None:
    """D(R) = 2^(-2R) is Shannon's bound, and scalar codes can be within 0.255 bits of it (Gish and Pierce, 1968)."""
    values = np.random.default_rng(0).normal(0, 1, 100_000).astype(np.float32)

    def rate_and_distortion(moved: NDArray[np.float32]) -> tuple[float, float]:
        _, counts = np.unique(moved, return_counts=True)
        shares = counts / counts.sum()
        return float(-(shares * np.log2(shares)).sum()), float(((moved - values) ** 2).mean())

    rate, distortion = rate_and_distortion(priced_cells(values, 64, price=price, zeros=None).of(values))
    assert 2 ** (-2 * rate) < distortion < 2 ** (-2 * (rate - 0.26))
    plain = round(2**rate) + 1
    more, _ = rate_and_distortion(nearest(values, kmeans_with_zero(values, plain, zero=False), zero=False))
    other = rate_and_distortion(requantised(values, 6, price=price))
    assert more < rate + 0.5
    assert other[0] == pytest.approx(rate, abs=0.05)


@pytest.mark.parametrize("floats", ["fp16", "fp32"])
def test_the_last_projection_keeps_the_support_and_takes_fewer_values_as_codes_cost_more(floats) -> None:
    rng = np.random.default_rng(1)
    values = (rng.normal(0, 1, (60, 20)) * (rng.random((60, 20)) < 0.4)).astype(np.float32)
    counts = []
    for price in (0.0, 0.003, 0.03, 0.3):
        moved = requantised(values, 4, floats=floats, price=price)
        assert np.array_equal(moved != 0, values != 0)
        counts.append(len(np.unique(moved[moved != 0])))
        if floats == "fp16":
            assert np.array_equal(moved.astype(np.float16).astype(np.float32), moved)
    assert counts[0] == 16
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < 8


def test_where_zero_is_a_code_a_non_zero_pays_for_its_place_too() -> None:
    """The same non-zeros, among none and among many zeros: small ones go to zero where zero is the common code."""
    values = torch.from_numpy(np.random.default_rng(0).normal(0, 1, 400).astype(np.float32))
    left = []
    for zeros in (0, 40_000):
        weights = {"w": torch.cat([values, torch.zeros(zeros)])}
        codebook = Codebook(3, price=0.02)
        projected, centres = codebook.project(weights, {})
        assert codebook.violation(projected) == 0
        assert set(projected["w"].unique().tolist()) <= {0.0, *centres["w"].tolist()}
        assert bool((projected["w"][weights["w"] == 0] == 0).all())
        again, _ = codebook.project(weights, centres)
        costs = [objective(values.tolist(), w["w"][:400].tolist(), 0.02, zeros) for w in (projected, again)]
        assert costs[1] <= 1.001 * costs[0]
        left.append(int(projected["w"].count_nonzero()))
    assert left[1] < 0.8 * left[0]


value = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e-38, 3e38]) | st.floats(
    width=32, allow_nan=False, allow_infinity=False
)


@given(st.lists(value, max_size=30), st.integers(1, 9), st.sampled_from([None, 0, 7]), st.sampled_from([1e-9, 0.05, 9]))
@settings(max_examples=200, deadline=None)
def test_any_values_get_few_sorted_finite_centres(raw, clusters, zeros, price) -> None:
    values = np.array(raw, np.float32)
    cells = priced_cells(values, clusters, price=price, zeros=zeros)
    moved = cells.of(values)
    assert np.isfinite(cells.centres).all()
    assert (np.diff(cells.centres) >= 0).all()
    assert len(np.unique(cells.centres[cells.centres != 0])) <= clusters
    assert set(moved[values != 0].tolist()) <= set(cells.centres.tolist())
    assert (moved[values == 0] == 0).all()
    if zeros is None:
        assert (moved[values != 0] != 0).all()
