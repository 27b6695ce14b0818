"""Integer logarithms and probabilities, so that every machine computes the same ones.

Logarithms are to base 2 in units of 2^-8; probabilities are in units of 2^-16. Both come from tables that rounding
alone defines, and no entry lies near a tie (`tests/artifact/coding/test_fixed.py`), so any correct `log2` makes them.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
"""Integers of 64 bits; where NumPy is faster with 32, and they suffice, of 32."""

FRACTION = 8
ONE = 1 << 16
"""Probability 1; probabilities lie in 1 to ONE - 1."""

_UNIT = 1 << FRACTION
_MANTISSAS = 1 << 10
_EXPONENT_OF_1 = 1023
_LARGEST = 15 * _UNIT


def log2(values: NDArray[np.int64]) -> Ints:
    """log2 of integers from 1 to 2^52, in units of 2^-8; the ten bits after the leading one count."""
    # Exact as doubles, whose bits from the 42nd on are the exponent and the ten bits after the leading one.
    return _logarithms().take((values.astype(np.float64).view(np.int64) >> 42) - (_EXPONENT_OF_1 << 10))


def probability(log_odds: Ints) -> Ints:
    """1 / (1 + 2^-x) in units of 2^-16 for log2 odds x in units of 2^-8, beyond ±15 as at ±15."""
    return _logistic().take(log_odds + _LARGEST, mode="clip")


def exp2(logarithms: Ints) -> Ints:
    """2^x in units of 2^-16 for x in units of 2^-8, beyond ±15 as at ±15."""
    return _powers().take(logarithms + _LARGEST, mode="clip")


@cache
def _logarithms() -> Ints:
    """e + log2(1 + i / 1024) at index 1024 e + i, for e up to 52 and i from 0 to 1023."""
    fractions = np.rint(np.log2(1 + np.arange(_MANTISSAS) / _MANTISSAS) * _UNIT).astype(np.int32)
    table: Ints = (np.arange(53, dtype=np.int32)[:, None] * _UNIT + fractions).ravel()
    return table


@cache
def _logistic() -> Ints:
    odds = np.exp2(-np.arange(-_LARGEST, _LARGEST + 1) / _UNIT)
    table: Ints = np.clip(np.rint(ONE / (1 + odds)), 1, ONE - 1).astype(np.int32)
    return table


@cache
def _powers() -> Ints:
    table: Ints = np.rint(ONE * np.exp2(np.arange(-_LARGEST, _LARGEST + 1) / _UNIT)).astype(np.int64)
    return table
