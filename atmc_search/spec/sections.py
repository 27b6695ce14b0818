"""What the sections of a spec are made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of a spec: frozen, strict, without unknown keys or numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Component(BaseModel):
    """Something chosen by name, with settings of its own beside the name: `{name: pgd, steps: 7}`."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    name: str = Field(description="a known name, or 'package.module:attribute'")

    @property
    def args(self) -> dict[str, Any]:
        """The settings beside the name."""
        return dict(self.model_extra or {})


class TrialSpec(Section):
    """One trial, fully determined. Each task has a subclass of its own, with the sections that it needs."""

    seed: int = Field(0, ge=0, description="seed of the trial's random numbers; a sweep adds the trial's number")
