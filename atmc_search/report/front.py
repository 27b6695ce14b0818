"""What there is to see of a study's front: every other objective against the first minimised one (size, as a rule).

`front_data` decides everything that can be right or wrong; `figures.front` only draws it. To show something new, add it
here first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atmc_search.report.labels import column_named, columns_in
from atmc_search.results import STUDY_COLUMNS, Column, front_of
from atmc_search.results.derive import MEASURED, feasible, minimised
from atmc_search.spec import BoundSpec

Standing = Literal["front", "dominated", "infeasible"]

NOT_SET = "not set"
"""The group of trials that lack a value of the column by which points are told apart."""


@dataclass(frozen=True)
class Point:
    """One measured trial in one panel.

    Attributes:
        trial: its number.
        x, y: its values, in the units of the two columns.
        low, high: ends of the interval of y, None where none was recorded.
        standing: on the front of *all* objectives, dominated, or infeasible (outside the constraints).
        on_line: whether it is a corner of the panel's staircase. A trial can be on the front for another objective's
            sake and lie below the line in this panel.
        group: which of `FrontData.groups` it belongs to, None where points are not told apart.
    """

    trial: int
    x: float
    y: float
    low: float | None
    high: float | None
    standing: Standing
    on_line: bool
    group: str | None = None


@dataclass(frozen=True)
class Baseline:
    """What trials are compared with, such as the dense model that they start from.

    Attributes:
        name: what it is called.
        y: its value of the panel's metric; the best one, where trials had different ones.
        x: its value of the shared metric, None where none was recorded.
        starts: how many different values of y there are.
    """

    name: str
    y: float
    x: float | None
    starts: int


@dataclass(frozen=True)
class Panel:
    """One objective against the shared metric.

    Attributes:
        column: the objective.
        direction: "min" or "max".
        points: measured trials with finite values, by x.
        staircase: (x, y) corners of the attainment line: y is the best value reachable at x or better. From one corner
            the line keeps its y up to the next corner's x. Over feasible trials only.
        dense: what trials are compared with, None where nothing was recorded.
    """

    column: Column
    direction: str
    points: tuple[Point, ...]
    staircase: tuple[tuple[float, float], ...]
    dense: Baseline | None


@dataclass(frozen=True)
class FrontData:
    """All that the figure says.

    Attributes:
        title: the study's name, "" where the table has none.
        x: the metric that all panels share.
        x_direction: "min" or "max"; "min" for trial numbers, where the line is the best so far.
        panels: one for each other objective.
        trials: measured trials.
        front: how many of them are on the front.
        samples: how many samples the metrics were measured on, such as "287 images"; "" where that was not recorded or
            differs between trials.
        by: the column by whose values points are told apart, "" where there is none, or all points share a value.
        groups: these values: in the order of that column, all others by name, `NOT_SET` last.
        order: all values that the column can have, in order.
        group_counts: for each group, how many of its trials are on the front and how many were measured.
    """

    title: str
    x: Column
    x_direction: str
    panels: tuple[Panel, ...]
    trials: int
    front: int
    samples: str
    by: str = ""
    groups: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    group_counts: tuple[tuple[int, int], ...] = ()


def front_data(
    trials: pd.DataFrame,
    objectives: Mapping[str, str],
    constraints: Mapping[str, BoundSpec] | None = None,
    *,
    columns: Sequence[Column] | None = None,
    by: str | None = None,
) -> FrontData:
    """What there is to see of a study's front.

    The shared metric is the first minimised objective, or the first one if all are maximised; a single objective is
    shown against the number of the trial. Trials that failed or are still running are left out.

    Args:
        trials: one row a trial (`RunFolder.read_trials`); `attrs["name"]` becomes the title.
        objectives: metric to "min" or "max", at least one.
        constraints: bounds that a trial must keep to count.
        columns: that describe the metrics; default: those in `trials.attrs`. Others are drawn as plain numbers.
        by: a column by which points are told apart, where it has different values; default: the first that has an
            order.

    Raises:
        RunError: an objective is no column.
    """
    assert objectives, "a study has at least one objective"
    columns = (*(columns_in(trials.attrs) if columns is None else columns), *STUDY_COLUMNS)
    if by is None:
        by = next((column.name for column in columns if column.order), "")
    if len(objectives) == 1:
        x_name, x_direction = "trial", "min"
    else:
        x_name = next((name for name, direction in objectives.items() if direction == "min"), next(iter(objectives)))
        x_direction = objectives[x_name]
    front = front_of(trials, objectives, constraints)
    measured = trials if trials.empty else trials[trials["state"].isin(MEASURED)]
    within = feasible(measured, constraints or {})
    on_front = measured["trial"].isin(front["trial"]).to_numpy(dtype=bool) if len(measured) else within
    standings: list[Standing] = [
        "front" if best else "dominated" if good else "infeasible" for best, good in zip(on_front, within, strict=True)
    ]
    # A trial that lacks one objective is on no front, so it must not lift the line of another.
    counts = within & (np.isfinite(minimised(measured, objectives)).all(axis=1) if len(measured) else within)
    x = _numbers(measured, x_name)
    member = _members(measured, by)
    order = column_named(by, columns).order
    groups = _ordered(member, order)
    panels = []
    for name, direction in objectives.items():
        if name == x_name:
            continue
        staircase = _staircase(x[counts], _numbers(measured, name)[counts], x_direction, direction)
        panels.append(
            Panel(
                column=column_named(name, columns),
                direction=direction,
                points=_points(measured, x, name, standings, staircase, member),
                staircase=staircase,
                dense=_baseline(measured, column_named(x_name, columns), column_named(name, columns), direction),
            )
        )
    return FrontData(
        title=str(trials.attrs.get("name", "")),
        x=column_named(x_name, columns),
        x_direction=x_direction,
        panels=tuple(panels),
        trials=len(measured),
        front=len(front),
        samples=_samples(measured, [panel.column for panel in panels], columns),
        by=by if groups else "",
        groups=groups,
        order=order if groups else (),
        group_counts=tuple((np.array(member)[on_front].tolist().count(name), member.count(name)) for name in groups),
    )


def _members(trials: pd.DataFrame, by: str) -> list[str | None]:
    """Each trial's group; all None where points need not be told apart."""
    if by not in trials.columns:
        return [None] * len(trials)
    names = [NOT_SET if pd.isna(value) else str(value) for value in trials[by]]
    return list(names) if len(set(names)) > 1 else [None] * len(trials)


def _samples(trials: pd.DataFrame, metrics: Sequence[Column], columns: Sequence[Column]) -> str:
    """How many samples the metrics of a figure were measured on, where all trials say the same."""
    counted = next((column.samples for column in metrics if column.samples), "")
    numbers = _numbers(trials, counted)
    distinct = {int(n) for n in numbers[np.isfinite(numbers)]}
    return f"{distinct.pop():,} {column_named(counted, columns).unit}" if len(distinct) == 1 else ""


def _ordered(member: Sequence[str | None], order: Sequence[str]) -> tuple[str, ...]:
    places = {name: place for place, name in enumerate(order)}
    names = {name for name in member if name is not None}
    return tuple(sorted(names, key=lambda name: (name == NOT_SET, places.get(name, len(places)), name)))


def _numbers(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    return pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)  # whoever wrote it


def _points(
    trials: pd.DataFrame,
    x: NDArray[np.float64],
    name: str,
    standings: Sequence[Standing],
    staircase: Sequence[tuple[float, float]],
    member: Sequence[str | None],
) -> tuple[Point, ...]:
    y, low, high = (_numbers(trials, name + end) for end in ("", "_low", "_high"))
    corners = set(staircase)
    points = [
        Point(
            trial=int(trial),
            x=float(x[i]),
            y=float(y[i]),
            low=_or_none(low[i]),
            high=_or_none(high[i]),
            standing=standings[i],
            on_line=standings[i] != "infeasible" and (x[i], y[i]) in corners,
            group=member[i],
        )
        for i, trial in enumerate(trials["trial"] if len(trials) else ())
        if math.isfinite(x[i]) and math.isfinite(y[i])
    ]
    return tuple(sorted(points, key=lambda point: (point.x, point.trial)))


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _staircase(
    x: NDArray[np.float64], y: NDArray[np.float64], x_direction: str, y_direction: str
) -> tuple[tuple[float, float], ...]:
    x_cost = x if x_direction == "min" else -x
    y_cost = y if y_direction == "min" else -y
    corners: list[tuple[float, float]] = []
    best = math.inf
    for i in np.lexsort((y_cost, x_cost)):
        if y_cost[i] < best:
            best = y_cost[i]
            corners.append((float(x[i]), float(y[i])))
    return tuple(corners)


def _baseline(trials: pd.DataFrame, shared: Column, metric: Column, direction: str) -> Baseline | None:
    y = _numbers(trials, metric.baseline)
    if not np.isfinite(y).any():
        return None
    best = int(np.nanargmin(y) if direction == "min" else np.nanargmax(y))
    x = _numbers(trials, shared.baseline)[best]
    return Baseline(
        name=metric.baseline_name or "start", y=float(y[best]), x=_or_none(x), starts=len(np.unique(y[np.isfinite(y)]))
    )
