"""What gradient attacks ascend: the cross-entropy, in a form whose gradient survives a confident model."""

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
