"""The search: Optuna proposes, Ray Tune runs, a multi-objective scheduler stops, and every report lands in Parquet.

This is the only package that knows Ray. `run_study` is the whole of it from outside.
"""

from atmc_search.search.preflight import Prepared, prepare
from atmc_search.search.study import StudyResult, run_study

__all__ = ["Prepared", "StudyResult", "prepare", "run_study"]
