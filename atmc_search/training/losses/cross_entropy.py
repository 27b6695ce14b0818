"""Cross-entropy on adversarial images: plain adversarial training (Madry et al., arXiv 1706.06083)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from atmc_search.training.losses.base import Loss


class CrossEntropy(Loss):
    """Mean cross-entropy of the labels on x_adv; clean images are not passed."""

    def __call__(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(x_adv)
        return F.cross_entropy(logits, y), logits
