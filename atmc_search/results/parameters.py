"""Columns for sampled values: one for every distribution of a spec."""

from __future__ import annotations

from collections.abc import Mapping

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from atmc_search.errors import SpecError, written
from atmc_search.results.columns import Column, Kind


def parameter_columns(
    space: Mapping[str, BaseDistribution], orders: Mapping[str, tuple[str, ...]] | None = None
) -> tuple[Column, ...]:
    """A column for every distribution of a spec, typed by what it can give.

    Args:
        space: distributions by dotted path.
        orders: of paths by whose values figures tell trials apart, all known values in order.

    Raises:
        SpecError: a choice between values that no one type of column can hold.
    """
    return tuple(
        Column(
            path,
            _kind_of(path, distribution),
            "",
            f"sampled from {_describe(distribution)}",
            role="parameter",
            order=(orders or {}).get(path, ()),
        )
        for path, distribution in space.items()
    )


def _kind_of(path: str, distribution: BaseDistribution) -> Kind:
    if isinstance(distribution, IntDistribution):
        return "int64"
    if not isinstance(distribution, CategoricalDistribution):
        return "float64"
    kinds = {type(choice) for choice in distribution.choices if choice is not None}
    if kinds <= {bool}:
        return "bool"
    if kinds <= {int}:
        return "int64"
    if kinds <= {int, float}:
        return "float64"
    if kinds <= {str}:
        return "string"
    raise SpecError(
        f"{path}.choice = {written(list(distribution.choices))}: mixes numbers, words or true/false, which one column "
        "cannot hold; write all of them as numbers, or all as words"
    )


def _describe(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return "{" + ", ".join(str(choice) for choice in distribution.choices) + "}"
    scale = " on a log scale" if getattr(distribution, "log", False) else ""
    return f"[{getattr(distribution, 'low', '')}, {getattr(distribution, 'high', '')}]{scale}"
