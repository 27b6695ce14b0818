"""The section of the model."""

from __future__ import annotations

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

    @field_validator("normalize")
    @classmethod
    def _two_lists(cls, value: str | list[list[float]]) -> str | list[list[float]]:
        if isinstance(value, str):
            return value
        if len(value) != 2 or len(value[0]) != len(value[1]) or not value[0]:
            raise ValueError("must be [[means], [deviations]], a number for each channel in both; e.g. [[0.5], [0.25]]")
        if not all(deviation > 0 for deviation in value[1]):
            raise ValueError("deviations must be above 0; raise them")
        return value
