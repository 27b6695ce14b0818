"""Reading a run: its trials, and the front of any table of trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from atmc_search.errors import AtmcError, shown
from atmc_search.registry import validated
from atmc_search.report import columns_in
from atmc_search.results import STUDY_COLUMNS, Column, RunFolder, front_of, parameter_columns
from atmc_search.spec import BoundSpec, StudySpec

_NO_OBJECTIVES = "the table names no objectives; pass objectives={'size_bytes': 'min', ...} or read it by load_trials"


def load_study(path: str | Path, overrides: Mapping[str, object] | None = None) -> StudySpec:
    """A study read from a YAML file and checked, its `trial` section by its task, which is imported.

    Args:
        path: the file.
        overrides: values by dotted path, set before anything is checked: {"trial.compress.bits": 4}.

    Raises:
        SpecError: the file is missing, not YAML, or breaks a rule.
    """
    from atmc_search.spec import load_study as read
    from atmc_search.tasks import checked

    return checked(read(path, overrides), str(path))


def load_trials(run: str | Path) -> pd.DataFrame:
    """One row a trial of the study in folder `run`; see `atmc-search columns` for what the columns mean.

    The study's objectives, constraints and the description of its columns travel in `attrs`, where `front` and `choose`
    find them.

    Raises:
        AtmcError: the folder is no run, or damaged.
    """
    folder = RunFolder.open(run)
    trials = folder.read_trials()
    columns = _declared(columns_in(trials.attrs), folder)
    trials.attrs["columns"] = {column.name: [column.kind, column.described()] for column in columns}
    return trials


def described_columns(folder: RunFolder) -> tuple[Column, ...]:
    """The columns of a run, as its files describe them, or as they are declared where an earlier release wrote these.

    Raises:
        AtmcError: the folder cannot be read.
    """
    return _declared(folder.columns(), folder)


def _declared(found: tuple[Column, ...], folder: RunFolder) -> tuple[Column, ...]:
    """The columns of a run's files. Of earlier releases these hold units and meanings only: declarations stand in."""
    if not found or any(column.role != "metric" for column in found):
        return found
    from atmc_search.tasks import TASKS, task_named

    spec = folder.spec()
    declared, orders = list(STUDY_COLUMNS), {}
    if spec.task in TASKS:  # of others nothing is imported
        task = task_named(spec.task)
        declared += task.columns
        orders = {path: tuple(task.presets) for path in task.deciding[:1]}
    declared += parameter_columns(spec.distributions, orders)
    known = {column.name: column for column in declared}
    return tuple(known.get(column.name, column) for column in found)


def front(
    trials: pd.DataFrame,
    objectives: Mapping[str, str] | None = None,
    constraints: Mapping[str, Mapping[str, float]] | None = None,
) -> pd.DataFrame:
    """The nondominated rows of `trials`, sorted by the first objective.

    Args:
        trials: as from `load_trials`, or a part of it, or several studies' concatenated.
        objectives: metric to "min" or "max"; default: the study's own.
        constraints: metric to {"min": …, "max": …}; default: the study's own (none when objectives are given).

    Raises:
        AtmcError: no objectives, one is no column, or a direction or a bound makes no sense.
    """
    if objectives is None and constraints is None:
        constraints = trials.attrs.get("constraints")
    found = front_of(trials, objectives_of(trials, objectives), constraint_specs(constraints))
    found.attrs |= trials.attrs
    return found


def constraint_specs(constraints: Mapping[str, Mapping[str, float]] | None) -> dict[str, BoundSpec]:
    """Constraints as plain data, validated.

    Raises:
        SpecError: one makes no sense.
    """
    return {
        name: validated(BoundSpec, bound, path=f"constraints.{name}") for name, bound in (constraints or {}).items()
    }


def objectives_of(trials: pd.DataFrame, objectives: Mapping[str, str] | None) -> dict[str, str]:
    """The objectives given, or those of the study that the table is of.

    Raises:
        AtmcError: there are none, or a direction is none.
    """
    found = objectives or trials.attrs.get("objectives")
    if not found:
        raise AtmcError(_NO_OBJECTIVES)
    for name, direction in found.items():
        if direction not in ("min", "max"):
            raise AtmcError(f"objectives[{name!r}] = {shown(direction)}: no direction; write 'min' or 'max'")
    return dict(found)
