"""Positions come back, and structure in them is paid back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from atmc_search.artifact.coding import Decoder, Encoder, Meter
from atmc_search.artifact.coding.mask import BUCKETS, PRIORS, Grid, Hints, bucket, code_mask

Mask = NDArray[np.bool_]
RNG = np.random.default_rng(0)


def round_trip(mask: Mask, kernel: tuple[int, int] = (1, 1), hints: Hints | None = None) -> Mask:
    grid, nnz, hints = Grid(*mask.shape, *kernel), int(mask.sum()), hints or Hints()
    encoder = Encoder()
    assert (code_mask(encoder, grid, nnz, hints, mask) == mask).all()
    decoder = Decoder(*encoder.getvalue())
    found = code_mask(decoder, grid, nnz, hints)
    decoder.end()
    return found


def cost(mask: Mask, kernel: tuple[int, int] = (1, 1), hints: Hints | None = None) -> float:
    meter = Meter()
    code_mask(meter, Grid(*mask.shape, *kernel), int(mask.sum()), hints or Hints(), mask)
    return meter.total


def entropy(mask: Mask) -> float:
    """Bits of positions whose only structure is how many there are."""
    p = mask.mean()
    return float(-mask.size * (p * np.log2(p) + (1 - p) * np.log2(1 - p)))


def spots(shape: tuple[int, int], *where: tuple[int, int]) -> Mask:
    mask = np.zeros(shape, dtype=bool)
    for row, column in where:
        mask[row, column] = True
    return mask


def dead() -> Mask:
    """Four of five rows and half of the columns hold nothing."""
    live = np.outer(RNG.random(200) < 0.2, RNG.random(300) < 0.5)
    return live & (RNG.random(live.shape) < 0.5)


def correlated() -> Mask:
    """Kernels of 3 × 3 that are all but full, or all but empty."""
    kernels = np.where(RNG.random((60, 80)) < 0.1, 0.8, 0.02)
    return RNG.random((60, 720)) < np.repeat(kernels, 9, axis=1)


STRUCTURED = {
    "random": (RNG.random((50, 90)) < 0.1, (3, 3)),
    "dead rows and columns": (dead(), (1, 1)),
    "correlated": (correlated(), (3, 3)),
    "the first alone": (spots((30, 50), (0, 0)), (5, 5)),
    "the last alone": (spots((30, 50), (29, 49)), (1, 5)),
    "all but one": (~spots((30, 50), (17, 21)), (5, 1)),
    "all": (np.ones((12, 18), dtype=bool), (3, 3)),
    "one row": (RNG.random((1, 500)) < 0.3, (1, 1)),
    "one column": (RNG.random((500, 1)) < 0.3, (1, 1)),
    "one position": (np.ones((1, 1), dtype=bool), (1, 1)),
    "one row of a map": (RNG.random((1, 64)) < 0.5, (8, 8)),
    "as many phases as there may be": (RNG.random((7, 256)) < 0.5, (8, 16)),
    "columns that four phases do not divide": (RNG.random((9, 33)) < 0.5, (1, 1)),
    "diagonal": (np.eye(64, dtype=bool), (1, 1)),
}


@pytest.mark.parametrize("name", STRUCTURED)
def test_positions_come_back(name):
    mask, kernel = STRUCTURED[name]
    assert (round_trip(mask, kernel) == mask).all()


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
def test_positions_come_back_whatever_the_hints(columns, rows, kernel):
    mask = correlated()
    for prior in range(len(PRIORS)):
        hints = Hints(
            prior,
            len(PRIORS) - 1 - prior,
            RNG.integers(0, BUCKETS, mask.shape[1]) if columns else None,
            RNG.integers(0, BUCKETS, len(mask)) if rows else None,
        )
        assert (round_trip(mask, kernel, hints) == mask).all()


@given(
    rows=st.integers(1, 12),
    channels=st.integers(1, 40),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    density=st.sampled_from([0.02, 0.3, 0.9]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_positions_of_any_extent_come_back(rows, channels, kernel, density, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, channels * kernel[0] * kernel[1])) < density
    mask.flat[rng.integers(mask.size)] = True
    assert (round_trip(mask, kernel) == mask).all()


# --- what they cost


def test_dead_rows_and_columns_cost_little():
    mask = dead()
    assert cost(mask) < 0.7 * entropy(mask)


def test_kernels_that_live_together_cost_little():
    mask = correlated()
    assert cost(mask, (3, 3)) < 0.8 * entropy(mask)
    assert cost(mask, (3, 3)) < 0.85 * cost(mask)


@pytest.mark.parametrize("density", [0.003, 0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("hints", [Hints(3, 3), Hints()], ids=["slow", "usual"])
def test_noise_costs_no_more_than_noise_must(density, hints):
    mask = np.random.default_rng(1).random((500, 800)) < density
    margin = 1.02 if hints.column_prior == 3 else 1.05
    assert cost(mask, hints=hints) <= margin * entropy(mask) + 64


def test_densities_of_related_columns_and_rows_are_believed_once_they_prove_true():
    live_rows, live_columns = RNG.random(100) < 0.1, RNG.random(400) < 0.1
    mask = np.outer(live_rows, live_columns) & (RNG.random((100, 400)) < 0.5)
    told = Hints(columns=5 * live_columns.astype(int), rows=5 * live_rows.astype(int))
    assert cost(mask, hints=told) < 0.6 * cost(mask)
    noise = np.random.default_rng(2).random((100, 400)) < 0.05
    assert cost(noise, hints=told) < 1.03 * cost(noise)


# --- grids


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([(1, 1), (3, 3), (1, 7), (8, 16)]))
@settings(max_examples=100, deadline=None)
def test_strips_cover_all_rows_in_order(rows, channels, kernel):
    grid = Grid(rows, channels * kernel[0] * kernel[1], *kernel)
    for strips in (grid.strips, grid.coarse_strips):
        assert [row for first, end in strips for row in range(first, end)] == list(range(rows))
    assert len(grid.coarse_strips) <= 3
    assert {end for _, end in grid.coarse_strips} <= {end for _, end in grid.strips}


def test_strips_grow():
    sizes = [end - first for first, end in Grid(1000, 100).strips]
    assert len(sizes) == 12
    assert sizes == sorted(sizes)
    assert Grid(1000, 128, 8, 16).strips == [(0, 1000)]


def test_buckets_double():
    expected = [0, 1, 2, 3, 3, *[4] * 4, *[5] * 8, *[6] * 16]
    assert bucket(np.arange(33)).tolist() == expected
    assert bucket(np.array([512, 513, 10**9])).tolist() == [10, 11, 11]
