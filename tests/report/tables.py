"""Made-up tables of trials whose columns are described as those of a run are."""

from __future__ import annotations

import pandas as pd
from optuna.distributions import CategoricalDistribution

from atmc_search.results import Column, parameter_columns
from atmc_search.tasks.atmc.columns import ATMC_COLUMNS
from atmc_search.tasks.atmc.methods import METHODS

METHOD = parameter_columns({"trial.method": CategoricalDistribution(tuple(METHODS))}, {"trial.method": tuple(METHODS)})


def described(table: pd.DataFrame, columns: tuple[Column, ...] = (*ATMC_COLUMNS, *METHOD)) -> pd.DataFrame:
    """The table with these columns described in its `attrs`."""
    table.attrs["columns"] = {column.name: [column.kind, column.described()] for column in columns}
    return table
