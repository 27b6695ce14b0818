"""Entropy-constrained codebooks: which value a weight moves to is a matter of its distance and of its code's bits.

ECSQ (Chou, Lookabaugh and Gray, 1989); of networks in Choi, El-Khamy and Lee (arXiv 1802.02271). Of codebooks of at
most so many centres c, and shares p of their codes among all entries coded,

    J = Σ [(x − c(x))² + λ · −log2 p(code of x)] + λ · 16 · centres

is made least, which merges codes that are rare or hardly differ: a file's coder learns the shares as it codes, so that
−log2 p is what a code takes, and a centre takes about two bytes. Where zero is a code, the exact zeros count among its
entries, so that a non-zero pays for its place too. λ = price · mean x² of the non-zeros: alike in layers of any scale.

For given centres and shares the cheapest code of x is the lowest of the lines c² + λ·bits − 2cx, and so cells are
intervals of the sorted values. An optimum is therefore a partition into intervals, of which n_j of N values cost their
squared error and n_j log2(N / n_j) bits: a sum over cells, which dynamic programming makes least exactly where values
are few. Of more, Lloyd's iteration between cells and their means and shares, none of whose steps raises J, and the
merging of neighbours while that lowers it, find a local optimum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atmc_search.compress.kmeans import (
    EXACT,
    Floats,
    companded_start,
    sums_from_zero,
)

Ints = NDArray[np.int64]

_CENTRE_BITS = 16.0
_MAX_ITERATIONS = 200
_STANDSTILL = 1e-9


class Cells(NamedTuple):
    """Sorted centres (m,), zero among them where it is a code, and the (m − 1,) edges between their cells."""

    centres: NDArray[np.float32]
    edges: Floats

    def of(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Every value at its cell's centre; exact zeros stay zero. A value on an edge goes below it."""
        if not len(self.centres):
            return np.zeros_like(values)
        moved = self.centres[np.searchsorted(self.edges, values.astype(np.float64))]
        return np.where(values == 0, np.float32(0), moved)


def priced_cells(
    values: NDArray[np.float32],
    clusters: int,
    *,
    price: float,
    zeros: int | None,
    warm: NDArray[np.float32] | None = None,
) -> Cells:
    """The cells that make J least, beyond 256 distinct values locally.

    Args:
        values: (n,) finite; exact zeros are ignored.
        clusters: the most centres beside zero.
        price: λ over the mean square of the values, above 0.
        zeros: entries that are zero already, where zero is a code; None: every value gets a centre that is not zero.
        warm: centres to start from, among others.
    """
    x = np.sort(values[values != 0]).astype(np.float64)
    if not len(x):
        return Cells(np.zeros(0 if zeros is None else 1, dtype=np.float32), np.empty(0))
    lam = price * float(np.mean(x * x))
    partition = Partition(x, clusters, lam, zeros)
    distinct, number = np.unique(x, return_counts=True)
    if len(distinct) <= EXACT:
        grid, counts = partition.exact(distinct, number)
    else:
        starts = [companded_start(x, clusters), partition.exact(*_grouped(x))[0]]
        if warm is not None and 0 < len(warm) <= clusters:
            starts.append(np.unique(warm.astype(np.float64)))
        grid, counts = min((partition.descend(start) for start in starts), key=lambda found: partition.cost(*found))
    active, edges = envelope(grid, partition.prices(counts))
    centres = grid[active].astype(np.float32)
    if zeros is None:  # the mean of a cell on both sides of zero would prune: what is next to zero stands for it
        centres = np.where(centres == 0, x[np.argmin(np.abs(x))].astype(np.float32), centres)
    return Cells(centres, edges)


def envelope(centres: Floats, prices: Floats) -> tuple[Ints, Floats]:
    """Which of some codes are ever cheapest, and the edges between them, where two cost the same.

    Args:
        centres: (m,) sorted, distinct, m ≥ 1.
        prices: (m,) λ · bits of each code; infinite for one that is not to be had, of which there must be another.
    """
    active: list[int] = []
    edges: list[float] = []
    for j in np.nonzero(np.isfinite(prices))[0]:
        while active:
            i = active[-1]
            edge = (centres[i] + centres[j]) / 2 + (prices[j] - prices[i]) / (2 * (centres[j] - centres[i]))
            if not edges or edge > edges[-1]:
                edges.append(float(edge))
                break
            active.pop()  # i is dearer than its neighbours all over what would be its cell
            edges.pop()
        active.append(int(j))
    return np.array(active, dtype=np.int64), np.array(edges)


def _grouped(x: Floats) -> tuple[Floats, Ints]:
    """The means of at most so many runs of sorted values as are solved exactly, and how many values each has."""
    cuts = np.searchsorted(x, companded_start(x, EXACT // 2), side="right")
    cuts = np.unique(np.concatenate([[0], cuts, [np.searchsorted(x, 0.0), len(x)]]))
    n = np.diff(cuts)
    return np.add.reduceat(x, cuts[:-1]) / n, n


class Partition:
    """J over partitions of sorted values into intervals: codes are a sorted grid of centres and the entries of each.

    Attributes:
        x: (n,) sorted, none zero.
        clusters: the most centres beside zero.
        lam: λ.
        zeros: as of `priced_cells`.
    """

    def __init__(self, x: Floats, clusters: int, lam: float, zeros: int | None) -> None:
        self.x, self.clusters, self.lam, self.zeros = x, clusters, lam, zeros
        self.entries = len(x) + (zeros or 0)
        self.first, self.second = sums_from_zero(x, x), sums_from_zero(x, x * x)

    def prices(self, counts: Floats) -> Floats:
        """λ · −log2 of each code's share; infinite where there is none."""
        with np.errstate(divide="ignore"):
            found: Floats = self.lam * (np.log2(self.entries) - np.log2(counts))
        return found

    def cost(self, grid: Floats, counts: Floats) -> float:
        """J of the best cells of these codes, at these shares."""
        prices = self.prices(counts)
        active, cuts = self._cells(grid, prices)
        number, first, second = (np.diff(a[cuts]) for a in (np.arange(len(self.x) + 1), self.first, self.second))
        centres, at_zero = grid[active], self._at_zero(grid)
        errors = np.maximum(second - 2 * centres * first + centres * centres * number, 0.0)
        zeros = float((self.zeros or 0) * prices[at_zero].sum()) if self.zeros else 0.0
        books = self.lam * _CENTRE_BITS * np.count_nonzero(~at_zero[active])
        return float(errors.sum() + (number * prices[active]).sum() + zeros + books)

    def step(self, grid: Floats, prices: Floats) -> tuple[Floats, Floats]:
        """Lloyd's: the cells of codes at these prices, then what the cells hold as codes; empty ones are dropped."""
        active, cuts = self._cells(grid, prices)
        at_zero, counts, sums = self._at_zero(grid), np.zeros(len(grid)), np.zeros(len(grid))
        counts[active], sums[active] = np.diff(cuts), np.diff(self.first[cuts])
        means = np.where(at_zero, 0.0, sums / np.maximum(counts, 1))
        counts += np.where(at_zero, self.zeros or 0, 0)
        kept = counts > 0
        found, which = np.unique(means[kept], return_inverse=True)
        return found, np.bincount(which, counts[kept]).astype(np.float64)

    def descend(self, centres: Floats) -> tuple[Floats, Floats]:
        """Lloyd's steps from centres whose codes cost nothing yet, and merging, until neither lowers J."""
        grid = np.unique(centres if self.zeros is None else np.append(centres, 0.0))
        found = self.step(grid, np.zeros(len(grid)))
        best = self.cost(*found)
        for _ in range(_MAX_ITERATIONS):
            following = self.step(found[0], self.prices(found[1]))
            cost = self.cost(*following)
            if not cost < best * (1 - _STANDSTILL):
                following = self.merged(*found)
                if len(following[0]) == len(found[0]):
                    break
                cost = self.cost(*following)
            found, best = following, cost
        return found

    def merged(self, grid: Floats, counts: Floats) -> tuple[Floats, Floats]:
        """Neighbours joined, those first that lower J most, while any two do."""
        while len(grid) > 1:
            left, right = counts[:-1], counts[1:]
            both, rates = left + right, counts * self.prices(counts)
            at_zero = self._at_zero(grid)
            # (c − c')² times n n' / (n + n'); what joins zero moves all the way.
            moved = np.where(at_zero[:-1], right, np.where(at_zero[1:], left, left * right / both))
            gains = moved * np.diff(grid) ** 2 + both * self.prices(both) - rates[:-1] - rates[1:]
            j = int(gains.argmin())
            if not gains[j] < self.lam * _CENTRE_BITS:
                break
            zero = at_zero[j : j + 2].any()
            mean = 0.0 if zero else (grid[j] * left[j] + grid[j + 1] * right[j]) / both[j]
            grid = np.concatenate([grid[:j], [mean], grid[j + 2 :]])
            counts = np.concatenate([counts[:j], [both[j]], counts[j + 2 :]])
        return grid, counts

    def exact(self, x: Floats, n: Ints) -> tuple[Floats, Floats]:
        """The codes of least J, by dynamic programming over prefixes, O(K m²); before and after zero's cell, if any.

        Args:
            x: (m,) the distinct values, or what stands for some of them each.
            n: (m,) how many entries they are.
        """
        ends = np.arange(len(x) + 1)
        prefixes = (np.concatenate([[0], np.cumsum(n)]), sums_from_zero(x, n * x), sums_from_zero(x, n * x * x))
        number, total, squares = (prefix[None, :] - prefix[:, None] for prefix in prefixes)  # of x[j:i] at [j, i]
        counts = np.maximum(number, 1)
        errors = np.maximum(squares - total**2 / counts, 0.0)
        cells = np.where(number > 0, errors + counts * self.prices(counts) + self.lam * _CENTRE_BITS, np.inf)
        at_zero = np.maximum(number + (self.zeros or 0), 0)
        with np.errstate(invalid="ignore"):
            rates = np.nan_to_num(at_zero * self.prices(at_zero), nan=0.0)
        zero_cells = np.where(ends[:, None] <= ends[None, :], squares + rates, np.inf)
        before = np.where(ends == 0, 0.0, np.inf)
        after = before if self.zeros is None else zero_cells[0]
        layers, starts = [after[-1]], []
        for _ in range(min(self.clusters, len(x))):
            costs = after[:, None] + cells
            start, zero_start = costs.argmin(0), np.full(len(ends), -1)
            after = costs[start, ends]
            starts_before = np.zeros(len(ends), dtype=np.int64)
            if self.zeros is not None:
                costs = before[:, None] + cells
                starts_before = costs.argmin(0)
                before = costs[starts_before, ends]
                costs = before[:, None] + zero_cells
                zero_start = np.where(costs.min(0) < after, costs.argmin(0), -1)
                after = np.minimum(after, costs.min(0))
            starts.append((start, zero_start, starts_before))
            layers.append(after[-1])
        return self._traced(x, n, starts[: int(np.argmin(layers))])

    def _traced(self, x: Floats, n: Ints, starts: list[tuple[Ints, Ints, Ints]]) -> tuple[Floats, Floats]:
        """The codes on the path of least cost, from the last cell to the first."""
        grid, counts = [], []
        i, past_zero = len(x), self.zeros is not None  # whether zero's cell is among those to come
        for start, zero_start, start_before in reversed(starts):
            if past_zero and zero_start[i] >= 0:
                j, past_zero = int(zero_start[i]), False
                grid.append(0.0)
                counts.append(float(n[j:i].sum() + (self.zeros or 0)))
                i = j
            j = int(start[i] if self.zeros is None or past_zero else start_before[i])
            counts.append(float(n[j:i].sum()))
            grid.append(float((n[j:i] * x[j:i]).sum() / counts[-1]))
            i = j
        if past_zero:
            grid.append(0.0)
            counts.append(float(n[:i].sum() + (self.zeros or 0)))
        found, which = np.unique(grid, return_inverse=True)
        merged = np.bincount(which, counts).astype(np.float64)
        return found[merged > 0], merged[merged > 0]

    def _cells(self, grid: Floats, prices: Floats) -> tuple[Ints, Ints]:
        """The codes that are ever cheapest, and the positions in x at which their cells begin and end."""
        active, edges = envelope(grid, prices)
        inner = np.searchsorted(self.x, edges, side="right")
        return active, np.concatenate([[0], inner, [len(self.x)]]).astype(np.int64)

    def _at_zero(self, grid: Floats) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (grid == 0) & (self.zeros is not None)
        return found
