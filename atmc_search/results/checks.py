"""What a report has to be before anything believes it: a run folder may be a stranger's, or hold a stray file.

Reports say which values a trial had and where its artifact lies. Both come back into use (a resumed trial is built from
the one, a file is opened by the other), so neither may say more than the study itself: values are the spec's, paths
stay in the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from optuna.distributions import BaseDistribution

from atmc_search.errors import RunError, shown
from atmc_search.results.columns import ATMC_COLUMNS, STUDY_COLUMNS, parameter_columns

_MOST_ROWS = 1 << 20  # a report has one; few bytes of Parquet can stand for billions
_MOST_COLUMNS = 1 << 12
_REMEDY = "move it away to go on without it"
_KINDS = {
    "bool": pa.types.is_boolean,
    "int64": pa.types.is_integer,
    "float64": lambda kind: pa.types.is_floating(kind) or pa.types.is_integer(kind),
    "string": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "timestamp": pa.types.is_timestamp,
}


def read_report(path: Path) -> pa.Table:
    """One file of reports, of which every declared column is of its type.

    Raises:
        RunError: not Parquet, not a file, or no report.
    """
    try:
        # Not pq.read_table, which takes a folder called seed=3 on the way for a column.
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows > _MOST_ROWS or file.metadata.num_columns > _MOST_COLUMNS:
                size = f"{file.metadata.num_rows:,} rows of {file.metadata.num_columns:,} columns"
                raise RunError(f"{path}: has {size}, and a report is one row; {_REMEDY}")
            table = file.read()
        table.validate(full=True)  # text that is no UTF-8, for one
    except (pa.ArrowException, OSError, ValueError, TypeError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise RunError(f"{path}: not readable as Parquet ({reason}); {_REMEDY}") from None
    names = table.column_names
    for name in ("trial", "state"):
        if name not in names:
            raise RunError(f"{path}: has no column {name!r}, so it is no report of a trial; {_REMEDY}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RunError(f"{path}: has two columns {shown(twice)}; {_REMEDY}")
    for field in table.schema:
        _check_type(path, field)
    return table


def _check_type(path: Path, field: pa.Field) -> None:
    declared = next((column.kind for column in (*STUDY_COLUMNS, *ATMC_COLUMNS) if column.name == field.name), None)
    allowed = [_KINDS[declared]] if declared else list(_KINDS.values())
    if not pa.types.is_null(field.type) and not any(fits(field.type) for fits in allowed):
        wanted = declared or "a plain value"
        raise RunError(f"{path}: its column {shown(field.name)} is {field.type}, not {wanted}; {_REMEDY}")


def check_reports(reports: pd.DataFrame, space: Mapping[str, BaseDistribution], where: Path) -> None:
    """Passes if no report says what no trial of this study can.

    Args:
        reports: one row a report.
        space: the study's distributions by dotted path; values that a trial did not use are missing.
        where: the folder, for the message.

    Raises:
        RunError: a trial without a number, a value outside its distribution, or the path of an artifact that leads
            out of the folder.
    """
    if reports["trial"].isna().any() or (reports["trial"] < 0).any():
        raise RunError(f"{where}: a report's trial is no number from 0; {_REMEDY}")
    for name in reports["artifact"].dropna().unique() if "artifact" in reports else ():
        place = PurePosixPath(str(name))
        if place.is_absolute() or ".." in place.parts:
            raise RunError(f"{where}: a report's artifact is {shown(name)}, outside the run's folder; {_REMEDY}")
    for path, distribution in space.items():
        for value in reports[path].dropna().unique() if path in reports else ():
            plain = value.item() if hasattr(value, "item") else value
            if not _contains(distribution, plain):
                (column,) = parameter_columns({path: distribution})
                raise RunError(f"{where}: a report's {path} is {shown(plain)}, not {column.meaning}; {_REMEDY}")


def require_columns(reports: pd.DataFrame, space: Mapping[str, BaseDistribution], where: Path) -> None:
    """Passes if the reports have a column for every distribution of the study, or there are none.

    Raises:
        RunError: they lack one.
    """
    for path in space if len(reports) else ():
        if path not in reports:
            raise RunError(f"{where}: the reports have no column {path!r}, so they are another study's; {_REMEDY}")


def _contains(distribution: BaseDistribution, value: object) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False
