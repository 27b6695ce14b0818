"""What a study leaves behind: the table of columns and the run folder in Parquet."""

from atmc_search.results.atomic import write_atomic, write_whole
from atmc_search.results.columns import (
    STUDY_COLUMNS,
    Column,
    columns_of,
    schema_of,
)
from atmc_search.results.derive import front_of, trials_of
from atmc_search.results.parameters import parameter_columns
from atmc_search.results.store import RunFolder

__all__ = [
    "STUDY_COLUMNS",
    "Column",
    "RunFolder",
    "columns_of",
    "front_of",
    "parameter_columns",
    "schema_of",
    "trials_of",
    "write_atomic",
    "write_whole",
]
