"""Signs, indices and steps come back, and what can be learned of them is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmc_search.artifact.coding import Decoder, Encoder, Meter
from atmc_search.artifact.coding.mask import Grid
from atmc_search.artifact.coding.values import code_ascending, code_indices, code_signs

RNG = np.random.default_rng(0)


def both_ways(code):
    """What `code(coder, known)` finds when it reads what it wrote, and the bits that it took."""
    encoder = Encoder()
    meter = Meter(encoder)
    code(meter, True)
    decoder = Decoder(*encoder.getvalue())
    found = code(decoder, False)
    decoder.end()
    return found, meter.total


def signs_of(mask, positive, kernel=(1, 1)):
    grid = Grid(*mask.shape, *kernel)
    found, bits = both_ways(lambda coder, known: code_signs(coder, grid, mask, positive if known else None))
    assert (found == (positive & mask)).all()
    return bits


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (1, 9), (2, 1)])
@pytest.mark.parametrize("density", [0.01, 0.3, 1.0])
def test_signs_come_back(kernel, density):
    mask = RNG.random((40, 90)) < density
    for share in (0, 0.5, 1):
        signs_of(mask, mask & (RNG.random(mask.shape) < share), kernel)


def test_signs_of_no_non_zeros_are_none():
    assert signs_of(np.zeros((4, 6), bool), np.zeros((4, 6), bool)) == 0


def test_random_signs_take_a_bit_each():
    mask = np.random.default_rng(0).random((200, 360)) < 0.3
    assert signs_of(mask, RNG.random(mask.shape) < 0.5, (3, 3)) < 1.01 * mask.sum() + 64


@pytest.mark.parametrize(("kernel", "share"), [((1, 1), 0.6), ((3, 3), 0.6)])
def test_columns_that_agree_in_sign_take_fewer_bits(kernel, share):
    mask = RNG.random((300, 90)) < 0.5
    positive = mask & (RNG.random(mask.shape) < np.where(RNG.random(90) < 0.5, 0.05, 0.95))
    assert signs_of(mask, positive, kernel) < share * mask.sum()


def test_kernels_that_agree_in_sign_take_fewer_bits():
    mask = RNG.random((60, 900)) < 0.7
    leaning = np.repeat(np.where(RNG.random((60, 100)) < 0.5, 0.05, 0.95), 9, axis=1)
    positive = mask & (RNG.random(mask.shape) < leaning)
    assert signs_of(mask, positive, (3, 3)) < 0.65 * mask.sum()
    assert signs_of(mask, positive) > 0.95 * mask.sum()  # which columns alone do not show


def indices_of(known, choices, counts=None):
    found, bits = both_ways(
        lambda coder, tell: code_indices(coder, choices, known if tell else None, len(known), counts)
    )
    assert (found == known).all()
    return bits


@given(st.integers(2, 300), st.integers(0, 200), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_indices_come_back(choices, size, seed):
    rng = np.random.default_rng(seed)
    indices_of((rng.random(size) ** 3 * choices).astype(np.int64), choices)
    indices_of(rng.integers(0, choices, size), choices, rng.integers(1, 50, choices))


def test_one_choice_takes_nothing():
    assert indices_of(np.zeros(70, dtype=np.int64), 1) == 0
    assert indices_of(np.zeros(0, dtype=np.int64), 5) == 0


@pytest.mark.parametrize("shares", [[0.5, 0.25, 0.125, 0.125], [0.9, 0.1], [1 / 16] * 16], ids=str)
def test_indices_take_their_entropy_and_what_learning_it_costs(shares):
    rng, n = np.random.default_rng(3), 10_000
    known = rng.choice(len(shares), n, p=shares)
    p = np.bincount(known) / n
    assert indices_of(known, len(shares)) <= 1.01 * -n * (p * np.log2(p)).sum() + 8 * len(shares) + 16


def test_counts_to_start_from_are_believed():
    known = np.full(12, 3)
    assert indices_of(known, 8, np.array([1, 1, 1, 1000, 1, 1, 1, 1])) < 1 < indices_of(known, 8)


@given(st.sampled_from([15, 31]), st.integers(0, 60), st.integers(0, 999), st.booleans())
@settings(max_examples=80, deadline=None)
def test_ascending_numbers_come_back(width, size, seed, dense):
    rng = np.random.default_rng(seed)
    top = 2 * size + 1 if dense else (1 << width) - 1
    known = np.sort(rng.choice(np.arange(1, top + 1) if dense else rng.integers(1, top + 1, 2 * size + 1), size))
    found, _ = both_ways(lambda coder, tell: code_ascending(coder, width, known if tell else None, size))
    assert (found == known).all()


@pytest.mark.parametrize("width", [15, 31])
def test_ascending_numbers_reach_the_ends(width):
    known = np.array([1, (1 << width) - 1])
    found, _ = both_ways(lambda coder, tell: code_ascending(coder, width, known if tell else None, 2))
    assert (found == known).all()
