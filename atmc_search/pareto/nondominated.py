"""Pareto dominance: the nondominated rows, the fronts behind them, and a total order for schedulers.

Row a dominates row b when a is nowhere larger and somewhere smaller. A row with a NaN or an infinity (a trial that
diverged) takes no part: it is never nondominated and dominates nothing.
"""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

# The filter and the sort are moocore's C code, O(n log n) up to d = 3 and O(n log^(d-2) n) above: a well-kept library
# beats our own. Tried and lost: a lexsorted sweep in numpy, which is no faster than moocore on the whole (d = 2, n =
# 1e5: 8 to 17 ms, moocore 17 ms), and lexsorted blockwise filtering for d > 2 (n = 1e4: 3 to 37 times slower).


def nondominated(values: ArrayLike, *, ties: bool = False) -> NDArray[np.bool_]:
    """Which rows no other row dominates.

    Args:
        values: (n, d) with d >= 1; every column minimised, in any unit.
        ties: whether to keep all of several exact duplicates; else only the first.

    Returns:
        (n,) mask. Rows with a non-finite entry are False.
    """
    points, finite = _split(values)
    mask = np.zeros(len(finite), dtype=bool)
    mask[finite] = moocore.is_nondominated(points, keep_weakly=ties)
    return mask


def nondominated_sort(values: ArrayLike) -> NDArray[np.intp]:
    """The front of every row: 0 for the nondominated ones, 1 for those nondominated once front 0 is gone, and so on.

    Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II", section III-A.

    Args:
        values: (n, d) with d >= 1; every column minimised, in any unit.

    Returns:
        (n,) front indices. Duplicates share a front, so front 0 is `nondominated` with its duplicates. Rows with a
        non-finite entry get one more than the last front (which is 0 if no row is finite).
    """
    points, finite = _split(values)
    fronts = np.zeros(len(finite), dtype=np.intp)
    fronts[finite] = moocore.pareto_rank(points)
    fronts[~finite] = fronts[finite].max(initial=-1) + 1
    return fronts


def rank(values: ArrayLike) -> NDArray[np.intp]:
    """The position of every row in a total order, 0 the best: by front, and within a front spread out.

    Within a front the order is the greedy epsilon-net of Schmucker et al. 2021, "Multi-objective Asynchronous
    Successive Halving" (arXiv 2106.12639): each next row is the one farthest from those already taken, so that the
    first k rows of a front cover it. Rows with a non-finite entry come last. Remaining ties go to the earlier row.

    The order does not change when an objective is rescaled by a strictly increasing function or when objectives
    change places. A front of m rows costs O(d m^2): meant for rungs, of at most some thousands.

    Args:
        values: (n, d) with d >= 1; every column minimised, in any unit.

    Returns:
        (n,) permutation of 0 .. n-1. These are ranks (`rank(v)[i]` is the place of row i), not sorted indices; the
        rows in order are `np.argsort(rank(v))`.
    """
    points, finite = _split(values)
    fronts = nondominated_sort(points)
    quantiles = _mid_ranks(points)
    rows = np.flatnonzero(finite)
    by_front = np.argsort(fronts, kind="stable")
    starts = np.flatnonzero(np.diff(fronts[by_front], prepend=-1))  # none is empty, so each index opens its front
    order = [rows[members[_spread(quantiles[members])]] for members in np.split(by_front, starts[1:])]
    ranks = np.empty(len(finite), dtype=np.intp)
    ranks[np.concatenate([*order, np.flatnonzero(~finite)])] = np.arange(len(finite))
    return ranks


def _split(values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The finite rows, and the mask of where they stood."""
    array = np.asarray(values, dtype=np.float64)
    assert array.ndim == 2, f"values has shape {array.shape}; it must be (n, d)"
    assert array.shape[1] >= 1, f"values has shape {array.shape}; it needs at least one column"
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(array), axis=1)
    return array[finite], finite


def _mid_ranks(points: NDArray[np.float64]) -> NDArray[np.intp]:
    """Each value's rank-quantile in its column, times 2n: the number of rows below it plus that of rows not above it.

    Quantiles, not [0, 1]: dominance sees only order, and so should the spread. With min-max scaling one diverging
    loss squeezes all others together, and bytes and log-bytes spread differently. They are taken over all rows given,
    not over one front: two objectives on one front, ranked among themselves, are always evenly spaced, and nothing is
    left to spread. As integers, distances are exact and their ties real ones.
    """
    ranks = np.empty(points.shape, dtype=np.intp)
    for column, ordered in enumerate(np.sort(points, axis=0).T):
        below = np.searchsorted(ordered, points[:, column], side="left")
        ranks[:, column] = below + np.searchsorted(ordered, points[:, column], side="right")
    return ranks


def _spread(points: NDArray[np.intp]) -> NDArray[np.intp]:
    """Row indices in greedy farthest-point order.

    Clarkson 2005, "Nearest-Neighbor Searching and Metric Space Dimensions". The seed is the row whose worst quantile
    is best. Syne Tune seeds with the minimum of one objective or at random; the first would keep the smallest network
    at every narrow rung, however useless, and the second is not repeatable.
    """
    order = np.empty(len(points), dtype=np.intp)
    nearest = np.full(len(points), np.iinfo(np.intp).max)  # squared distance to the closest row taken; -1 once taken
    pick = np.argmin(points.max(axis=1)) if len(points) else 0
    for position in range(len(points)):
        order[position] = pick
        nearest = np.minimum(nearest, ((points - points[pick]) ** 2).sum(axis=1))
        nearest[pick] = -1
        pick = np.argmax(nearest)
    return order
