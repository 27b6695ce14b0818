"""APGD-T: Auto-PGD on the targeted DLR loss (Croce & Hein, arXiv 2003.01690), the second attack of AutoAttack."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn

from atmc_search.attacks.apgd import auto_pgd
from atmc_search.attacks.base import Attack
from atmc_search.attacks.loss import target_dlr
from atmc_search.attacks.runs import likely_wrong_classes, worst_of_runs
from atmc_search.attacks.threat import ThreatModel, random_start


class APGDT(Attack):
    """Auto-PGD towards each of the most likely wrong classes in turn, from random points of the ball.

    With two or three classes, where the targeted DLR loss is not defined, the loss is the target's logit minus the
    true one.
    """

    steps: int = Field(100, ge=1, description="gradient steps a run")
    restarts: int = Field(1, ge=1, description="independent starts a target; each image keeps its worst")
    rho: float = Field(0.75, gt=0, lt=1, description="share of steps that must raise the loss to keep the step size")
    targets: int = Field(
        9, ge=1, description="aim at each of this many most likely wrong classes in turn (at most all)"
    )

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        generator: torch.Generator,
        *,
        until_broken: bool = False,
    ) -> Tensor:
        def starts() -> Iterator[tuple[Tensor, Tensor]]:
            for target in likely_wrong_classes(model, x, y, self.targets):
                for _ in range(self.restarts):
                    yield random_start(threat, x, generator), target

        def run(x: Tensor, y: Tensor, start: Tensor, target: Tensor | None) -> Tensor:
            assert target is not None
            return auto_pgd(
                model,
                x,
                y,
                threat,
                start,
                target,
                target_dlr,
                steps=self.steps,
                rho=self.rho,
                until_broken=until_broken,
            )

        return worst_of_runs(run, model, x, y, starts(), until_broken=until_broken)
