"""Deciding for one result: the best within bounds, or, where nothing fits, which bound to give way on and how far.

Unlike its neighbours it takes metrics as they were measured and directions as words, since a person wrote the bounds
and reads the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atmc_search.errors import AtmcError, did_you_mean, shown


@dataclass(frozen=True)
class Bound:
    """A limit that a metric must not cross; a value on the limit is within.

    Attributes:
        metric: the column it speaks of.
        limit: in the metric's unit; finite.
        kind: "max" if values must be at most the limit, "min" if at least.

    Raises:
        AtmcError: if the limit is not finite or the kind unknown.
    """

    metric: str
    limit: float
    kind: Literal["max", "min"]

    def __post_init__(self) -> None:
        if self.kind not in ("max", "min"):
            raise AtmcError(
                f"bound on {self.metric}: kind = {shown(self.kind)}: a bound is a max or a min; write one of the two"
            )
        if not np.isfinite(self.limit):
            raise AtmcError(
                f"bound on {self.metric}: limit = {shown(self.limit)}: a limit is a finite number; "
                f"give one or drop the bound"
            )

    def violation(self, values: ArrayLike) -> NDArray[np.float64]:
        """How far each value lies beyond the limit, in the metric's unit.

        Args:
            values: any shape.

        Returns:
            The same shape: 0 within the bound, and inf for a non-finite value, which no change of the limit admits.
        """
        array = np.asarray(values, dtype=np.float64)
        finite = np.isfinite(array)
        beyond = np.where(finite, array, self.limit) - self.limit
        return np.where(finite, np.maximum(beyond if self.kind == "max" else -beyond, 0.0), np.inf)


@dataclass(frozen=True)
class Relaxation:
    """A change of one bound that lets some row in: alone, or together with the others that are so marked.

    Attributes:
        metric: the bound's metric.
        kind: the bound's kind.
        limit: the limit asked for.
        needed: the tightest limit that suffices. It is a row's own value, so it suffices to the bit.
        index: the row that `choose` then takes.
        together: whether every other relaxation of this `Choice` must be granted too.
    """

    metric: str
    kind: Literal["max", "min"]
    limit: float
    needed: float
    index: int
    together: bool = False

    @property
    def by(self) -> float:
        """How far the limit must move, in the metric's unit; positive."""
        return abs(self.needed - self.limit)


@dataclass(frozen=True)
class Choice:
    """What `choose` decided.

    Attributes:
        index: the row taken; None if no row is within all bounds.
        candidates: how many rows are within all bounds.
        runner_up: the row that would be taken if `index` were not there; None if there is no other candidate.
        relaxations: empty if a row was taken. Otherwise, in the order of the bounds, each bound's smallest change that
            alone lets a row in (a bound is left out if no change of it alone does). If there is none, the changes to
            make together with the least total relative violation. Empty if no row has all the values it takes.
    """

    index: int | None
    candidates: int
    runner_up: int | None
    relaxations: tuple[Relaxation, ...] = ()


def choose(
    table: Mapping[str, NDArray[Any]],
    bounds: Sequence[Bound],
    best: str,
    *,
    maximise: bool,
    tie_break: Sequence[tuple[str, bool]] = (),
) -> Choice:
    """The row that is best in one metric among those within all bounds.

    Args:
        table: one (n,) numeric column per metric, in the metric's unit. A row whose value is not finite in `best` or
            in a bounded metric does not qualify.
        bounds: all must hold; none is fine.
        best: the metric to decide by.
        maximise: whether a larger `best` is better.
        tie_break: (metric, whether larger is better) in order, for rows equal in `best`; NaN loses. What is still
            equal goes to the earlier row.

    Raises:
        AtmcError: if a metric is not in the table, or not numeric.
    """
    target = _column(table, best, "best")
    columns = [_column(table, bound.metric, "bound") for bound in bounds]
    # np.lexsort: the last key decides first, equal rows keep their order, NaN goes last
    keys = [(target, maximise), *((_column(table, name, "tie_break"), largest) for name, largest in tie_break)]
    order = np.lexsort([-column if largest else column for column, largest in reversed(keys)])
    order = order[np.isfinite(target[order]) & np.all([np.isfinite(column[order]) for column in columns], axis=0)]

    fitting = order[_within(bounds, columns, order)]
    if len(fitting):
        return Choice(
            index=int(fitting[0]),
            candidates=len(fitting),
            runner_up=int(fitting[1]) if len(fitting) > 1 else None,
        )
    relaxations = _alone(bounds, columns, order) or _together(bounds, columns, order)
    return Choice(index=None, candidates=0, runner_up=None, relaxations=relaxations)


def _within(
    bounds: Sequence[Bound], columns: Sequence[NDArray[np.float64]], rows: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Which of the rows are within all the bounds."""
    mask = np.ones(len(rows), dtype=bool)
    for bound, column in zip(bounds, columns, strict=True):
        mask &= bound.violation(column[rows]) == 0
    return mask


def _alone(
    bounds: Sequence[Bound], columns: Sequence[NDArray[np.float64]], order: NDArray[np.intp]
) -> tuple[Relaxation, ...]:
    """For each bound, the smallest change that suffices while all others stand."""
    found = []
    for i, (bound, column) in enumerate(zip(bounds, columns, strict=True)):
        others = [j for j in range(len(bounds)) if j != i]
        rows = order[_within([bounds[j] for j in others], [columns[j] for j in others], order)]
        if not len(rows):
            continue
        # The values themselves are compared: two of them can lie equally far beyond the limit after rounding.
        needed = column[rows].min() if bound.kind == "max" else column[rows].max()
        first = rows[column[rows] == needed][0]
        found.append(Relaxation(bound.metric, bound.kind, bound.limit, float(needed), int(first)))
    return tuple(found)


def _together(
    bounds: Sequence[Bound], columns: Sequence[NDArray[np.float64]], order: NDArray[np.intp]
) -> tuple[Relaxation, ...]:
    """The changes that let in the row with the least violation, in fractions of the limits, summed over the bounds."""
    if not len(order):
        return ()
    total = np.zeros(len(order))
    for bound, column in zip(bounds, columns, strict=True):
        # A limit of 0 has no fractions; the column's largest magnitude stands in. It is 0 only if nothing is violated.
        scale = abs(bound.limit) or np.abs(column[order]).max() or 1.0
        with np.errstate(over="ignore"):  # by a limit like 1e-320; an infinite fraction is then the honest one
            total += bound.violation(column[order]) / scale
    # The first of the least: any other row that these changes admit has the same total, and stands later in the order.
    row = int(order[np.argmin(total)])
    return tuple(
        Relaxation(bound.metric, bound.kind, bound.limit, float(column[row]), row, together=True)
        for bound, column in zip(bounds, columns, strict=True)
        if bound.violation(column[row]) > 0
    )


def _column(table: Mapping[str, NDArray[Any]], name: str, role: str) -> NDArray[np.float64]:
    """One metric as floats."""
    if name not in table:
        raise AtmcError(f"{role} = {shown(name)}: not a metric of these results; {did_you_mean(name, list(table))}")
    try:
        column = np.asarray(table[name], dtype=np.float64)
    except (TypeError, ValueError):
        raise AtmcError(f"{role} = {shown(name)}: its values are not numbers; name a numeric metric") from None
    assert column.ndim == 1, f"{name} has shape {column.shape}; a column is (n,)"
    return column
