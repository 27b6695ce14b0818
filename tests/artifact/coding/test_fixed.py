"""The integer tables are those of exact arithmetic, and no rounding in them is close."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest

from atmc_search.artifact.coding.fixed import ONE, exp2, log2, probability

ODDS = np.arange(-15 * 256, 15 * 256 + 1)
HALF = Decimal("0.5")


def exact_powers(sign: int) -> list[Decimal]:
    """2^(sign · x / 256) for every x in `ODDS`."""
    root = Decimal(2) ** (Decimal(1) / 256)
    return [root ** (sign * int(x)) for x in ODDS]


def agrees(table: list[int], exact: list[Decimal]) -> None:
    """Every entry is the rounded one, and no tie lies within a millionth of a unit of what is rounded."""
    for entry, value in zip(table, exact, strict=True):
        assert abs(value - entry) < HALF - Decimal("1e-6"), (entry, value)


def test_logarithms_are_those_of_exact_arithmetic_and_none_is_near_a_tie():
    with localcontext() as context:
        context.prec = 40
        exact = [256 * (Decimal(1024 + i) / 1024).ln() / Decimal(2).ln() for i in range(1024)]
        agrees(log2(np.arange(1024, 2048)).astype(int) - 10 * 256, exact)


def test_probabilities_are_those_of_exact_arithmetic_and_none_is_near_a_tie():
    with localcontext() as context:
        context.prec = 40
        exact = [min(max(ONE / (1 + odds), Decimal(1)), Decimal(ONE - 1)) for odds in exact_powers(-1)]
        agrees(probability(ODDS).tolist(), exact)


def test_powers_are_those_of_exact_arithmetic_and_none_is_near_a_tie():
    with localcontext() as context:
        context.prec = 40
        agrees(exp2(ODDS).tolist(), [ONE * power for power in exact_powers(1)])


@pytest.mark.parametrize("exponent", range(0, 52, 3))
def test_a_logarithm_counts_the_ten_bits_after_the_leading_one_and_no_others(exponent):
    mantissas = np.arange(1024)
    expected = exponent * 256 + log2(1024 + mantissas) - 10 * 256
    lowest = ((1024 + mantissas) << exponent) >> 10
    exact = lowest << 10 == (1024 + mantissas) << exponent
    assert (log2(lowest[exact]) == expected[exact]).all()
    if exponent > 10:
        highest = lowest + (1 << (exponent - 10)) - 1
        assert (log2(highest) == expected).all()


def test_whole_powers_of_two_are_exact():
    exponents = np.arange(52)
    assert (log2(np.int64(1) << exponents) == 256 * exponents).all()
    assert (exp2(256 * np.arange(-15, 16)) == [ONE * 2.0**x for x in range(-15, 16)]).all()


@pytest.mark.parametrize("function", [probability, exp2])
def test_tables_ascend_and_stop_at_their_ends(function):
    assert (np.diff(function(ODDS)) >= 0).all()
    beyond = np.array([-(10**6), -15 * 256 - 1, 15 * 256 + 1, 10**6])
    ends = function(ODDS)[[0, 0, -1, -1]]
    assert (function(beyond) == ends).all()


def test_logarithms_ascend():
    values = np.unique(np.concatenate([np.arange(1, 5000), np.geomspace(1, 2**52, 5000).astype(np.int64)]))
    assert (np.diff(log2(values)) >= 0).all()


def test_opposite_odds_have_opposite_probabilities_to_one_unit():
    sums = probability(ODDS) + probability(-ODDS)
    assert (np.abs(sums - ONE) <= 1).all()
    assert probability(ODDS).min() >= 1
    assert probability(ODDS).max() <= ONE - 1
    assert probability(np.zeros(1, dtype=int))[0] == ONE // 2
