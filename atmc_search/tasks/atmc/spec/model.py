"""The section of the model."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator

from atmc_search.spec import Component


class ModelSpec(Component):
    """An architecture by name, with its own settings beside the name, and how its images are normalised."""

    normalize: Literal["data", "none"] | list[list[float]] = Field(
        "data",
        exclude_if=lambda value: bool(value == "data"),  # so that specs of earlier releases keep their fingerprints
        description="what the model's first layer does to images in [0, 1]. data: each channel less its mean over the "
        "training images, by its deviation; [[means], [deviations]]: by these; none: nothing, for a model that does it",
    )

    @field_validator("normalize", mode="before")  # before pydantic's own text, which names both types of the union
    @classmethod
    def _one_of_three(cls, value: object) -> object:
        if isinstance(value, str) and value in ("data", "none"):
            return value
        if not isinstance(value, list) or len(value) != 2 or not all(map(_numbers, value)):
            raise ValueError("must be data, none or [[means], [deviations]]; e.g. [[0.5], [0.25]] for one channel")
        if len(value[0]) != len(value[1]):
            raise ValueError("must be [[means], [deviations]], a number for each channel in both; e.g. [[0.5], [0.25]]")
        if not all(deviation > 0 for deviation in value[1]):
            raise ValueError("deviations must be above 0; raise them")
        return value


def _numbers(values: object) -> bool:
    """Whether these are finite numbers, one at least."""
    return (
        isinstance(values, list)
        and bool(values)
        and all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in values)
    )
