"""What a study leaves behind: the table of columns and the run folder in Parquet."""

from atmc_search.results.atomic import write_atomic, write_whole
from atmc_search.results.columns import (
    ATMC_COLUMNS,
    STUDY_COLUMNS,
    Column,
    parameter_columns,
    schema_of,
)
from atmc_search.results.derive import front_of, trials_of
from atmc_search.results.store import RunFolder

__all__ = [
    "ATMC_COLUMNS",
    "STUDY_COLUMNS",
    "Column",
    "RunFolder",
    "front_of",
    "parameter_columns",
    "schema_of",
    "trials_of",
    "write_atomic",
    "write_whole",
]
