"""Auto-PGD: the step-size-free ascent inside `apgd_ce` and `apgd_t` (Croce & Hein, arXiv 2003.01690, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from atmc_search.attacks.threat import ThreatModel, ascend, clip, per_image

# (logits, y, target) -> (n,) losses to ascend.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

MOMENTUM = 0.75  # share of the gradient step; the rest repeats the move before it


@dataclass
class _Climb:
    """What the images carry from step to step; the images come first in every field."""

    index: Tensor
    x: Tensor
    y: Tensor
    target: Tensor
    x_adv: Tensor
    previous: Tensor
    gradient: Tensor
    loss: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    best_loss_before: Tensor  # at the checkpoint before
    halved_before: Tensor
    step_size: Tensor
    rises: Tensor  # steps since the checkpoint that raised the loss

    def without_broken(self, right: Tensor, result: Tensor) -> _Climb:
        """Those that the model still gets right; the iterates of the others go into `result`."""
        if right.all():
            return self
        result[self.index[~right]] = self.x_adv[~right]
        return _Climb(**{field.name: getattr(self, field.name)[right] for field in fields(self)})


def auto_pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    start: Tensor,
    target: Tensor,
    loss: Loss,
    *,
    steps: int,
    rho: float,
    until_broken: bool,
) -> Tensor:
    """Ascent with momentum from `start`, whose step size is halved, image by image, where progress stalls.

    The loss is used by its order and by the direction of its gradient alone, so that any increasing function of it
    takes the same path. Two details follow the paper where its authors' code differs: the first checkpoint compares
    with the start's loss (the code: with 0), and after a return to the best point its loss is the one to beat.

    Args:
        model: images in [0, 1] to logits (n, classes), in eval mode.
        x: (n, c, h, w) in [0, 1].
        y: (n,) true labels.
        threat: the norm and eps.
        start: (n, c, h, w), within the threat model.
        target: (n,) what `loss` is given: classes to aim at, or y.
        loss: what to ascend.
        steps: gradient steps; the checkpoints are spread over them.
        rho: the step is halved unless more than this share of the steps since the last checkpoint raised the loss.
        until_broken: an image is dropped at the first iterate that the model gets wrong, which is given back.

    Returns:
        (n, c, h, w): each image's iterate of highest loss, or its first broken one.
    """

    def look(x_adv: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_in = x_adv.detach().requires_grad_()
        logits = model(x_in)
        values = loss(logits, y, target)
        (gradient,) = torch.autograd.grad(values.sum(), x_in)
        return logits.argmax(1) == y, values.detach(), gradient

    result = torch.empty_like(x)
    right, value, gradient = look(start, y, target)
    c = _Climb(
        index=torch.arange(len(x), device=x.device),
        x=x,
        y=y,
        target=target,
        x_adv=start,
        previous=start,
        gradient=gradient,
        loss=value,
        best=start,
        best_gradient=gradient,
        best_loss=value,
        best_loss_before=value,
        halved_before=torch.ones_like(right),
        step_size=x.new_full((len(x),), 2 * threat.eps),
        rises=torch.zeros_like(value),
    )
    if until_broken:
        c = c.without_broken(right, result)
    # Checkpoints at shares 0.22, 0.41, 0.57, … of the steps: each interval 0.03 shorter than the last, down to 0.06.
    interval, shorter, shortest = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    next_check = interval
    for step in range(1, steps + 1):
        if not len(c.index):
            break
        moved = clip(threat, c.x, ascend(threat, c.x_adv, c.gradient, per_image(c.step_size, x)))
        if step > 1:
            move = MOMENTUM * (moved - c.x_adv) + (1 - MOMENTUM) * (c.x_adv - c.previous)
            moved = clip(threat, c.x, c.x_adv + move)
        c.previous, c.x_adv = c.x_adv, moved
        right, value, c.gradient = look(c.x_adv, c.y, c.target)
        c.rises = c.rises + (value > c.loss)
        c.loss = value
        better = value > c.best_loss
        c.best = torch.where(per_image(better, x), c.x_adv, c.best)
        c.best_gradient = torch.where(per_image(better, x), c.gradient, c.best_gradient)
        c.best_loss = torch.where(better, value, c.best_loss)
        if until_broken:
            c = c.without_broken(right, result)
        if step == next_check:
            # Condition 1: too few steps raised the loss. Condition 2: no new best since the checkpoint before, though
            # the step size was not halved there.
            halve = (c.rises <= rho * interval) | (~c.halved_before & (c.best_loss_before >= c.best_loss))
            c.step_size = torch.where(halve, c.step_size / 2, c.step_size)
            c.x_adv = torch.where(per_image(halve, x), c.best, c.x_adv)
            c.gradient = torch.where(per_image(halve, x), c.best_gradient, c.gradient)
            c.loss = torch.where(halve, c.best_loss, c.loss)
            c.halved_before, c.best_loss_before, c.rises = halve, c.best_loss, torch.zeros_like(c.rises)
            interval = max(interval - shorter, shortest)
            next_check = step + interval
    result[c.index] = c.best
    return result
