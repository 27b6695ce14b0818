"""The settings of a training stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from atmc_search.attacks import ThreatModel
from atmc_search.spec import Component, Section


def _warmup_of(given: Mapping[str, Any]) -> float:
    return 0.0 if given.get("lr_schedule") == "cyclic" else 0.5


class StageSpec(Section):
    """Settings that every training stage has."""

    epochs: int = Field(ge=1, description="passes over the training images")
    lr: float = Field(0.1, gt=0, description="peak learning rate")
    lr_schedule: Literal["cosine", "linear", "constant", "cyclic"] = Field(
        "linear",
        description="learning rate over the stage: to 0 by half a cosine or a line, or constant; cyclic: a line up to "
        "lr over 40 % of the stage, a line down to 0, without warmup",
    )
    warmup: float = Field(
        default_factory=_warmup_of,
        ge=0,
        description="epochs in which the learning rate rises from 0 to lr, in a line; default: 0.5, of cyclic 0",
    )
    batch_size: int = Field(128, ge=1, description="images a step")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    nesterov: bool = Field(
        default_factory=lambda given: given.get("momentum", 0.0) > 0,
        description="Nesterov's momentum in place of the plain one; default: where there is momentum",
    )
    clip_norm: float | None = Field(
        1.0, gt=0, description="the loss's gradient over all parameters is scaled to at most this norm; null: as it is"
    )
    weight_decay: float = Field(1e-4, ge=0, description="of SGD")
    attack: Component = Field(Component(name="pgd", steps=7), description="the inner maximisation")
    loss: Component = Field(
        Component(name="cross_entropy"),
        description="what is minimised: {name: cross_entropy}, {name: trades, beta: 6}, or 'package.module:attribute'",
    )
    guard: bool = Field(
        False,
        description="against catastrophic overfitting of fast attacks: if PGD-10 on 256 training images finds "
        "robustness collapsed after an epoch, the last good epoch's weights come back and PGD-7 trains from then on",
    )
    eps: float | None = Field(
        None, ge=0, description="radius of this attack; default: the threat's, which is what is measured in any case"
    )

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum and momentum is 0; raise it, or remove nesterov")
        if self.lr_schedule == "cyclic" and self.warmup:
            raise ValueError("lr_schedule cyclic rises over 40 % of the stage by itself; remove warmup, or use linear")
        if self.guard and self.attack.name == "none":
            raise ValueError("guard watches an attack and attack is none; remove guard")
        if self.epochs and self.warmup >= self.epochs:
            raise ValueError(f"warmup of {self.warmup:g} epochs does not end within epochs: {self.epochs}; lower it")
        return self

    def trained_against(self, threat: ThreatModel) -> ThreatModel:
        """The threat that images are made for in training: `threat`, with this stage's own radius if it has one."""
        return threat if self.eps is None else threat.model_copy(update={"eps": self.eps})
