"""Cross-entropy on adversarial images: plain adversarial training (Madry et al., arXiv 1706.06083)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from atmc_search.training.losses.base import Loss, weighted_mean


class CrossEntropy(Loss):
    """Mean cross-entropy of the labels on x_adv; clean images are not passed."""

    def __call__(
        self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        logits = model(x_adv)
        if weights is None:
            return F.cross_entropy(logits, y), logits
        return weighted_mean(F.cross_entropy(logits, y, reduction="none"), weights), logits
