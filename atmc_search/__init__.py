"""Distributed search for neural networks that are small, accurate and hard to fool."""

from atmc_search.api import (
    Decision,
    choose,
    export_artifact,
    front,
    inspect_artifact,
    load_artifact,
    load_trials,
    repack_artifact,
)
from atmc_search.errors import AtmcError
from atmc_search.spec import StudySpec, TrialSpec, load_study
from atmc_search.version import __version__

__all__ = [
    "AtmcError",
    "Decision",
    "StudySpec",
    "TrialSpec",
    "__version__",
    "choose",
    "export_artifact",
    "front",
    "inspect_artifact",
    "load_artifact",
    "load_study",
    "load_trials",
    "repack_artifact",
]
