"""What can be known to be wrong before anything runs: checked in the driver, over every extreme of the space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atmc_search.errors import AtmcError, DataError, SpecError, did_you_mean, written
from atmc_search.results import STUDY_COLUMNS, Column
from atmc_search.search.recent import Recent
from atmc_search.search.server import KEPT_DATA
from atmc_search.spec import StudySpec, TrialSpec
from atmc_search.spec.paths import value_at
from atmc_search.tasks import Task, TrialSpace


@dataclass(frozen=True)
class Prepared:
    """A study that passed its checks.

    Attributes:
        trials: the study and its task.
        data: of some extremes of the space, what `Task.load` gave, by `Task.load_key`.
        described: a line on each set of data.
        inputs: SHA-256 of files that results depend on, by name.
        columns: of its reports.
        reference: worst values worth counting of its objectives, in their own units; None where there are none.
    """

    trials: TrialSpace
    data: Mapping[str, Any]
    described: tuple[str, ...]
    inputs: Mapping[str, str]
    columns: tuple[Column, ...]
    reference: Mapping[str, float] | None

    @property
    def spec(self) -> StudySpec:
        """The study."""
        return self.trials.study

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)


def prepare(study: StudySpec) -> Prepared:
    """Checks a study and loads its data.

    Raises:
        SpecError: an extreme of the space cannot run, or an objective or a bound makes no sense.
        DataError: a dataset is missing.
    """
    trials = TrialSpace.of(study)
    spec, task = trials.study, trials.task
    metrics = {c.name: c for c in task.columns if c.numeric}
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
    data: Recent[str, Any] = Recent(KEPT_DATA)
    described: dict[str, str] = {}
    inputs: dict[str, str] = {}
    least: dict[str, float] = {}
    worst: dict[str, float] = {}
    checked: set[str] = set()
    for moved, config in trials.extremes():
        trial = trials.fill(config)
        _check_reported(trial, wanted)
        if (seen := trial.model_copy(update={"seed": 0}).model_dump_json()) in checked:
            continue
        checked.add(seen)
        key = task.load_key(trial)
        if key not in data:
            data[key] = _loaded(task, trial)
        loaded = data[key]
        inputs |= task.inputs(trial, loaded)
        described.setdefault(key, task.describe(trial, loaded))
        try:
            task.check(trial, loaded)
        except SpecError as error:
            raise SpecError(f"{error} (at {moved} = {config[moved]})" if moved else str(error)) from None
        for name, value in task.least(trial, loaded).items():
            least[name] = min(value, least.get(name, math.inf))
        for name, value in task.reference(trial, loaded).items():
            worst[name] = max(value, worst.get(name, -math.inf))
    _check_bounds(spec, metrics, least)
    columns = (*STUDY_COLUMNS, *task.columns, *trials.parameter_columns)
    lines = tuple(filter(None, described.values()))
    return Prepared(trials, dict(data.items()), lines, inputs, columns, _reference(spec, metrics, worst))


def _loaded(task: type[Task], trial: TrialSpec) -> Any:
    """What the task loads for a trial.

    Raises:
        DataError: it cannot, whatever its reason.
    """
    try:
        return task.load(trial)
    except AtmcError:
        raise
    except Exception as error:  # a user's task may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"task {task.__name__}: its load failed ({reason}); mend it, or what it reads") from error


def _check_bounds(spec: StudySpec, metrics: Mapping[str, Column], least: Mapping[str, float]) -> None:
    """Passes if every bound of the study can be met."""
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
