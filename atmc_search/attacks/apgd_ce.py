"""APGD-CE: Auto-PGD on the cross-entropy (Croce & Hein, arXiv 2003.01690), the first attack of AutoAttack."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn

from atmc_search.attacks.apgd import auto_pgd
from atmc_search.attacks.base import Attack
from atmc_search.attacks.loss import log_odds
from atmc_search.attacks.runs import worst_of_runs
from atmc_search.attacks.threat import ThreatModel, random_start


class APGDCE(Attack):
    """Auto-PGD on the log odds of being wrong, from random points of the ball.

    The cross-entropy is an increasing function of them, so that the path is that of the cross-entropy, but for the
    rounding that would hide a confident model's gradient (see `log_odds`).
    """

    steps: int = Field(100, ge=1, description="gradient steps")
    restarts: int = Field(1, ge=1, description="independent starts; each image keeps its worst")
    rho: float = Field(0.75, gt=0, lt=1, description="share of steps that must raise the loss to keep the step size")

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
        def starts() -> Iterator[tuple[Tensor, None]]:
            for _ in range(self.restarts):
                yield random_start(threat, x, generator), None

        def run(x: Tensor, y: Tensor, start: Tensor, target: Tensor | None) -> Tensor:
            return auto_pgd(
                model,
                x,
                y,
                threat,
                start,
                y,
                lambda logits, y, _: log_odds(logits, y),
                steps=self.steps,
                rho=self.rho,
                until_broken=until_broken,
            )

        return worst_of_runs(run, model, x, y, starts(), until_broken=until_broken)
