"""Whether a class keeps the declared part of the Task contract: said before anything runs, not in the first report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from atmc_search.errors import SpecError, shown, written
from atmc_search.results import STUDY_COLUMNS, Column
from atmc_search.spec import TrialSpec
from atmc_search.tasks.base import Task


def check_task(task: type[Task]) -> None:
    """Passes if a class declares what a task must: its methods, its spec and its columns.

    Raises:
        SpecError: names the class and what is missing or wrong.
    """
    where = f"task {task.__name__}"
    if missing := sorted(task.__abstractmethods__):
        raise SpecError(f"{where}: lacks {', '.join(missing)}; implement what atmc_search.tasks.Task requires")
    spec = getattr(task, "Spec", None)
    if not (isinstance(spec, type) and issubclass(spec, TrialSpec)):
        raise SpecError(f"{where}: Spec is {shown(spec)}; set Spec to a subclass of atmc_search.spec.TrialSpec")
    columns = getattr(task, "columns", None)
    if not isinstance(columns, tuple | list) or not all(isinstance(column, Column) for column in columns):
        raise SpecError(f"{where}: columns is {shown(columns)}; set columns to a tuple of atmc_search.results.Column")
    _check_columns(where, columns)
    _check_objectives(where, task.objectives)


def _check_columns(where: str, columns: Sequence[Column]) -> None:
    """Passes if these columns can stand in one table with those that every study has."""
    own = {column.name for column in STUDY_COLUMNS}
    seen: set[str] = set()
    for column in columns:
        here = f"{where}: column {column.name!r}"
        if column.name in own:
            raise SpecError(f"{here}: is a column that every study has; rename it")
        if column.name in seen:
            raise SpecError(f"{here}: is declared twice; rename one of them")
        if str(column.name).startswith("trial."):
            raise SpecError(f"{here}: names that begin with 'trial.' are those of sampled values; rename it")
        if not re.fullmatch(r"[A-Za-z_]\w*", str(column.name)):
            raise SpecError(f"{here}: a name has letters, digits and '_', and begins with no digit; rename it")
        if column.kind not in ("bool", "int64", "float64", "string"):
            raise SpecError(f"{here}: kind = {written(column.kind)}: a metric is bool, int64, float64 or string")
        if column.better not in ("min", "max", ""):
            raise SpecError(f"{here}: better = {written(column.better)}: must be min, max or empty; write one of these")
        if not column.low <= column.high:
            raise SpecError(f"{here}: low = {column.low:g} is above high = {column.high:g}; exchange them")
        seen.add(column.name)
    for column in columns:
        for other in filter(None, (column.samples, column.baseline)):
            if other not in seen:
                raise SpecError(
                    f"{where}: column {column.name!r} refers to a column {other!r}, which the task does not declare; "
                    "declare it, or remove the reference"
                )


def _check_objectives(where: str, objectives: Mapping[str, Any]) -> None:
    for name, direction in objectives.items():
        if direction not in ("min", "max"):
            raise SpecError(
                f"{where}: objectives.{name} = {written(direction)}: must be min or max; write one of these"
            )
