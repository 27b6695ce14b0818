"""What can be known to be wrong before anything runs: checked in the driver, over every corner of the space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from atmc_search.data import Splits, load_splits
from atmc_search.errors import SpecError, did_you_mean, written
from atmc_search.results import STUDY_COLUMNS, Column, parameter_columns
from atmc_search.spec import DataSpec, StudySpec, TrialSpec
from atmc_search.spec.paths import value_at
from atmc_search.tasks import Task, task_named


@dataclass(frozen=True)
class Prepared:
    """A study that passed its checks.

    Attributes:
        spec: the study.
        task: its task's class.
        data: the splits of every data spec that stands at a corner of the space, by that spec.
        columns: of its reports.
        reference: worst values worth counting of its objectives, in their own units; None where there are none.
    """

    spec: StudySpec
    task: type[Task]
    data: Mapping[DataSpec, Splits]
    columns: tuple[Column, ...]
    reference: Mapping[str, float] | None

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


def prepare(spec: StudySpec) -> Prepared:
    """Checks a study and loads its data.

    Raises:
        SpecError: a corner of the space cannot run, or an objective or a bound makes no sense.
        DataError: a dataset is missing.
    """
    task = task_named(spec.task)
    metrics = {c.name: c for c in task.columns if c.kind in ("int64", "float64")}
    for section, names in (("objectives", list(spec.objectives)), ("constraints", list(spec.constraints))):
        for name in names:
            if name not in metrics:
                raise SpecError(
                    f"{section}.{name}: not a metric of task {spec.task!r}; {did_you_mean(name, list(metrics))}"
                )
    wanted = {
        name: (section, metrics[name].needs)
        for section, names in (("constraints", spec.constraints), ("objectives", spec.objectives))
        for name in names
    }
    data: dict[DataSpec, Splits] = {}
    least: dict[str, float] = {}
    worst: dict[str, float] = {}
    checked: set[TrialSpec] = set()
    for moved, config in spec.corners():
        trial = spec.fill(config)
        _check_reported(trial, wanted)
        if trial.data not in data:
            data[trial.data] = load_splits(trial.data)
        if _signature(trial) in checked:
            continue
        checked.add(_signature(trial))
        try:
            task.check(trial, data[trial.data])
        except SpecError as error:
            raise SpecError(f"{error} (at {moved} = {config[moved]})" if moved else str(error)) from None
        for name, value in task.least(trial, data[trial.data]).items():
            least[name] = min(value, least.get(name, math.inf))
        for name, value in task.reference(trial, data[trial.data]).items():
            worst[name] = max(value, worst.get(name, -math.inf))
    for name, bound in spec.constraints.items():
        lowest = max(metrics[name].low, least.get(name, -math.inf))
        if bound.max is not None and bound.max < lowest:
            raise SpecError(
                f"constraints.{name}.max = {bound.max:g}: impossible, the least it can be is {lowest:g}; raise it"
            )
        if bound.min is not None and bound.min > metrics[name].high:
            raise SpecError(
                f"constraints.{name}.min = {bound.min:g}: impossible, the most it can be is {metrics[name].high:g}; "
                "lower it"
            )
    columns = (*STUDY_COLUMNS, *task.columns, *parameter_columns(spec.space))
    return Prepared(spec, task, data, columns, _reference(spec, metrics, worst))


def _check_reported(trial: TrialSpec, wanted: Mapping[str, tuple[str, tuple[str, str] | None]]) -> None:
    """Passes if `trial` reports all `wanted` metrics: by name, the section that names it and what the metric needs."""
    document = {"trial": trial.model_dump(mode="json")}
    for name, (section, needs) in wanted.items():
        if needs is not None and value_at(document, needs[0]) != needs[1]:
            path, value = needs
            raise SpecError(
                f"{section}.{name}: trials do not measure it, as {path} = {written(value_at(document, path))}; "
                f"set {path}: {value}, or remove {section}.{name}"
            )


def _signature(trial: TrialSpec) -> TrialSpec:
    """`trial` without what no check looks at, so that equal work is not checked twice."""
    return trial.model_copy(update={"train": trial.train.model_copy(update={"lr": 1.0}), "seed": 0})


def _reference(
    spec: StudySpec, metrics: Mapping[str, Column], worst: Mapping[str, float]
) -> Mapping[str, float] | None:
    reference = {}
    for name, direction in spec.objectives.items():
        edge = metrics[name].high if direction == "min" else metrics[name].low
        value = worst.get(name, edge) if direction == "min" else edge
        if not math.isfinite(value):
            return None
        reference[name] = value
    return reference
