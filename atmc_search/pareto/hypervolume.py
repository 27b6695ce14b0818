"""Hypervolume: how much of the space in front of a reference point a set of results dominates. One number per set."""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import ArrayLike

from atmc_search.errors import AtmcError, shown


def hypervolume(values: ArrayLike, reference: ArrayLike) -> float:
    """The volume dominated by the rows and bounded by the reference point.

    Zitzler and Thiele 1998, "Multiobjective optimization using evolutionary algorithms - a comparative case study".
    Computed by moocore: O(n log n) up to d = 3, O(n^2) for d = 4, O(n^(d-2)) above.

    Args:
        values: (n, d) with d >= 1; every column minimised. Rows that are not below the reference in every column,
            and rows with a non-finite entry, contribute nothing.
        reference: (d,) the worst values that still count, in the units of `values`.

    Returns:
        The volume, in the product of the columns' units; 0.0 for an empty set.

    Raises:
        AtmcError: if the reference has not one finite entry per column.
    """
    points = np.asarray(values, dtype=np.float64)
    assert points.ndim == 2, f"values has shape {points.shape}; it must be (n, d)"
    corner = np.asarray(reference, dtype=np.float64)
    if corner.shape != (points.shape[1],) or not np.isfinite(corner).all():
        raise AtmcError(
            f"reference = {shown(corner.tolist())}: a reference point has one finite entry per objective; "
            f"give {points.shape[1]} numbers"
        )
    finite = np.isfinite(points).all(axis=1)  # moocore leaves out what is not below the reference, but not these
    return float(moocore.hypervolume(points[finite], ref=corner))
