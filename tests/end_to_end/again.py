"""Artifacts of a run measured again, as `verify` does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from atmc_search.results import RunFolder
from atmc_search.tasks.stored import recorded, stored_artifacts, trial_space


def measured_again(folder: RunFolder, trials: pd.DataFrame, *, split: str) -> Iterator[dict[str, Any]]:
    """A row an artifact: its trial, what was measured, and what the sweep recorded of the same figures."""
    for stored in stored_artifacts(folder, trial_space(folder, trust=False), trials, trust=False):
        again = stored.task.remeasure(
            stored.artifact,
            stored.spec,
            stored.data,
            split=split,
            options={},
            start=stored.start,
            device="cpu",
            trust=False,
        )
        names = ["size_bytes", *(figure.name for figure in again.figures)]
        yield {
            "trial": stored.row["trial"],
            **again.row,
            **{figure.name: figure.value for figure in again.figures},
            **{f"recorded_{name}": recorded(stored, name) for name in names},
        }
