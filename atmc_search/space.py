"""Search spaces: the distributions that stand inside a spec, their way to Optuna, and a sampled config's way back.

A distribution is a mapping with exactly one of the keys of `KINDS`, written where a value would stand:
`lr: {log_uniform: [0.003, 0.1]}`. Its dotted path (`trial.train.lr`) is its name everywhere: in Optuna, in Ray's
config, as a Parquet column. To add a kind: a branch in `_distribution`, one in `centre` and one in `extremes`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from atmc_search.errors import SpecError, written

Scalar: TypeAlias = bool | int | float | str | None
Config: TypeAlias = dict[str, Any]
"""One trial's sampled values by dotted path."""

KINDS = ("choice", "uniform", "log_uniform", "int_uniform")


def distributions(template: Mapping[str, Any], path: str = "trial") -> dict[str, BaseDistribution]:
    """The distributions that stand in `template`, by dotted path, in the order in which they are written.

    Raises:
        SpecError: an empty range, a choice of nothing, or bounds of the wrong type.
    """
    found: dict[str, BaseDistribution] = {}
    for key, value in template.items():
        here = f"{path}.{key}"
        if _is_distribution(value):
            ((kind, argument),) = value.items()
            found[here] = _distribution(kind, argument, f"{here}.{kind}")
        elif isinstance(value, Mapping):
            found |= distributions(value, here)
    return found


def fill(template: Mapping[str, Any], config: Mapping[str, Any], path: str = "trial") -> dict[str, Any]:
    """`template` with every distribution replaced by its value in `config`; the others are left standing."""
    filled: dict[str, Any] = {}
    for key, value in template.items():
        here = f"{path}.{key}"
        if _is_distribution(value):
            filled[key] = config.get(here, value)
        elif isinstance(value, Mapping):
            filled[key] = fill(value, config, here)
        else:
            filled[key] = value
    return filled


def centre(distribution: BaseDistribution) -> Scalar:
    """The middle of a distribution: first choice, midpoint, or geometric midpoint of a log range."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return choices[0]
        case IntDistribution(low=low, high=high):
            return (low + high) // 2
        case FloatDistribution(low=low, high=high, log=True):
            # Not sqrt(low * high), which underflows; rounding must not lead out of the range, here and below.
            return min(max(math.sqrt(low) * math.sqrt(high), low), high)
        case FloatDistribution(low=low, high=high):
            return min(max(low / 2 + high / 2, low), high)
    raise AssertionError(f"no centre for {distribution}")


def extremes(space: Mapping[str, BaseDistribution]) -> Iterator[tuple[str | None, Config]]:
    """Configs that together show every extreme of every distribution: one at a time, the rest at their centre.

    Yields:
        the path that was moved (None for the all-centre config) and the config.
    """
    base: Config = {path: centre(distribution) for path, distribution in space.items()}
    yield None, base
    for path, distribution in space.items():
        match distribution:
            case CategoricalDistribution(choices=choices):
                extremes: list[Any] = list(choices)
            case IntDistribution(low=low, high=high) | FloatDistribution(low=low, high=high):
                extremes = [low, high]
        for value in extremes:
            yield path, {**base, path: value}


def _is_distribution(value: object) -> bool:
    return isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in KINDS


def _distribution(kind: str, argument: object, where: str) -> BaseDistribution:
    if not isinstance(argument, list):
        raise SpecError(f"{where} = {written(argument)}: must be a list; write [a, b]")
    if kind == "choice":
        return _choice(argument, where)
    if len(argument) != 2:
        raise SpecError(f"{where} = {written(argument)}: must be [low, high]; give two numbers")
    for bound in argument:
        rule = f"{where} = {written(argument)}: bounds must be"
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not _finite(bound):
            raise SpecError(f"{rule} finite numbers and {written(bound)} is not; give two numbers")
        if kind == "int_uniform" and not isinstance(bound, int):
            raise SpecError(f"{rule} whole numbers and {written(bound)} is not; round it, or use uniform")
    low, high = argument
    if low >= high:
        remedy = "give a plain value" if low == high else f"did you mean [{high}, {low}]?"
        raise SpecError(f"{where} = {written(argument)}: the range is empty, low must be below high; {remedy}")
    if kind == "log_uniform":
        if low <= 0:
            raise SpecError(
                f"{where} = {written(argument)}: low must be above 0 on a log scale; use uniform or raise it"
            )
        return FloatDistribution(float(low), float(high), log=True)
    if kind == "int_uniform":
        return IntDistribution(low, high)
    return FloatDistribution(float(low), float(high))


def _choice(argument: list[Any], where: str) -> BaseDistribution:
    if not argument:
        raise SpecError(f"{where} = []: nothing to choose from; list at least one value")
    for value in argument:
        if not isinstance(value, None | bool | int | float | str):
            raise SpecError(
                f"{where}: {written(value)} is no scalar; a choice is between numbers, words, true/false, null"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise SpecError(f"{where}: {value} is not finite; a choice is between finite values")
    # 1, 1.0 and true are equal, to Optuna too: it would record one for the other.
    if len(set(argument)) < len(argument):
        raise SpecError(f"{where} = {written(argument)}: a value stands twice; list each once")
    return CategoricalDistribution(argument)


def _finite(number: int | float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an int beyond the largest float
        return False
