"""TRADES: accuracy on clean images, and predictions that an attack does not move (Zhang et al., arXiv 1901.08573)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_search.attacks import Reference
from atmc_search.training.losses.base import Loss, weighted_mean


class Trades(Loss):
    """CE(model(x), y) + beta · KL(model(x) ‖ model(x_adv)); gradients flow through both arguments of the KL.

    x_adv maximises that KL (not the loss of the label), with the model in eval mode, from a random point of the ball;
    the paper starts from Gaussian noise of 0.001, from which the first step's sign leads as far.

    Batch norm: as in the authors' code, clean and adversarial images pass one after the other, each batch normalised by
    its own statistics. The running statistics, which evaluation uses, take in both, the adversarial batch last.
    """

    beta: float = Field(6.0, ge=0, description="weight of the divergence: robustness against clean accuracy")

    @property
    def reference(self) -> Reference:
        return _predictions

    def __call__(
        self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        clean = model(x)
        logits = model(x_adv)
        seen, wanted = logits.log_softmax(1), clean.log_softmax(1)
        if weights is None:
            divergence = F.kl_div(seen, wanted, reduction="batchmean", log_target=True)
            return F.cross_entropy(clean, y) + self.beta * divergence, logits
        divergences = F.kl_div(seen, wanted, reduction="none", log_target=True).sum(1)
        return weighted_mean(F.cross_entropy(clean, y, reduction="none") + self.beta * divergences, weights), logits


def _predictions(model: nn.Module, x: Tensor) -> Tensor:
    log_probabilities: Tensor = model(x).log_softmax(1)
    return log_probabilities
