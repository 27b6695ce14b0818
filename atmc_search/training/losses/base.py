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
    def __call__(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, with its graph.

        Args:
            model: in train mode. Every pass moves batch norm's running statistics.
            x: (n, c, h, w) in [0, 1], untouched.
            x_adv: the same images, attacked.
            y: (n,) labels.

        Returns:
            the mean over the batch, a scalar, in nats; and (n, classes) logits of x_adv.
        """
