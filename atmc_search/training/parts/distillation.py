"""Robust soft labels: the model in training learns what the dense robust model says of clean images.

Teacher on clean images in eval mode, student on adversarial ones: Adversarially Robust Distillation (ARD, Goldblum et
al., arXiv 1905.09747) with the teacher's soft labels as in RSLAD (Zi et al., arXiv 2108.07969). RSLAD also has the
attack ascend the divergence from the teacher; here the attack stays what `loss` asks for.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_search.training.losses import weighted_mean
from atmc_search.training.parts.base import Part


class Distillation(Part):
    """A fixed model, the teacher, and how much its word counts.

    Attributes:
        model: in eval mode, on the device of training; images in [0, 1] to logits (n, classes).
        weight: share of the soft labels in the loss, from 0 to 1.
        temperature: T, by which both sides' logits are divided.
    """

    name: ClassVar[str] = "distillation"

    def __init__(self, model: nn.Module, weight: float, temperature: float) -> None:
        self.model = model
        self.weight = weight
        self.temperature = temperature

    def objective(self, value: Tensor, x: Tensor, logits: Tensor, weights: Tensor | None) -> Tensor:
        """(1 − weight) · value + weight · T² · KL(teacher(x) ‖ student(x_adv)), both at temperature T."""
        with torch.no_grad():
            soft = (self.model(x) / self.temperature).log_softmax(1)
        own = (logits / self.temperature).log_softmax(1)
        if weights is None:
            divergence = F.kl_div(own, soft, reduction="batchmean", log_target=True)
        else:
            divergence = weighted_mean(F.kl_div(own, soft, reduction="none", log_target=True).sum(1), weights)
        # T² keeps the gradient's size, which falls with it (Hinton et al., arXiv 1503.02531).
        divergence = self.temperature**2 * divergence
        return (1 - self.weight) * value + self.weight * divergence
