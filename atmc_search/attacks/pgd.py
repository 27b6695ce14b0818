"""PGD: projected gradient ascent from a random point of the ball (Madry et al., arXiv 1706.06083)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn

from atmc_search.attacks.base import Attack
from atmc_search.attacks.divergence import ascend_divergence
from atmc_search.attacks.loss import log_odds, target_margin
from atmc_search.attacks.runs import likely_wrong_classes, worst_of_runs
from atmc_search.attacks.threat import ThreatModel, ascend, clip, random_start


class PGD(Attack):
    """`steps` steps x ← Π(x + step_size · ascent direction of the loss), best of `restarts` starts.

    The loss is the cross-entropy or, with `targets`, the target's logit minus the true one, in as many runs.
    """

    steps: int = Field(7, ge=1, description="gradient steps")
    step_size: float | None = Field(None, gt=0, description="in [0, 1] pixel units; default: 2.5 eps / steps")
    restarts: int = Field(1, ge=1, description="independent starts; each image keeps its worst")
    random_start: bool = Field(True, description="start anywhere in the ball; false: at the clean image")
    targets: int | None = Field(
        None,
        ge=1,
        description="aim at each of this many most likely wrong classes in turn (at most all); default: untargeted",
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
        step_size = self._step_size(threat)

        def starts() -> Iterator[tuple[Tensor, Tensor | None]]:
            targets = [None] if self.targets is None else likely_wrong_classes(model, x, y, self.targets)
            for _ in range(self.restarts):
                for target in targets:
                    yield (random_start(threat, x, generator) if self.random_start else x.clone()), target

        def run(x: Tensor, y: Tensor, start: Tensor, target: Tensor | None) -> Tensor:
            return self._run(model, x, y, threat, start, target, step_size, until_broken)

        return worst_of_runs(run, model, x, y, starts(), until_broken=until_broken)

    @property
    def can_diverge(self) -> bool:
        return self.random_start and self.restarts == 1 and self.targets is None

    def diverge(
        self, model: nn.Module, x: Tensor, reference: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        start = random_start(threat, x, generator)
        return ascend_divergence(
            model, x, reference, threat, start=start, steps=self.steps, step_size=self._step_size(threat)
        )

    def _step_size(self, threat: ThreatModel) -> float:
        # 2.5 eps / steps lets an iterate cross the ball and come back (Madry et al.). The original ATMC code used
        # 1.25 eps / steps from the clean image, from which a random start could not reach the far side.
        return self.step_size or 2.5 * threat.eps / self.steps

    def _run(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        start: Tensor,
        target: Tensor | None,
        step_size: float,
        until_broken: bool,
    ) -> Tensor:
        result = torch.empty_like(x)
        going = torch.arange(len(x), device=x.device)
        x_adv = start
        for _ in range(self.steps):
            x_adv.requires_grad_()
            logits = model(x_adv)
            loss = log_odds(logits, y) if target is None else target_margin(logits, y, target)
            (gradient,) = torch.autograd.grad(loss.sum(), x_adv)
            with torch.no_grad():
                if until_broken and not (right := logits.argmax(1) == y).all():
                    result[going[~right]] = x_adv[~right]
                    going, x, y, x_adv, gradient = (v[right] for v in (going, x, y, x_adv, gradient))
                    target = None if target is None else target[right]
                    if not len(going):
                        return result
                x_adv = clip(threat, x, ascend(threat, x_adv, gradient, step_size))
        # The last iterate is not looked at here: it is what there is to give back, and who measures looks at it.
        result[going] = x_adv
        return result
