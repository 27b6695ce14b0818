"""1-D k-means with a centre fixed at zero.

In one dimension clusters are intervals of the sorted values, so Lloyd's iteration needs only the K boundaries (a binary
search) and interval sums (differences of prefix sums): O(n log n) once for the sort, O(K log n) an iteration, no n × K
memory. Few values are solved exactly instead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_RESTARTS = 4
_MAX_ITERATIONS = 100
# Up to so many distinct values the exact solution costs about what Lloyd's does, 1 to 5 ms, and that one's error
# was up to twice as large (median 1.2 times at 16 centres of 100 values).
EXACT = 256


def kmeans_with_zero(
    values: NDArray[np.float32],
    clusters: int,
    *,
    seed: int = 0,
    warm: NDArray[np.float32] | None = None,
    zero: bool = True,
) -> NDArray[np.float32]:
    """Centres that minimise Σ min_j (x − c_j)², with a further centre fixed at zero.

    Beyond 256 distinct values the minimum is a local one.

    Args:
        values: (n,) finite; exact zeros cost nothing and are ignored.
        clusters: the most centres to return, beside zero.
        seed: of the k-means++ starts; the same seed gives the same centres.
        warm: centres to start from (of the previous projection, say) in place of the k-means++ starts if there are as
            many as `clusters`, beside them if there are fewer, and not at all if there are more.
        zero: whether values may also go to the centre at zero. False prunes nothing: every value gets a centre.

    Returns:
        (m,) float32 sorted, m ≤ clusters, none zero (fewer when clusters run empty, or values are few).
    """
    x = np.sort(values[values != 0]).astype(np.float64)
    distinct = x[np.concatenate([[True], np.diff(x) > 0])] if len(x) else x
    if len(distinct) <= clusters:
        return distinct.astype(np.float32)
    if len(distinct) <= EXACT:
        best = _exact(*np.unique(x, return_counts=True), clusters, zero)
    else:
        sums = PrefixSums(x, zero)
        rng = np.random.default_rng(seed)
        starts = [companded_start(x, clusters)]
        if warm is not None and 0 < len(warm) <= clusters:
            starts.append(np.asarray(warm, dtype=np.float64))
        if warm is None or len(warm) != clusters:  # empty clusters are gone for good, and more may be had
            starts += [plusplus_start(sums, clusters, rng) for _ in range(_RESTARTS)]
        best = min((sums.lloyd(start) for start in starts), key=sums.cost)
    rounded = np.unique(best.astype(np.float32))
    if not zero and (rounded == 0).any():
        # The mean of a cell on both sides of zero; dropped, its values would move to a far centre or vanish. The
        # value closest to zero at most doubles that cell's cost.
        rounded = np.unique(np.where(rounded == 0, x[np.argmin(np.abs(x))].astype(np.float32), rounded))
    centres: NDArray[np.float32] = rounded[rounded != 0]
    return centres


def nearest(values: NDArray[np.float32], centres: NDArray[np.float32], *, zero: bool = True) -> NDArray[np.float32]:
    """Each value's nearest centre (exact zeros stay zero; `zero`: others may go to zero too), shape as `values`."""
    grid = np.unique(np.append(centres, np.float32(0))) if zero else np.unique(centres)
    if len(grid) == 0:
        return np.zeros_like(values)
    edges = (grid[:-1].astype(np.float64) + grid[1:]) / 2
    # Boundaries sit exactly midway: values equal to a centre are on its own side, so projecting twice is the identity.
    moved = grid[np.searchsorted(edges, values.astype(np.float64))]
    return np.where(values == 0, np.float32(0), moved).astype(np.float32)


def _exact(x: Floats, counts: NDArray[np.int64], clusters: int, zero: bool) -> Floats:
    """The optimal centres by dynamic programming over prefixes (Wang and Song, 2011), O(K n²).

    Args:
        x: (n,) distinct, sorted, n > clusters.
        counts: (n,) how often each stands.
        clusters: centres, all of them used: another centre never costs more.
        zero: whether values may go to zero instead.
    """
    ends = np.arange(len(x) + 1)
    number = np.concatenate([[0], np.cumsum(counts)])
    first, second = sums_from_zero(x, counts * x), sums_from_zero(x, counts * x * x)
    # Σ (x − mean)² of x[j:i] at [j, i].
    n, total, squares = (prefix[None, :] - prefix[:, None] for prefix in (number, first, second))
    cells = np.where(n > 0, np.maximum(squares - total**2 / np.maximum(n, 1), 0.0), np.inf)
    best = second - second[0] if zero else np.where(ends == 0, 0.0, np.inf)
    path = []
    for _ in range(clusters):
        costs = best[:, None] + cells
        start = costs.argmin(0)
        best, end = costs[start, ends], ends
        if zero:  # the values of a prefix after its last cell, at x[end:], go to zero
            lowest = np.minimum.accumulate(best - second)
            end = np.maximum.accumulate(np.where(best - second == lowest, ends, 0))
            best = lowest + second
        path.append((start, end))
    centres, i = [], len(x)
    for start, end in reversed(path):
        i, j = end[i], start[end[i]]
        centres.append((first[i] - first[j]) / (number[i] - number[j]))
        i = j
    return np.array(centres)


class PrefixSums:
    """Sorted values with prefix sums of x and x², in float64 (float32 sums lose the small weights)."""

    def __init__(self, x: Floats, zero: bool) -> None:
        self.x = x
        self.zero = zero
        self.first = sums_from_zero(x, x)
        self.second = sums_from_zero(x, x * x)

    def intervals(self, centres: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """The grid (centres, and zero if allowed) sorted, and the (len(grid) + 1,) cut positions in x."""
        grid = np.unique(np.append(centres, 0.0)) if self.zero else np.unique(centres)
        cuts = np.searchsorted(self.x, (grid[:-1] + grid[1:]) / 2)
        return grid, np.concatenate([[0], cuts, [len(self.x)]]).astype(np.int64)

    def cell_costs(self, grid: Floats, cuts: NDArray[np.int64]) -> Floats:
        """Σ (x − c)² of each interval, by Σx² − 2c Σx + c² n."""
        count, first, second = (np.diff(a[cuts]) for a in (np.arange(len(self.x) + 1), self.first, self.second))
        return np.maximum(second - 2 * grid * first + grid * grid * count, 0.0)

    def cost(self, centres: Floats) -> float:
        return float(self.cell_costs(*self.intervals(centres)).sum())

    def lloyd(self, centres: Floats) -> Floats:
        """Lloyd's iteration until the intervals stand still. Zero stays; empty centres are dropped."""
        previous: NDArray[np.int64] | None = None
        for _ in range(_MAX_ITERATIONS):
            grid, cuts = self.intervals(centres)
            if previous is not None and np.array_equal(cuts, previous):
                break
            previous = cuts
            count = np.diff(cuts)
            keep = count > 0
            if self.zero:
                keep &= grid != 0
            centres = np.diff(self.first[cuts])[keep] / count[keep]
        return centres


def sums_from_zero(x: Floats, terms: Floats) -> Floats:
    """Prefix sums of `terms`, 0 where x changes sign: beside one huge outlier, small weights keep their digits."""
    middle = int(np.searchsorted(x, 0.0))
    return np.concatenate([-np.cumsum(terms[:middle][::-1])[::-1], [0.0], np.cumsum(terms[middle:])])


def companded_start(x: Floats, clusters: int) -> Floats:
    """Centres spaced evenly under density^(1/3), the high-resolution optimum (Panter and Dite, 1951)."""
    counts, edges = np.histogram(x, bins=min(2048, 8 * clusters + 64))
    mass = np.concatenate([[0.0], np.cumsum(np.cbrt(counts))])
    spaced: Floats = np.interp((np.arange(clusters) + 0.5) / clusters * mass[-1], mass, edges)
    return spaced


def plusplus_start(sums: PrefixSums, clusters: int, rng: np.random.Generator) -> Floats:
    """k-means++ (Arthur and Vassilvitskii, 2007): each new centre drawn with probability ∝ squared distance.

    An interval is drawn by its cost, then a value in it by the squared distance to its centre, so that one draw
    costs O(K log n + interval) instead of O(n K).
    """
    centres = np.empty(0) if sums.zero else sums.x[[rng.integers(len(sums.x))]]
    while len(centres) < clusters:
        grid, cuts = sums.intervals(centres)
        costs = sums.cell_costs(grid, cuts)
        total = costs.sum()
        if total <= 0:
            break
        cell = int(rng.choice(len(costs), p=costs / total))
        inside = sums.x[cuts[cell] : cuts[cell + 1]]
        weight = np.cumsum((inside - grid[cell]) ** 2)
        if weight[-1] <= 0:
            break
        centres = np.append(centres, inside[np.searchsorted(weight, rng.random() * weight[-1])])
    return centres
