"""Distributed search for neural networks that are small, accurate and hard to fool.

Names are imported when first used: `atmc-search --help` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atmc_search.api.artifacts import export_artifact, inspect_artifact, load_artifact, repack_artifact
    from atmc_search.api.decide import choose
    from atmc_search.api.runs import front, load_study, load_trials
    from atmc_search.errors import AtmcError
    from atmc_search.report.decision import Decision
    from atmc_search.spec import StudySpec, TrialSpec
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

_HOMES = {
    "AtmcError": "errors",
    "StudySpec": "spec",
    "TrialSpec": "spec",
    "__version__": "version",
    "Decision": "report.decision",
    "choose": "api.decide",
    "front": "api.runs",
    "load_study": "api.runs",
    "load_trials": "api.runs",
}  # all others: api.artifacts


if not TYPE_CHECKING:  # or a checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'api.artifacts')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
