"""Columns in words: what one is called for people. One rule for every table and figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atmc_search.errors import printable
from atmc_search.results import Column


def columns_in(attrs: Mapping[Any, Any]) -> tuple[Column, ...]:
    """The columns that a table of trials carries in its `attrs`, as the run's files describe them."""
    described = attrs.get("columns", {})
    return tuple(Column.from_described(name, kind, words) for name, (kind, words) in described.items())


def column_named(name: str, columns: Sequence[Column]) -> Column:
    """The column of that name, or a plain one for a metric that nobody describes."""
    return next((column for column in columns if column.name == name), Column(name, "float64", "", ""))


def label(column: Column) -> str:
    """The column's name for people: "size" for size_bytes, since its values are written with their unit."""
    return printable(column.name).removesuffix(f"_{column.unit}").replace("_", " ")


def capitalised(words: str) -> str:
    """The words with a capital at the start, and all other letters as they are."""
    return words[:1].upper() + words[1:]
