"""Metrics in words: what a column is called for people, and how its values are written. One rule for every report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from atmc_search.errors import printable
from atmc_search.results import Column


def column_named(name: str, columns: Sequence[Column]) -> Column:
    """The declared column, or a plain one for a metric that is declared nowhere."""
    return next((column for column in columns if column.name == name), Column(name, "float64", "", ""))


def label(column: Column) -> str:
    """The column's name for people: "size" for size_bytes, since its values are written with their unit."""
    return printable(column.name).removesuffix(f"_{column.unit}").replace("_", " ")


def capitalised(words: str) -> str:
    """The words with a capital at the start, and all other letters as they are."""
    return words[:1].upper() + words[1:]


def value_text(value: float, column: Column) -> str:
    """A value with its unit, short enough for a figure: 12.3 kB, 87.5 %, 0.0123."""
    if column.unit == "bytes":
        return bytes_text(value)
    if column.unit == "share":
        return f"{100 * value:.1f} %"
    if column.unit == "ms":
        return f"{significant(value, 3)} ms"
    return significant(value, 4)


def bytes_text(value: float) -> str:
    """A size to three digits in the decimal units that file systems and data sheets use: 1 kB = 1000 bytes."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= 0.9995 * scale:
            return f"{significant(value / scale)} {unit}"
    return f"{significant(value)} B"


def significant(value: float, digits: int = 3) -> str:
    """`value` to some significant digits, whole numbers below a million never in exponents."""
    if 10**digits <= abs(value) < 1e6 and math.isfinite(value):
        return f"{value:.0f}"
    return f"{value:.{digits}g}"
