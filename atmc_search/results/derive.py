"""Tables that follow from the reports: one row a trial, and the nondominated ones of these."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atmc_search.errors import RunError, did_you_mean
from atmc_search.pareto import nondominated
from atmc_search.spec import BoundSpec

MEASURED = ("complete", "stopped")
"""States whose last report was measured on an artifact that is there to ship."""


def trials_of(reports: pd.DataFrame) -> pd.DataFrame:
    """Each trial's last report, by trial number.

    Args:
        reports: in the order in which they arrived.
    """
    if reports.empty:
        return reports
    return reports.groupby("trial", sort=True).tail(1).sort_values("trial").reset_index(drop=True)


def front_of(
    trials: pd.DataFrame, objectives: Mapping[str, str], constraints: Mapping[str, BoundSpec] | None = None
) -> pd.DataFrame:
    """The nondominated trials within the constraints, smallest first (by the first objective).

    Trials count that were measured and neither failed nor are still running. Of trials with equal objectives the
    first stays.

    Args:
        trials: one row a trial.
        objectives: metric to "min" or "max".
        constraints: bounds that a trial must keep to count.

    Raises:
        RunError: an objective or a constraint is no column.
    """
    if trials.empty:
        return trials
    for name in objectives:
        _floats(trials, name, f"objective {name!r}")
    allowed = trials["state"].isin(MEASURED).to_numpy() & feasible(trials, constraints or {})
    values = minimised(trials, objectives)
    values[~allowed] = np.nan  # rows that are not finite never reach the front
    front = trials[nondominated(values)]
    first, direction = next(iter(objectives.items()))
    return front.sort_values([first, "trial"], ascending=[direction == "min", True]).reset_index(drop=True)


def feasible(trials: pd.DataFrame, constraints: Mapping[str, BoundSpec]) -> NDArray[np.bool_]:
    """(n,) which trials keep every bound; a missing metric keeps none."""
    kept = np.ones(len(trials), dtype=bool)
    for name, bound in constraints.items():
        values = _floats(trials, name, f"constraint on {name!r}")
        kept &= np.array([bound.violation(value) <= 0 for value in values], dtype=bool)
    return kept


def _floats(trials: pd.DataFrame, name: str, what: str) -> NDArray[np.float64]:
    """(n,) a metric; NaN where there is none.

    Raises:
        RunError: no such column, or it holds no numbers.
    """
    if name not in trials.columns:
        raise RunError(f"{what}: no such column; {did_you_mean(name, list(trials.columns))}")
    try:
        return trials[name].to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError):
        raise RunError(f"{what}: its values are no numbers; name a metric that has some") from None


def minimised(trials: pd.DataFrame, objectives: Mapping[str, str]) -> NDArray[np.float64]:
    """(n, d) objective values with every direction turned to minimisation; NaN where there is none."""
    columns = [
        trials[name].to_numpy(dtype=float, na_value=np.nan) * (1 if direction == "min" else -1)
        for name, direction in objectives.items()
    ]
    return np.stack(columns, axis=1)
