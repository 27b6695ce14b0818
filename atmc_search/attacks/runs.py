"""Several runs of an attack on the same images (restarts, target classes): each image keeps the worst."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from atmc_search.attacks.loss import margin

# (x, y, start, target) of the images to attack -> adversarial images; target is None in an untargeted run.
Run = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def worst_of_runs(
    run: Run,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    starts: Iterable[tuple[Tensor, Tensor | None]],
    *,
    until_broken: bool,
) -> Tensor:
    """Each image's result with the smallest margin over a run from each start.

    `starts` is consumed to its end, whatever broke when: noise is drawn for the whole batch in every run, so that what
    one image meets never depends on what became of another. That costs less than a forward pass.

    Args:
        run: attacks the images that it is given.
        model: images in [0, 1] to logits (n, classes).
        x: (n, c, h, w) in [0, 1].
        y: (n,) true labels.
        starts: at least one pair of starting points (n, c, h, w) and target classes (n,) or None.
        until_broken: later runs leave out images that an earlier one broke.

    Returns:
        (n, c, h, w), same dtype and device as x.
    """
    best = best_margin = None
    chosen = torch.arange(len(x), device=x.device)
    for start, target in starts:
        if best is None:
            best = run(x, y, start, target)
            continue
        if best_margin is None:  # put off to the second run: a single one needs no judging
            best_margin, right = _judge(model, best, y)
            chosen = chosen[right] if until_broken else chosen
        if len(chosen):
            x_adv = run(x[chosen], y[chosen], start[chosen], None if target is None else target[chosen])
            found, right = _judge(model, x_adv, y[chosen])
            worse = found < best_margin[chosen]
            if until_broken:
                worse |= ~right
            best[chosen[worse]] = x_adv[worse]
            best_margin[chosen[worse]] = found[worse]
            chosen = chosen[right] if until_broken else chosen
    assert best is not None
    return best


@torch.no_grad()
def likely_wrong_classes(model: nn.Module, x: Tensor, y: Tensor, count: int) -> Tensor:
    """The `count` (at most classes − 1) most likely wrong classes, most likely first.

    Returns:
        (count, n) class indices.
    """
    logits = model(x)
    wrong = logits.scatter(1, y[:, None], -torch.inf)
    classes: Tensor = wrong.topk(min(count, logits.shape[1] - 1), dim=1).indices
    return classes.T


@torch.no_grad()
def _judge(model: nn.Module, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) margins, and (n,) whether the model is still right, as accuracy counts it."""
    logits = model(x_adv)
    return margin(logits, y), logits.argmax(1) == y
