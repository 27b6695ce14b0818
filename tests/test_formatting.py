"""How numbers are written: one table a function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmc_search.formatting import number, share, size, with_unit

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (7, "7"),
        (1000, "1,000"),
        (12_345, "12,345"),
        (-12_345, "-12,345"),
        (1e6, "1,000,000"),
        (123_456_789, "123,456,789"),
        (1e15, "1e+15"),
        (0.5, "0.5"),
        (0.123456, "0.1235"),
        (0.000012345, "1.234e-05"),
        (1.0001, "1"),
        (999.96, "1,000"),
        (1234.4, "1,234"),
        (9999.9, "10,000"),
        (12_345.6, "12,346"),
        (999_999.4, "999,999"),
        (1_234_567.8, "1.235e+06"),
        (True, "1"),
        (np.int64(5000), "5,000"),
        (np.float32(0.1), "0.1"),
        ("3", "3"),
        (INF, "inf"),
        (-INF, "-inf"),
        (NAN, "unknown"),
        (None, "unknown"),
        (pd.NA, "unknown"),
        (pd.NaT, "unknown"),
        ("three", "unknown"),
    ],
)
def test_number(value: Any, text: str) -> None:
    assert number(value) == text


def test_number_to_more_or_fewer_digits() -> None:
    assert [number(1234.5678, digits) for digits in (2, 3, 4, 6)] == ["1,235", "1,235", "1,235", "1,234.57"]
    assert [number(0.98765, digits) for digits in (1, 2, 6)] == ["1", "0.99", "0.98765"]
    assert number(None, missing="none") == "none"


@given(st.floats(-999_999, 999_999))
def test_below_a_million_there_is_no_exponent_but_for_the_smallest(value: float) -> None:
    text = number(value)
    assert "e+" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=5.1e-4)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (999.5, "1 kB"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (1_500_000, "1.5 MB"),
        (2e9, "2 GB"),
        (5e12, "5,000 GB"),
        (NAN, "unknown B"),
    ],
)
def test_size(value: float, text: str) -> None:
    assert size(value) == text


def test_share() -> None:
    assert [share(value) for value in (0, 0.875, 1, 0.12345)] == ["0.0 %", "87.5 %", "100.0 %", "12.3 %"]
    assert (share(0.12345, 0), share(0.12345, 2)) == ("12 %", "12.35 %")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1234, "bytes", "1.23 kB"),
        (0.875, "share", "87.5 %"),
        (1.2345, "ms", "1.23 ms"),
        (1500, "ms", "1,500 ms"),
        (0.0123, "", "0.0123"),
        (1500, "weights", "1,500"),
        (123_456.7, "nats", "123,457"),
        (2_000_000, "weights", "2e+06"),
        (-2_000_000, "weights", "-2e+06"),
    ],
)
def test_with_unit(value: float, unit: str, text: str) -> None:
    assert with_unit(value, unit) == text
