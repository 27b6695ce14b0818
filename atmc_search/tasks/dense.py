"""Choosing the epoch whose weights are the dense start (Rice et al., arXiv 2002.11569)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from atmc_search.attacks import PGD, NoAttack
from atmc_search.data import DeviceData, ImageSet, Splits
from atmc_search.measure import measure
from atmc_search.spec import TrialSpec
from atmc_search.training import Selection

_IMAGES = 500
_STEPS = 10


class DenseSelection:
    """Keeps the weights of the epoch that are best on at most 500 validation images.

    Under PGD-10 in the trial's threat model, whatever attack trains; under none where training is clean.
    """

    def __init__(self, spec: TrialSpec, data: Splits, device: torch.device) -> None:
        some = ImageSet(data.validation.images[:_IMAGES], data.validation.labels[:_IMAGES])  # a split's order is random
        self._data = DeviceData(some, device)
        self._spec = spec
        self._attack = NoAttack() if spec.dense.attack.name == "none" else PGD(steps=_STEPS)
        self._selection = Selection()
        self._weights: dict[str, Tensor] = {}
        self.epoch = 0

    def take(self, model: nn.Module, epoch: int) -> float:
        """Measures the model after an epoch (from 1), keeps its weights if they are the best; its robust accuracy."""
        settings = self._spec.evaluate
        figures = measure(
            model, self._data, self._attack, self._spec.threat, batch_size=settings.batch_size, seed=settings.seed
        )
        if self._selection.take(figures.robust.value, figures.clean.value):
            self._weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            self.epoch = epoch
        return figures.robust.value

    def restore(self, model: nn.Module) -> None:
        """Gives the model the best epoch's weights."""
        model.load_state_dict(self._weights)
