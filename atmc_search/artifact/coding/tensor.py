"""One tensor, as a matrix, in code and back: a plan of how, then positions, signs and values.

Everything is written once, for both directions (`coder.Coder`): `code_tensor` follows a plan that it codes first;
`best_plan` is the encoder's search for the plan of fewest bits, by trying.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atmc_search.artifact.coding.coder import Coder, Meter
from atmc_search.artifact.coding.fixed import Ints
from atmc_search.artifact.coding.mask import PRIORS, Grid, Hints, Mask, bucket, code_mask
from atmc_search.artifact.coding.values import code_ascending, code_indices, code_signs
from atmc_search.errors import ArtifactError

Values = NDArray[np.float32]

MOST_PHASES = 128
"""Most positions of a kernel or feature map that positions are coded along."""

_MOST_CODES = 1 << 16
_WORTH_TUNING = 64
_SURELY_CODES = 256


class Kind(IntEnum):
    """What is stored of the values. Numbers are part of the format."""

    EMPTY = 0
    CODEBOOK = 1
    FLOATS = 2


class Reference(NamedTuple):
    """Row or column densities of an earlier tensor, (how far back, 1 the last; 0 its rows or 1 its columns)."""

    back: int
    axis: int


class Margins(NamedTuple):
    """Non-zeros of each row and of each column of a tensor that is coded already."""

    rows: Ints
    columns: Ints


@dataclass(frozen=True)
class Plan:
    """How a tensor is coded.

    Attributes:
        kind: what is stored of the values.
        half: whether values are stored as fp16, else as fp32.
        full: whether no value is zero, so that positions are not coded.
        trimmed: whether rows and channels of zeros alone are named first, and left out.
        kernel: (height, width) of the kernel or feature map that columns run through.
        column_prior, row_prior: see `Hints`.
        columns, rows: what the densities of columns and rows are predicted from, if from anything.
    """

    kind: Kind
    half: bool = True
    full: bool = False
    trimmed: bool = False
    kernel: tuple[int, int] = (1, 1)
    column_prior: int = 1
    row_prior: int = 1
    columns: Reference | None = None
    rows: Reference | None = None


def margins(matrix: NDArray[np.float32] | Mask) -> Margins:
    mask = matrix != 0
    return Margins(mask.sum(1, dtype=np.int64), mask.sum(0, dtype=np.int64))


def code_tensor(
    coder: Coder,
    shape: tuple[int, int],
    kernel: tuple[int, int],
    earlier: Sequence[Margins],
    plan: Plan | None = None,
    known: Values | None = None,
) -> tuple[Plan, Values]:
    """Codes a matrix.

    Args:
        coder: to code with.
        shape: (rows, columns).
        kernel: that the layer has, (1, 1) where it has none: a plan with this kernel costs less.
        earlier: of the tensors coded before, in order.
        plan: how; None when decoding.
        known: (rows, columns), None when decoding.

    Returns:
        the plan, and the matrix.

    Raises:
        ArtifactError: what is decoded fits no matrix of this shape.
    """
    size = shape[0] * shape[1]
    kind = Kind(coder.choice(len(Kind), None if plan is None else plan.kind))
    if kind is Kind.EMPTY:
        return Plan(kind), np.zeros(shape, dtype=np.float32)
    half = bool(coder.choice(2, None if plan is None else int(plan.half)))
    full = bool(coder.choice(2, None if plan is None else int(plan.full)))
    found = Plan(kind, half, full)
    if full:
        mask, nnz = np.ones(shape, dtype=bool), size
        grid = Grid(*shape)
    else:
        nnz = coder.number(None if known is None else int(np.count_nonzero(known)))
        _expect(0 < nnz <= size, "number of non-zeros")
        found = _code_geometry(coder, found, shape, kernel, len(earlier), plan)
        grid = Grid(*shape, *found.kernel)
        hints = _hints(found, grid, earlier)
        mask = _code_positions(coder, grid, nnz, found.trimmed, hints, None if known is None else known != 0)
        _expect(int(np.count_nonzero(mask)) == nnz, "number of non-zeros")
    values = np.zeros(shape, dtype=np.float32)
    truth = None if known is None else known[mask]
    if kind is Kind.CODEBOOK:
        values[mask] = _code_codebook(coder, grid, mask, half, truth, nnz)
    else:
        signs = code_signs(coder, grid, mask, None if known is None else np.signbit(known) != mask)[mask]
        values[mask] = _code_floats(coder, half, signs, truth)
    return found, values


def best_plan(matrix: Values, kernel: tuple[int, int], earlier: Sequence[Margins]) -> Plan:
    """The plan of fewest bits for a matrix, of those that are worth trying.

    Args:
        matrix: (rows, columns).
        kernel: that the layer has.
        earlier: of the tensors coded before.
    """
    mask = matrix != 0
    nnz = int(np.count_nonzero(mask))
    if not nnz:
        return Plan(Kind.EMPTY)
    return with_values(best_geometry(mask, nnz, kernel, earlier), matrix)


def with_values(geometry: Plan, matrix: Values) -> Plan:
    """A plan for a mask, completed by how its values take the fewest bits."""
    values = matrix[matrix != 0]
    distinct = len(np.unique(values))
    plans = [replace(geometry, kind=Kind.FLOATS, half=_halves(values))]
    if distinct <= _MOST_CODES:
        plans.append(replace(plans[0], kind=Kind.CODEBOOK))
    if distinct <= min(_SURELY_CODES, len(values) // 4):  # no need to try
        del plans[0]
    return plans[0] if len(plans) == 1 else min(plans, key=lambda plan: value_bits(matrix, plan))


def best_geometry(mask: Mask, nnz: int, kernel: tuple[int, int], earlier: Sequence[Margins]) -> Plan:
    """The plan for a mask alone; its kind does not count."""
    plan = Plan(Kind.FLOATS, full=nnz == mask.size)
    if plan.full:
        return plan
    shape = (mask.shape[0], mask.shape[1])
    plan = replace(plan, kernel=_kernel(shape, kernel, earlier))
    cost = mask_bits(mask, nnz, plan, earlier)

    def better(candidates: Sequence[Plan]) -> bool:
        nonlocal plan, cost
        before = cost
        for candidate in candidates:
            bits = mask_bits(mask, nnz, candidate, earlier)
            if bits < cost:
                plan, cost = candidate, bits
        return cost < before

    if plan.kernel not in (kernel, (1, 1)):  # a guess
        better([replace(plan, kernel=(1, 1))])
    better([replace(plan, columns=reference) for reference in _column_references(shape, plan.kernel, earlier)])
    better([replace(plan, rows=reference) for reference in _row_references(shape, earlier)])
    if nnz >= _WORTH_TUNING:
        for step in (1, -1):  # further while that pays, one way or the other
            while 0 <= plan.column_prior + step < len(PRIORS):
                if not better([replace(plan, column_prior=plan.column_prior + step)]):
                    break
        for step in (1, -1):
            while 0 <= plan.row_prior + step < len(PRIORS):
                if not better([replace(plan, row_prior=plan.row_prior + step)]):
                    break
    if not (mask.any(0).all() and mask.any(1).all()):
        better([replace(plan, trimmed=True)])
    return plan


def mask_bits(mask: Mask, nnz: int, plan: Plan, earlier: Sequence[Margins]) -> float:
    """Bits that positions take by a plan, the references' own included."""
    meter = Meter()
    if not plan.full:
        grid = Grid(mask.shape[0], mask.shape[1], *plan.kernel)
        _code_positions(meter, grid, nnz, plan.trimmed, _hints(plan, grid, earlier), mask)
    return meter.total + math.log2(2 * len(earlier) + 1) * sum(r is not None for r in (plan.columns, plan.rows))


def value_bits(matrix: Values, plan: Plan) -> float:
    """Bits that signs and values of a matrix's non-zeros take by a plan."""
    meter, mask = Meter(), matrix != 0
    grid = Grid(matrix.shape[0], matrix.shape[1], *plan.kernel)
    truth = matrix[mask]
    if plan.kind is Kind.CODEBOOK:
        _code_codebook(meter, grid, mask, plan.half, truth, len(truth))
    else:
        signs = code_signs(meter, grid, mask, matrix > 0)[mask]
        _code_floats(meter, plan.half, signs, truth)
    return meter.total


def _code_positions(coder: Coder, grid: Grid, nnz: int, trimmed: bool, hints: Hints, known: Mask | None) -> Mask:
    """Which entries are not zero, of the whole matrix or of its live rows and channels."""
    if not trimmed:
        return code_mask(coder, grid, nnz, hints, known)
    positions = grid.height * grid.width
    live_rows = live_channels = None
    if known is not None:
        live_rows = np.asarray(known.any(1))
        live_channels = np.asarray(known.any(0).reshape(-1, positions).any(1))
    rows = _code_live(coder, grid.rows, hints.rows, live_rows)
    column_hints = None if hints.columns is None else hints.columns[::positions]
    channels = _code_live(coder, grid.columns // positions, column_hints, live_channels)
    columns = np.repeat(channels, positions)
    live = Grid(int(rows.sum()), int(columns.sum()), grid.height, grid.width)
    _expect(nnz <= live.rows * live.columns, "number of non-zeros")
    within = Hints(
        hints.column_prior,
        hints.row_prior,
        None if hints.columns is None else hints.columns[columns],
        None if hints.rows is None else hints.rows[rows],
    )
    mask = np.zeros((grid.rows, grid.columns), dtype=bool)
    where = np.ix_(rows, columns)
    mask[where] = code_mask(coder, live, nnz, within, None if known is None else known[where])
    return mask


def _code_live(coder: Coder, size: int, buckets: Ints | None, known: Mask | None) -> Mask:
    """Which of `size` rows or channels are not all zero."""
    count = coder.number(None if known is None else int(known.sum()))
    _expect(0 < count <= size, "live channels")
    if count == size:
        return np.ones(size, dtype=bool)
    truth = None if known is None else known[None, :]
    live: Mask = code_mask(coder, Grid(1, size), count, Hints(columns=buckets), truth)[0]
    _expect(int(live.sum()) == count, "live channels")
    return live


def _code_geometry(
    coder: Coder, found: Plan, shape: tuple[int, int], kernel: tuple[int, int], earlier: int, plan: Plan | None
) -> Plan:
    """Kernel, priors and references."""
    forms = [kernel, (1, 1)]
    form = coder.choice(3, None if plan is None else (forms.index(plan.kernel) if plan.kernel in forms else 2))
    if form < 2:
        height, width = forms[form]
    else:
        height = 1 + coder.choice(MOST_PHASES, None if plan is None else plan.kernel[0] - 1)
        width = 1 + coder.choice(MOST_PHASES, None if plan is None else plan.kernel[1] - 1)
    _expect(height * width <= MOST_PHASES and shape[1] % (height * width) == 0, "kernel")
    trimmed = bool(coder.choice(2, None if plan is None else int(plan.trimmed)))
    column_prior = coder.choice(len(PRIORS), None if plan is None else plan.column_prior)
    row_prior = coder.choice(len(PRIORS), None if plan is None else plan.row_prior)
    references = []
    for reference in (None, None) if plan is None else (plan.columns, plan.rows):
        number = 0 if reference is None else 2 * reference.back - 1 + reference.axis
        number = coder.choice(2 * earlier + 1, None if plan is None else number) if earlier else 0
        references.append(Reference((number + 1) // 2, (number + 1) % 2) if number else None)
    return replace(
        found,
        trimmed=trimmed,
        kernel=(height, width),
        column_prior=column_prior,
        row_prior=row_prior,
        columns=references[0],
        rows=references[1],
    )


def _hints(plan: Plan, grid: Grid, earlier: Sequence[Margins]) -> Hints:
    columns = None if plan.columns is None else _buckets(plan.columns, grid.columns, earlier)
    rows = None if plan.rows is None else _buckets(plan.rows, grid.rows, earlier)
    return Hints(plan.column_prior, plan.row_prior, columns, rows)


def _buckets(reference: Reference, extent: int, earlier: Sequence[Margins]) -> Ints:
    counts = earlier[-reference.back][reference.axis]
    _expect(extent % len(counts) == 0, "reference")
    return np.repeat(bucket(counts), extent // len(counts))


def _column_references(shape: tuple[int, int], kernel: tuple[int, int], earlier: Sequence[Margins]) -> list[Reference]:
    """The last tensor whose rows are this one's channels, and the last with the same columns."""
    channels = shape[1] // (kernel[0] * kernel[1])
    found = [_last(earlier, 0, channels), _last(earlier, 1, shape[1])]
    return [reference for reference in found if reference is not None]


def _row_references(shape: tuple[int, int], earlier: Sequence[Margins]) -> list[Reference]:
    found = [_last(earlier, 0, shape[0]), _last(earlier, 1, shape[0])]
    return [reference for reference in found if reference is not None]


def _last(earlier: Sequence[Margins], axis: int, extent: int) -> Reference | None:
    if extent > 1:
        for back in range(1, len(earlier) + 1):
            if len(earlier[-back][axis]) == extent:
                return Reference(back, axis)
    return None


def _kernel(shape: tuple[int, int], kernel: tuple[int, int], earlier: Sequence[Margins]) -> tuple[int, int]:
    """The layer's kernel; of a linear layer, the square map of the last channels that its columns can come from."""
    if kernel != (1, 1):
        return kernel if kernel[0] * kernel[1] <= MOST_PHASES else (1, 1)
    for back in range(1, len(earlier) + 1):
        channels = len(earlier[-back].rows)
        positions, rest = divmod(shape[1], channels)
        side = int(np.sqrt(positions))
        if rest == 0 and channels > 1 and positions > 1:
            return (side, side) if side * side == positions <= MOST_PHASES else (1, 1)
    return 1, 1


def _code_codebook(coder: Coder, grid: Grid, mask: Mask, half: bool, truth: Values | None, nnz: int) -> Values:
    """(nnz,) values of which each sign has a sorted codebook; the index counts from the smallest magnitude."""
    patterns = None if truth is None else _patterns(np.abs(truth), half)
    above = None if truth is None else truth > 0
    books = [
        None if patterns is None or above is None else np.unique(patterns[above == positive])
        for positive in (False, True)
    ]
    sizes = [coder.number(None if book is None else len(book)) for book in books]
    _expect(0 < sum(sizes) <= min(nnz, _MOST_CODES), "codebook")
    if min(sizes):
        known = None
        if above is not None:
            known = np.zeros(mask.shape, dtype=bool)
            known[mask] = above
        signs = code_signs(coder, grid, mask, known)[mask]
    else:
        signs = np.full(nnz, sizes[1] > 0)
    found = np.zeros(nnz, dtype=np.int64)
    start: Ints | None = None
    for positive, size in enumerate(sizes):
        if not size:
            continue
        book = code_ascending(coder, 15 if half else 31, books[positive], size)
        which = signs == bool(positive)
        indices = None if patterns is None else np.searchsorted(book, patterns[which])
        indices = code_indices(coder, size, indices, int(which.sum()), start)
        found[which] = book[indices]
        if positive == 0:  # magnitudes of both signs are distributed alike, which is half believed
            seen = np.bincount(indices, minlength=size)
            start = 1 + seen[np.arange(sizes[1]) * size // max(1, sizes[1])] // 2
    return _floats(found, signs, half)


def _code_floats(coder: Coder, half: bool, signs: Mask, truth: Values | None) -> Values:
    """(nnz,) values one by one: exponents by their counts, then the mantissas' bits that any of them uses."""
    exponent_bits, mantissa_bits = (5, 10) if half else (8, 23)
    patterns = None if truth is None else _patterns(np.abs(truth), half)
    n = len(signs)
    exponents = None if patterns is None else patterns >> mantissa_bits
    exponents = code_indices(coder, 1 << exponent_bits, exponents, n)
    kept = coder.choice(
        mantissa_bits + 1, None if patterns is None else mantissa_bits - _zeros(patterns, mantissa_bits)
    )
    mantissas = None if patterns is None else (patterns & (1 << mantissa_bits) - 1) >> mantissa_bits - kept
    raw_bits = kept // 8 * 8
    found = np.zeros(n, dtype=np.int64)
    if kept > raw_bits:
        choices = 1 << kept - raw_bits
        found = coder.uniform(choices, None if mantissas is None else mantissas >> raw_bits, n)
    for low in range(raw_bits - 8, -8, -8):
        data = None if mantissas is None else (mantissas >> low & 0xFF).astype(np.uint8).tobytes()
        found = found << 8 | np.frombuffer(coder.raw(data, n), dtype=np.uint8).astype(np.int64)
    return _floats(exponents << mantissa_bits | found << mantissa_bits - kept, signs, half)


def _zeros(patterns: Ints, bits: int) -> int:
    """How many of the last `bits` bits are zero in every pattern."""
    used = int(np.bitwise_or.reduce(patterns)) & (1 << bits) - 1
    return (used & -used).bit_length() - 1 if used else bits


def _halves(values: Values) -> bool:
    """Whether fp16 holds every value exactly."""
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float16).astype(np.float32) == values).all())


def _patterns(magnitudes: Values, half: bool) -> Ints:
    """Floats as integers in the same order, by their bits."""
    if half:
        return magnitudes.astype(np.float16).view(np.uint16).astype(np.int64)
    return magnitudes.view(np.uint32).astype(np.int64)


def _floats(patterns: Ints, positive: Mask, half: bool) -> Values:
    _expect(bool((patterns <= (0x7C00 if half else 0x7F800000)).all() and (patterns > 0).all()), "values")
    if half:
        magnitudes = patterns.astype(np.uint16).view(np.float16).astype(np.float32)
    else:
        magnitudes = patterns.astype(np.uint32).view(np.float32)
    return np.where(positive, magnitudes, -magnitudes)


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise ArtifactError(f"artifact's {what} do not fit its tensor; it is damaged, get it again")
