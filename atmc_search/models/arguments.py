"""Checks that the architectures share: their settings come straight from a spec."""

from __future__ import annotations

import sys

from atmc_search.errors import SpecError, written


def positive_int(value: object, setting: str) -> int:
    """`value` if it is a whole number of at least 1.

    Args:
        value: what the spec says.
        setting: its key under `trial.model`, for the message.

    Raises:
        SpecError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpecError(
            f"trial.model.{setting} = {written(value)}: must be a positive integer; write e.g. {setting}: 16"
        )
    return value


def positive_number(value: object, setting: str) -> float:
    """`value` as a float if it is a finite number above 0.

    Args:
        value: what the spec says.
        setting: its key under `trial.model`, for the message.

    Raises:
        SpecError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
        raise SpecError(
            f"trial.model.{setting} = {written(value)}: must be a positive number; write e.g. {setting}: 0.5"
        )
    return float(value)


def fraction(value: object, setting: str) -> float:
    """`value` as a float if it is a number of at least 0 and below 1.

    Args:
        value: what the spec says.
        setting: its key under `trial.model`, for the message.

    Raises:
        SpecError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise SpecError(f"trial.model.{setting} = {written(value)}: must be in [0, 1); write e.g. {setting}: 0.3")
    return float(value)


def large_enough(input_shape: tuple[int, int, int], least: int, model: str) -> None:
    """Passes if images are at least `least` pixels high and wide.

    Raises:
        SpecError: they are not.
    """
    _, height, width = input_shape
    if min(height, width) < least:
        raise SpecError(
            f"trial.model.name = {model!r}: needs images of at least {least}×{least}, these are {height}×{width}; "
            "choose another model or dataset"
        )
