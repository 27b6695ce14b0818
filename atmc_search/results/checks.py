"""What a report has to be before anything believes it: a run folder may be a stranger's, or hold a stray file.

Reports say which values a trial had and where its artifact lies. Both come back into use (a resumed trial is built from
the one, a file is opened by the other), so neither may say more than the study itself: values are the spec's, paths
stay in the folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from optuna.distributions import BaseDistribution

from atmc_search.errors import RunError, shown
from atmc_search.results.columns import STUDY_COLUMNS
from atmc_search.results.parameters import parameter_columns

_MOST_ROWS = 1 << 20  # a report has one; few bytes of Parquet can stand for billions
_MOST_COLUMNS = 1 << 12
_REMEDY = "move it away to continue without it"
_KINDS = {
    "bool": pa.types.is_boolean,
    "int64": pa.types.is_integer,
    "float64": lambda kind: pa.types.is_floating(kind) or pa.types.is_integer(kind),
    "string": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "timestamp": pa.types.is_timestamp,
}


def read_reports(data: bytes) -> pa.Table:
    """A file's reports, of which every column that all studies have is of its type.

    Raises:
        ValueError: not Parquet, or no reports; says why.
    """
    try:
        # Not pq.read_table, which takes a folder called seed=3 on the way for a column.
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            rows, columns = file.metadata.num_rows, file.metadata.num_columns
            if rows <= _MOST_ROWS and columns <= _MOST_COLUMNS:
                table = file.read(use_threads=False)  # which for a row take twice as long
                table.validate(full=True)  # text that is no UTF-8, for one
    except (pa.ArrowException, OSError, ValueError, TypeError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"not readable as Parquet: {reason}") from None
    if rows > _MOST_ROWS or columns > _MOST_COLUMNS:
        raise ValueError(f"{rows:,} rows of {columns:,} columns, more than reports have")
    names = table.column_names
    for name in ("trial", "state"):
        if name not in names:
            raise ValueError(f"no column {name!r}, so no report of a trial")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two columns {shown(twice)}")
    for field in table.schema:
        _check_type(field)
    for name in ("trial", "state"):
        if table[name].null_count:
            raise ValueError(f"no {name} in a row")
    return table


def _check_type(field: pa.Field) -> None:
    # A task's own columns are as the task declared them, which only its study knows.
    declared = next((column.kind for column in STUDY_COLUMNS if column.name == field.name), None)
    allowed = [_KINDS[declared]] if declared else list(_KINDS.values())
    if not pa.types.is_null(field.type) and not any(fits(field.type) for fits in allowed):
        raise ValueError(f"its column {shown(field.name)} is {field.type}, not {declared or 'a plain value'}")


def check_values(table: pa.Table, space: Mapping[str, BaseDistribution], ranked: Iterable[str] = ()) -> None:
    """Passes if no report says what no trial of this study can.

    Args:
        table: one row a report.
        space: the study's distributions by dotted path; values that a trial did not use are missing.
        ranked: metrics by which the study ranks trials, which are numbers.

    Raises:
        ValueError: a trial below 0, a value outside its distribution, a metric that is no number, or the path of an
            artifact that leads out of the folder; says which.
    """
    for name in ranked:
        kind = table.schema.field(name).type if name in table.column_names else pa.null()
        if not pa.types.is_null(kind) and not _KINDS["float64"](kind):
            raise ValueError(f"its column {shown(name)} is {kind}, not a number")
    if (pc.min(table["trial"]).as_py() or 0) < 0:
        raise ValueError("its trial is no number from 0")
    for name in _distinct(table, "artifact"):
        place = PurePosixPath(str(name))
        if place.is_absolute() or ".." in place.parts:
            raise ValueError(f"its artifact is {shown(name)}, outside the run's folder")
    for path, distribution in space.items():
        for value in _distinct(table, path):
            if not _contains(distribution, value):
                (column,) = parameter_columns({path: distribution})
                raise ValueError(f"its {path} is {shown(value)}, not {column.meaning}")


def _distinct(table: pa.Table, name: str) -> list[Any]:
    """What a column holds; nothing where there is none."""
    return pc.unique(table[name].drop_null()).to_pylist() if name in table.column_names else []


def require_columns(
    reports: pd.DataFrame, space: Mapping[str, BaseDistribution], where: Path, *, some: bool = False
) -> None:
    """Passes if the reports have a column for every distribution of the study, or there are no reports.

    Args:
        reports: one row a report.
        space: the study's distributions by dotted path.
        where: the folder, to be named.
        some: whether one such column is enough: without its task, nobody knows which distributions a study uses.

    Raises:
        RunError: they lack one.
    """
    absent = [path for path in space if path not in reports] if len(reports) else []
    if absent and not (some and len(absent) < len(space)):
        raise RunError(f"{where}: the reports have no column {absent[0]!r}, so they are another study's; {_REMEDY}")


def _contains(distribution: BaseDistribution, value: object) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False
