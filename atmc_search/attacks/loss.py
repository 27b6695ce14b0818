"""What gradient attacks ascend, in forms whose gradient survives a confident model."""

from __future__ import annotations

import torch
from torch import Tensor


def log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """log((1 − p_y) / p_y) = logsumexp of the other logits − the true one; its gradient points as cross-entropy's.

    Cross-entropy is softplus of this, image by image, so that attacks that normalise each image's gradient take the
    same steps on either. In float32, though, its gradient loses the true logit's part (p_y − 1 rounds to 0) from a
    margin of about 17 on, and vanishes from about 100 on: a confident model would pass for a robust one.

    Args:
        logits: (n, classes), at least two classes.
        y: (n,) true labels.

    Returns:
        (n,) log odds of being wrong.
    """
    others = logits.scatter(1, y[:, None], -torch.inf).logsumexp(1)
    return others - logits.gather(1, y[:, None]).squeeze(1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """True logit minus the best other, shape (n,): below 0 the model is wrong. Args as `log_odds`."""
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    difference: Tensor = logits.gather(1, y[:, None]).squeeze(1) - others
    return difference


def target_margin(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Target logit minus the true one, shape (n,): above 0 the model is wrong.

    Args:
        logits: (n, classes).
        y: (n,) true labels.
        target: (n,) wrong classes.
    """
    return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)


def target_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """`target_margin` over the spread of the largest logits: Croce & Hein, arXiv 2003.01690, equation 7.

    The quotient is the same for all scales of the logits. With two or three classes the spread is not defined (it
    takes the third and fourth largest logit), and the margin itself is returned: it has the same sign.
    """
    if logits.shape[1] < 4:
        return target_margin(logits, y, target)
    top = logits.topk(4, dim=1).values
    spread = top[:, 0] - (top[:, 2] + top[:, 3]) / 2
    return target_margin(logits, y, target) / (spread + 1e-12)
