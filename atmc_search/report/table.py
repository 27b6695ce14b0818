"""The front as a table for a terminal, and as plain data for `--json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from atmc_search.errors import printable
from atmc_search.formatting import number, share, with_unit
from atmc_search.report.labels import column_named, columns_in
from atmc_search.results import Column

_ARROWS = {"min": "↓", "max": "↑"}
_NONE = "–"


def front_table(
    front: pd.DataFrame,
    objectives: Mapping[str, str],
    params: Sequence[str],
    *,
    columns: Sequence[Column] | None = None,
) -> Table:
    """One row a trial: number, objectives, how much smaller than the start, parameters that tell rows apart.

    Args:
        front: rows as `front_of` gives them; any other table of trials does too.
        objectives: metric to "min" or "max"; an arrow says which. Shares are percentages, with half the width of
            their interval where there is one.
        params: dotted paths of the study's distributions. Shown are those with different values in these rows, all of
            them for a single row. The heading is the last part of the path, with the part before it on a line above
            where several paths end alike.
        columns: that describe the metrics; default: those in `front.attrs`. Others are written as plain numbers.

    Where a column of warnings says something (`Column.warning`), it is a last column.
    """
    columns = columns_in(front.attrs) if columns is None else columns
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True)
    table.add_column("trial", justify="right", no_wrap=True)
    cells = [[Text(str(number), style="bold") for number in front["trial"]] if len(front) else []]
    for name, direction in objectives.items():
        # Objectives never wrap, so that a narrow terminal takes the room from the parameters.
        heading = "\n".join(printable(name).rsplit("_", 1)).replace("_", " ")
        table.add_column(Text(f"{heading} {_ARROWS[direction]}"), justify="right", no_wrap=True)
        cells.append(_metric_cells(front, column_named(name, columns)))
    size = next((column for column in columns if column.unit == "bytes" and column.baseline), None)
    if size is not None and {size.name, size.baseline} <= set(front.columns):
        table.add_column("times\nsmaller", justify="right", no_wrap=True)
        ratios = _numbers(front, size.baseline) / _numbers(front, size.name)
        cells.append([_cell(f"{number(ratio, 3)}×" if math.isfinite(ratio) else _NONE) for ratio in ratios])
    headings = _headings(params)
    for name in params:
        if name in front.columns and (len(front) == 1 or front[name].nunique(dropna=False) > 1):
            numeric = pd.api.types.is_numeric_dtype(front[name]) and not pd.api.types.is_bool_dtype(front[name])
            table.add_column(Text(headings[name]), justify="right" if numeric else "left", no_wrap=True)
            cells.append([_cell(_parameter_text(value)) for value in front[name]])
    for column in columns:
        texts = [text if isinstance(text, str) else "" for text in front.get(column.name, ())] if column.warning else []
        if any(texts):
            table.add_column(_cell((column.heading or column.name).replace(" ", "\n", 1)), no_wrap=True)
            cells.append([_cell(text or _NONE) for text in texts])
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    return table


def front_records(front: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as what `json.dumps` takes: missing and non-finite values are None, times ISO 8601 strings."""
    return [
        {str(name): _plain(value) for name, value in zip(front.columns, row, strict=True)}
        for row in front.itertuples(index=False, name=None)
    ]


def _headings(params: Sequence[str]) -> dict[str, str]:
    last = [printable(name).rpartition(".")[2] for name in params]
    return {
        name: leaf if last.count(leaf) == 1 else ".\n".join(printable(name).removeprefix("trial.").rsplit(".", 1))
        for name, leaf in zip(params, last, strict=True)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.isoformat() if isinstance(value, datetime) else value


def _numbers(frame: pd.DataFrame, name: str) -> Any:
    return pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)  # whoever wrote it


def _cell(words: str) -> Text:
    # Text, not str: rich would read brackets in a value as markup.
    return Text(printable(words))


def _metric_cells(front: pd.DataFrame, column: Column) -> list[Text]:
    if front.empty:
        return []
    low_name, high_name = f"{column.name}_low", f"{column.name}_high"
    halves = np.full(len(front), np.nan)
    if {low_name, high_name} <= set(front.columns):
        halves = (_numbers(front, high_name) - _numbers(front, low_name)) / 2
    return [_cell(_metric_text(v, h, column)) for v, h in zip(_numbers(front, column.name), halves, strict=True)]


def _metric_text(value: float, half: float, column: Column) -> str:
    if not math.isfinite(value):
        return _NONE
    if column.unit == "bytes":
        return f"{value:,.0f}"
    if column.unit == "share":
        return share(value) + (f" ± {100 * half:.1f}" if math.isfinite(half) else "")
    return with_unit(value, column.unit) + (f" ± {number(half, 2)}" if math.isfinite(half) else "")


def _parameter_text(value: Any) -> str:
    value = _plain(value)
    if value is None:
        return _NONE
    return number(value, 3) if isinstance(value, float) else str(value)
