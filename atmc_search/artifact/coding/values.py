"""What a matrix's non-zeros are: signs, then either an index into a codebook or a float's exponent and mantissa.

All counts are learned while coding, so no tables are stored. Codebooks are sorted, so what is stored are the steps from
value to value, in the order of floating-point numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atmc_search.artifact.coding.coder import Coder
from atmc_search.artifact.coding.fixed import Ints, log2, probability
from atmc_search.artifact.coding.mask import Grid, Mask

_FIRST_BLOCK = 16
_LEVELS = 3
_NEIGHBOURS = 27


def code_signs(coder: Coder, grid: Grid, mask: Mask, known: Mask | None = None) -> Mask:
    """Codes which non-zeros are positive.

    The log odds are the sum of two effects: how the signs above in the same column add up (-3 to 3), and the signs of
    the left and upper neighbour in the kernel with that of the kernel's sum so far.

    Args:
        coder: to code with.
        grid: of the matrix.
        mask: (rows, columns) of non-zeros.
        known: (rows, columns), True where positive, unless decoding.

    Returns:
        (rows, columns); False where the mask is.
    """
    n, phases = grid.columns, grid.phases
    signs = np.zeros(mask.shape, dtype=np.int8)
    sums = np.zeros(n, dtype=np.int64)
    levels = np.ones((2, 2 * _LEVELS + 1), dtype=np.int64)  # positive and negative so far, and one
    seen, expected = np.ones((2, _NEIGHBOURS), dtype=np.int64) << 16, np.ones((2, _NEIGHBOURS), dtype=np.int64) << 16
    for first, end in grid.coarse_strips:
        strip = signs[first:end]
        by_column = np.clip(sums, -_LEVELS, _LEVELS) + _LEVELS
        kernel = np.zeros((end - first, -(-n // phases)), dtype=np.int8)
        for s in range(phases):
            at = slice(s, n, phases)
            where = np.nonzero(mask[first:end, at])
            if not len(where[0]):
                continue
            level = by_column[at][where[1]]
            positive, negative = log2(levels)
            odds = (positive - negative)[level]
            stage = odds
            if grid.spatial:
                context = _context(strip, kernel, grid, s)[where]
                ups, downs = log2(seen) - log2(expected)
                odds = stage + (ups - downs)[context]
            truth = None if known is None else known[first:end, at][where]
            found = coder.bits(probability(odds), truth)
            values = np.where(found, 1, -1).astype(np.int8)
            block = strip[:, at]
            block[where] = values
            kernel[:, : block.shape[1]] += block
            levels[0] += np.bincount(level[found], minlength=levels.shape[1])
            levels[1] += np.bincount(level[~found], minlength=levels.shape[1])
            if grid.spatial:
                seen[0] += np.bincount(context[found], minlength=_NEIGHBOURS) << 16
                seen[1] += np.bincount(context[~found], minlength=_NEIGHBOURS) << 16
                up = np.bincount(context, probability(stage), _NEIGHBOURS).astype(np.int64)
                expected[0] += up
                expected[1] += (np.bincount(context, minlength=_NEIGHBOURS) << 16) - up
        sums += strip.sum(0, dtype=np.int64)
    return signs > 0


def code_indices(coder: Coder, choices: int, known: Ints | None, size: int, counts: Ints | None = None) -> Ints:
    """Codes `size` symbols below `choices` by their counts so far, which are brought up to date block by block.

    Args:
        coder: to code with.
        choices: number of symbols.
        known: (size,), unless decoding.
        size: how many to code.
        counts: (choices,) to start from, each at least 1; all 1 by default.
    """
    if choices == 1:
        return np.zeros(size, dtype=np.int64)
    counts = np.ones(choices, dtype=np.int64) if counts is None else counts
    parts, at, block = [], 0, _FIRST_BLOCK
    while at < size:
        end = min(size, at + block)
        part = coder.symbols(counts, None if known is None else known[at:end], end - at)
        counts = counts + 2 * np.bincount(part, minlength=choices)
        parts.append(part)
        block, at = max(_FIRST_BLOCK, end // 2), end
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def code_ascending(coder: Coder, width: int, known: Ints | None, size: int) -> Ints:
    """Codes `size` numbers from 1 to 2^width - 1, ascending: the lengths of their steps, then the steps' lower bits."""
    steps = None if known is None else np.diff(known, prepend=0)
    lengths = None if steps is None else np.frexp(steps.astype(np.float64))[1].astype(np.int64)
    lengths = code_indices(coder, width + 1, lengths, size)
    found = np.zeros(size, dtype=np.int64)
    for length in np.unique(lengths):
        which = lengths == length
        value = np.full(int(which.sum()), min(length, 1), dtype=np.int64)
        left = max(0, int(length) - 1)
        while left:
            chunk = min(left, 16)
            left -= chunk
            part = None if steps is None else steps[which] >> left & (1 << chunk) - 1
            value = value << chunk | coder.uniform(1 << chunk, part, len(value))
        found[which] = value
    return np.cumsum(found)


def _context(strip: NDArray[np.int8], kernel: NDArray[np.int8], grid: Grid, s: int) -> NDArray[np.int64]:
    y, x = divmod(s, grid.width)
    n, phases = grid.columns, grid.phases
    width = len(range(s, n, phases))
    context = 9 * (np.sign(kernel[:, :width]).astype(np.int64) + 1) + 4
    if x:
        context += strip[:, s - 1 : n : phases]
    if y:
        context += 3 * strip[:, s - grid.width : n : phases].astype(np.int64)
    return context
