"""Choosing the trial to ship: the best within bounds, or which bound to relax, and how far."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from atmc_search import pareto
from atmc_search.api.runs import constraint_specs, objectives_of
from atmc_search.errors import AtmcError, RunError, did_you_mean
from atmc_search.report import column_named, columns_in
from atmc_search.report.decision import Decision, Relaxed
from atmc_search.results.derive import MEASURED


def choose(
    trials: pd.DataFrame,
    *,
    best: str,
    max: Mapping[str, float] | None = None,
    min: Mapping[str, float] | None = None,
    objectives: Mapping[str, str] | None = None,
    constraints: Mapping[str, Mapping[str, float]] | None = None,
) -> Decision:
    """The trial to ship: the best in one metric among those within all bounds and the study's constraints.

    Args:
        trials: as from `load_trials`.
        best: the metric that decides; "min:metric" or "max:metric" where its direction is not known.
        max: upper bounds by metric.
        min: lower bounds by metric.
        objectives: metric to direction; default: the study's own. Ties on `best` go by the others.
        constraints: metric to {"min": …, "max": …}; default: the study's own; {}: none.

    Raises:
        AtmcError: unknown metric, a direction that cannot be told, or bounds that no value can meet.
    """
    for name, least in (min or {}).items():
        if max and name in max and least > max[name]:
            raise AtmcError(f"min {name} = {least:g} and max {name} = {max[name]:g}: no value is both; change one")
    directions = objectives_of(trials, objectives)
    metric, direction = _metric(trials, best, directions)
    measured = trials[trials["state"].isin(MEASURED)].reset_index(drop=True)
    numbers = measured.select_dtypes("number")
    table = {str(name): numbers[name].to_numpy(dtype=float, na_value=np.nan) for name in numbers.columns}
    asked = [pareto.Bound(name, limit, "max") for name, limit in (max or {}).items()]
    asked += [pareto.Bound(name, limit, "min") for name, limit in (min or {}).items()]
    kept = _constraints(trials.attrs.get("constraints") if constraints is None else constraints)
    if absent := next((bound.metric for bound in kept if bound.metric not in table), ""):
        raise RunError(f"constraint on {absent!r}: not a metric of these results; {did_you_mean(absent, list(table))}")
    ties = [(name, d == "max") for name, d in directions.items() if name != metric and name in table]
    choice = pareto.choose(
        table, list(dict.fromkeys([*asked, *kept])), metric, maximise=direction == "max", tie_break=ties
    )
    row = None if choice.index is None else measured.iloc[choice.index]
    shown = dict.fromkeys([*directions, *(bound.metric for bound in asked), metric])
    folder = Path(trials.attrs.get("folder", ""))
    artifact = None if row is None else row.get("artifact")
    return Decision(
        trial=row,
        metric=metric,
        direction=direction,
        bounds=tuple(asked),
        constraints=tuple(kept),
        measured=len(measured),
        candidates=choice.candidates,
        runner_up=None if choice.runner_up is None else measured.iloc[choice.runner_up],
        relaxations=tuple(
            Relaxed(relaxation, int(measured.iloc[relaxation.index]["trial"]), float(table[metric][relaxation.index]))
            for relaxation in choice.relaxations
        ),
        shown=tuple(name for name in shown if name in measured),
        warnings=() if row is None else _warnings(row, trials),
        artifact=folder / artifact if isinstance(artifact, str) else None,
    )


def _metric(trials: pd.DataFrame, best: str, directions: Mapping[str, str]) -> tuple[str, Literal["min", "max"]]:
    given, _, metric = best.rpartition(":")
    numeric = [str(name) for name in trials.select_dtypes("number").columns]
    if metric not in numeric:
        raise AtmcError(f"best = {metric!r}: not a metric of these results; {did_you_mean(metric, numeric)}")
    direction = given or directions.get(metric) or column_named(metric, columns_in(trials.attrs)).better
    if direction in ("min", "max"):
        return metric, "min" if direction == "min" else "max"
    raise AtmcError(f"best = {best!r}: no objective of the study, so its direction is unknown; write max:{metric}")


def _constraints(constraints: Mapping[str, Mapping[str, float]] | None) -> list[pareto.Bound]:
    found = []
    for name, bound in constraint_specs(constraints).items():
        found += [pareto.Bound(name, bound.max, "max")] if bound.max is not None else []
        found += [pareto.Bound(name, bound.min, "min")] if bound.min is not None else []
    return found


def _warnings(row: pd.Series, trials: pd.DataFrame) -> tuple[str, ...]:
    """What the row's columns of warnings say."""
    warning = ((column.warning, row.get(column.name)) for column in columns_in(trials.attrs) if column.warning)
    return tuple(words.replace("{}", text) for words, text in warning if isinstance(text, str) and text)
