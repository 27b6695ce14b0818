"""An exponential moving average of all that a model's state holds (Polyak & Juditsky 1992; for adversarial training
Gowal et al., arXiv 2010.03593, section 4.3). Training never sees it; what is deployed is the average, projected again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from atmc_search.training.parts.base import Moment, Part
from atmc_search.training.state import State


class Average(Part):
    """The average of a model's parameters and running statistics over its steps.

    a ← d a + (1 − d) θ after every step, d = min(decay, (1 + t) / (10 + t)) at step t = 0, 1, …: without that warmup
    the first weights would stay in it for 1 / (1 − decay) steps. Where a model is factorised, its factors are averaged,
    and so its average lies outside the pruning budget and the codebooks. Counters are the model's own.

    Attributes:
        tensors: the average, by name in the model's state.
        steps: how many steps it has taken in.
    """

    name: ClassVar[str] = "average"
    tensors: Mapping[str, Tensor]
    steps: int

    @torch.no_grad()
    def __init__(self, model: nn.Module, decay: float) -> None:
        """Of this model, whose tensors must always be written in place, as optimizers do."""
        self._live = _floats(model)
        self._decay = decay
        self.begin()

    @torch.no_grad()
    def begin(self) -> None:
        """It starts at the model's present state."""
        self.tensors = {name: tensor.clone() for name, tensor in self._live.items()}
        self.steps = 0

    @torch.no_grad()
    def after_step(self, at: Moment) -> None:
        """Takes in the model's state. It stands after the parts that move weights in this hook."""
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        for name, tensor in self.tensors.items():
            tensor.lerp_(self._live[name], 1 - decay)
        self.steps += 1

    @contextmanager
    def final(self) -> Iterator[None]:
        """Inside, the model holds the average."""
        trained = {name: tensor.clone() for name, tensor in self._live.items()}
        _write(self._live, self.tensors)
        try:
            yield
        finally:
            _write(self._live, trained)

    def state(self) -> State:
        return dict(self.tensors), {"steps": self.steps}

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
        self.steps = facts["steps"]


def _floats(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


@torch.no_grad()
def _write(live: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in live.items():
        tensor.copy_(values[name])
