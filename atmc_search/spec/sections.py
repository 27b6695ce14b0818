"""What the sections of a spec are made of."""

from __future__ import annotations

from typing import Any, Literal

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


class ThreatModel(Section):
    """What the adversary may do: move an image within [0, 1] by at most eps in the norm."""

    norm: Literal["linf", "l2"] = Field("linf", description="the norm of the perturbation")
    eps: float = Field(ge=0, description="its radius, in units of pixels scaled to [0, 1]")
