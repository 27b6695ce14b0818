"""How numbers are written for people: one way for every message, table and figure."""

from __future__ import annotations

import math
from typing import Any


def number(value: Any, digits: int = 4, *, missing: str = "unknown") -> str:
    """Whole numbers in full, with commas; others to some significant digits, without an exponent below a million.

    Args:
        value: a number, or what stands for none: None, NaN, pandas' NA.
        digits: significant digits.
        missing: what is written for none.
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        return missing
    if math.isnan(found):
        return missing
    if found.is_integer() and abs(found) < 1e15:
        return f"{int(found):,}"
    text = f"{found:,.{digits}g}"
    return f"{found:,.0f}" if "e+" in text and abs(found) < 1e6 else text


def size(value: float) -> str:
    """Bytes to three digits in the decimal units that file systems and data sheets use: 1 kB = 1000 bytes."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= 0.9995 * scale:
            return f"{number(value / scale, 3)} {unit}"
    return f"{number(value, 3)} B"


def share(value: float, decimals: int = 1) -> str:
    """A share as a percentage: 87.5 %."""
    return f"{100 * value:.{decimals}f} %"


def with_unit(value: float, unit: str) -> str:
    """A value short enough for a figure: 12.3 kB, 87.5 %, 1.25 ms, 0.0123."""
    if unit == "bytes":
        return size(value)
    if unit == "share":
        return share(value)
    if unit == "ms":
        return f"{number(value, 3)} ms"
    return f"{value:.3g}" if abs(value) >= 1e6 else number(value)
