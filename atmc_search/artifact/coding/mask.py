"""Where a matrix's non-zeros are: a bit a position, with probabilities learned from the positions already coded.

A pruned matrix is no random one: rows (output channels) and columns (input channels × kernel positions) differ in
density by orders of magnitude, neighbours in a kernel live together, and a channel that died in one layer is not read
in the next. The log odds of a position are a sum of effects: the matrix's density, kernel position, column, row,
neighbours that are coded already, and the density of a related earlier matrix's row or column. An effect is the log of
(seen + a) / (expected + a): non-zeros seen where it applied over those that the effects before it expected there, with
a prior `a`, so that it starts at nothing and needs evidence.

Positions are coded in blocks, each at once: rows in strips that grow, in each strip kernel position after kernel
position. Within a block nothing is learned; that is what lets NumPy do it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from atmc_search.artifact.coding.coder import Coder
from atmc_search.artifact.coding.fixed import ONE, Ints, exp2, log2, probability

Mask = NDArray[np.bool_]

PRIORS = (1, 4, 16, 64)
"""What `a` of columns and rows is chosen from: small where densities differ much."""

BUCKETS = 12

_STEPS = 128
_STRIPS = 12
_FLAT_PHASES = 4
_FLAT_LEAST = 32
_PHASE_PRIOR = 8
_PRIOR = 2
_CONTEXTS = 16


@dataclass(frozen=True)
class Grid:
    """A matrix's extent. `height` and `width` are of the kernel, or the feature map, that its columns run through."""

    rows: int
    columns: int
    height: int = 1
    width: int = 1

    @property
    def spatial(self) -> bool:
        return self.height * self.width > 1

    @property
    def phases(self) -> int:
        """Kernel positions; where there is no kernel, parts that the columns are dealt out to."""
        if self.spatial:
            return self.height * self.width
        return _FLAT_PHASES if self.columns >= _FLAT_LEAST else 1

    @property
    def coarse_strips(self) -> list[tuple[int, int]]:
        """`strips` put together to at most three: for signs, of which there are few in a strip."""
        ends = [0, *(end for _, end in self.strips)]
        n = min(3, len(ends) - 1)
        return list(pairwise(sorted({ends[(len(ends) - 1) * i // n] for i in range(n + 1)})))

    @property
    def strips(self) -> list[tuple[int, int]]:
        """Rows that are coded together, (first, end): few at first, as long as little is known."""
        n = max(1, min(_STRIPS, _STEPS // self.phases, self.rows))
        ends = sorted({self.rows * i * (i + n) // (2 * n * n) for i in range(n + 1)})
        return list(pairwise(ends))


@dataclass(frozen=True)
class Hints:
    """What the encoder chose for a matrix: priors by their index in `PRIORS`, and buckets of related densities.

    Attributes:
        column_prior, row_prior: index in `PRIORS`.
        columns: (columns,) bucket of each column, below `BUCKETS`, or None.
        rows: (rows,) likewise.
    """

    column_prior: int = 1
    row_prior: int = 1
    columns: Ints | None = None
    rows: Ints | None = None


class _Effects:
    """Counters of effects: non-zeros seen and expected, by index."""

    def __init__(self, priors: list[tuple[int, int]]) -> None:
        """Effects of several kinds in one array, of (how many, prior a) each."""
        # Seen in units of 2^-16 as well, so that one logarithm serves both.
        self._counts = np.concatenate([np.full((2, n), prior * ONE, dtype=np.int64) for n, prior in priors], axis=1)

    def values(self) -> Ints:
        logarithms = log2(self._counts)
        effects: Ints = logarithms[0] - logarithms[1]
        return effects

    def learn(self, which: slice | int, seen: Ints, expected: Ints) -> None:
        self._counts[0, which] += seen * ONE
        self._counts[1, which] += expected


def code_mask(coder: Coder, grid: Grid, nnz: int, hints: Hints, known: Mask | None = None) -> Mask:
    """Codes which of a matrix's entries are not zero.

    Args:
        coder: to code with.
        grid: of the matrix.
        nnz: how many are not, between 1 and all.
        hints: the same for encoding and decoding.
        known: (rows, columns), unless decoding.

    Returns:
        (rows, columns)
    """
    phases, n = grid.phases, grid.columns
    mask = np.zeros((grid.rows, n), dtype=bool)
    counts = log2(np.array([2 * nnz + 1, 2 * (grid.rows * n - nnz) + 1]))
    density = counts[0] - counts[1]
    column_prior, row_prior = PRIORS[hints.column_prior], PRIORS[hints.row_prior]
    column = _Effects([(n, column_prior), (-(-n // phases), column_prior)])
    other = _Effects([(_CONTEXTS, _PRIOR), (phases, _PHASE_PRIOR), (BUCKETS, _PRIOR), (BUCKETS, _PRIOR)])
    neighbours = slice(0, _CONTEXTS)
    related_columns = slice(_CONTEXTS + phases, _CONTEXTS + phases + BUCKETS)
    related_rows = slice(related_columns.stop, related_columns.stop + BUCKETS)
    for first, end in grid.strips:
        strip = mask[first:end]
        row = _Effects([(end - first, row_prior)])
        by_column, by_channel = np.split(column.values(), [n])
        by_channel = np.repeat(by_channel, phases)[:n] if grid.spatial else np.zeros(n, dtype=np.int32)
        by_column = by_column + by_channel
        for s in range(phases):
            at = slice(s, n, phases)
            effects = other.values()
            by_phase = effects[_CONTEXTS + s]
            base = (density + by_phase + by_column[at])[None, :]
            if hints.columns is not None:
                buckets = hints.columns[at]
                by_bucket = effects[related_columns]
                base = base + by_bucket[buckets]
            if hints.rows is not None:
                row_buckets = hints.rows[first:end]
                by_row_bucket = effects[related_rows][row_buckets, None]
                base = base + by_row_bucket
            by_row = row.values()[:, None]
            staged = base + by_row
            odds = staged
            if grid.spatial:
                contexts = _contexts(strip, grid, s)
                odds = staged + effects[neighbours][contexts]
            found = coder.bits(probability(odds).ravel(), None if known is None else known[first:end, at].ravel())
            found = found.reshape(odds.shape)
            strip[:, at] = found

            hits, row_hits = found.sum(0, dtype=np.int64), found.sum(1, dtype=np.int64)
            expected = probability(odds - by_column[at]).sum(0, dtype=np.int64)
            # Columns expect what their channels do; the factor is exact where non-zeros are few, where it matters.
            column.learn(at, hits, expected * exp2(by_channel[at]) // ONE)
            column.learn(slice(n, n + len(hits)), hits, expected)
            other.learn(_CONTEXTS + s, hits.sum(), expected.sum() * exp2(-by_phase) // ONE)
            if hints.columns is not None:
                tallied = _tally(buckets, expected) * exp2(-by_bucket) // ONE
                other.learn(related_columns, _tally(buckets, hits), tallied)
            if hints.rows is not None:
                without = probability(odds - by_row - by_row_bucket).sum(1, dtype=np.int64)
                other.learn(related_rows, _tally(row_buckets, row_hits), _tally(row_buckets, without))
            row.learn(slice(None), row_hits, probability(base).sum(1, dtype=np.int64))
            if grid.spatial:
                flat = contexts.ravel()
                expected = np.bincount(flat, probability(staged).ravel(), _CONTEXTS).astype(np.int64)
                other.learn(neighbours, np.bincount(flat[found.ravel()], minlength=_CONTEXTS), expected)
    return mask


def bucket(counts: Ints) -> Ints:
    """Of non-zeros in a row or column: 0, 1, 2, 3 to 4, 5 to 8 and so on are buckets 0, 1, 2, 3, 4 ..."""
    exponents = np.frexp(np.maximum(counts - 1, 0).astype(np.float64))[1]
    return np.minimum(np.where(counts > 0, exponents + 1, 0), BUCKETS - 1).astype(np.int64)


def _tally(which: Ints, amounts: Ints) -> Ints:
    return np.bincount(which, amounts, BUCKETS).astype(np.int64)


def _contexts(strip: Mask, grid: Grid, s: int) -> NDArray[np.uint8]:
    """What is known of each position's neighbours: left, above, either diagonal; and whether there is a row above."""
    y, x = divmod(s, grid.width)
    cells = strip.view(np.uint8)
    n, phases, width = grid.columns, grid.phases, grid.width
    contexts = np.zeros((len(strip), len(range(s, n, phases))), dtype=np.uint8)
    if x:
        contexts += cells[:, s - 1 : n : phases]
    if y:
        contexts += cells[:, s - width : n : phases] << 1
        diagonals = np.zeros_like(contexts)
        if x:
            diagonals |= cells[:, s - width - 1 : n : phases]
        if x + 1 < width:
            diagonals |= cells[:, s - width + 1 : n : phases]
        contexts += diagonals << 2
    else:
        contexts += 8
    return contexts
