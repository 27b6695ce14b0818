"""Which artifacts a study needs, and what its folder takes up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atmc_search.pareto import nondominated
from atmc_search.results.derive import MEASURED, feasible, minimised
from atmc_search.spec import BoundSpec

OVER = (*MEASURED, "failed")
"""States after which a trial reports no more."""

_ALL_SUBSETS_UP_TO = 6


@dataclass(frozen=True)
class DiskUse:
    """Files and their bytes."""

    files: int = 0
    size_bytes: int = 0

    def __add__(self, other: DiskUse) -> DiskUse:
        return DiskUse(self.files + other.files, self.size_bytes + other.size_bytes)


def on_a_front(
    trials: pd.DataFrame, objectives: Mapping[str, str], constraints: Mapping[str, BoundSpec]
) -> NDArray[np.bool_]:
    """(n,) which trials are on a front that the study can be asked for.

    That is: nondominated in all objectives or in some of them (a pair, or one alone), among all measured trials or
    among those within the constraints; with every one of those that tie. `choose` under bounds on objectives finds its
    trial among these. A trial that is on no front now will never be on one: later trials can only dominate more.

    Args:
        trials: one row a trial, with a column for every objective and constraint.
        objectives: metric to "min" or "max". Of more than six, subsets of up to three and the whole are looked at.
        constraints: the study's bounds.
    """
    measured = trials["state"].isin(MEASURED).to_numpy()
    kept = np.zeros(len(trials), dtype=bool)
    for among in (measured, measured & feasible(trials, constraints)):
        rows = np.flatnonzero(among)
        for some in _subsets(list(objectives)):
            values = minimised(trials.iloc[rows], {name: objectives[name] for name in some})
            kept[rows[nondominated(values, ties=True)]] = True
    return kept


def disk_use(folder: Path) -> dict[str, DiskUse]:
    """By the first part of the path in `folder`; files of the folder itself under "tables and spec"."""
    found: dict[str, DiskUse] = {}
    for path in folder.rglob("*"):
        try:
            size = path.lstat().st_size if path.is_file() or path.is_symlink() else None
        except FileNotFoundError:
            continue
        if size is not None:
            parts = path.relative_to(folder).parts
            name = parts[0] if len(parts) > 1 else "tables and spec"
            found[name] = found.get(name, DiskUse()) + DiskUse(1, size)
    return dict(sorted(found.items(), key=lambda item: -item[1].size_bytes))


def _subsets(names: list[str]) -> Iterator[tuple[str, ...]]:
    sizes = range(1, len(names) + 1)
    for size in sizes if len(names) <= _ALL_SUBSETS_UP_TO else (1, 2, 3, len(names)):
        yield from combinations(names, size)
