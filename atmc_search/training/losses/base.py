"""The contract of a training loss."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from atmc_search.attacks import Reference


class Loss(BaseModel, ABC):
    """What a step minimises on a batch and its adversarial images. Fields of a subclass are its settings, validated."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @property
    def reference(self) -> Reference | None:
        """Predictions from which the attack is to lead the model away, in KL divergence; None: it attacks labels."""
        return None

    @abstractmethod
    def __call__(
        self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss, with its graph.

        Args:
            model: in train mode. Every pass moves batch norm's running statistics.
            x: (n, c, h, w) in [0, 1], untouched.
            x_adv: the same images, attacked.
            y: (n,) labels.
            weights: (n,) of the examples, not negative and not all 0; None: all the same. It is only passed where
                there are some: a loss of your own may do without the argument.

        Returns:
            the mean over the batch, a scalar, in nats, weighted where there are weights; and (n, classes) logits of
            x_adv.
        """


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Σ wᵢ vᵢ / Σ wᵢ over the examples of a batch; without weights their mean. Both are (n,)."""
    return values.mean() if weights is None else (weights * values).sum() / weights.sum()
