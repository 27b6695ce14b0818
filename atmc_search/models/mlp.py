"""A multilayer perceptron on the flattened image; with no hidden layer, softmax regression."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from atmc_search.errors import SpecError, written
from atmc_search.models.arguments import positive_int


def mlp(*, input_shape: tuple[int, int, int], classes: int, hidden: Sequence[int] = (256, 128)) -> nn.Module:
    """Fully connected layers with ReLU between them.

    Args:
        input_shape: (channels, height, width).
        classes: outputs.
        hidden: units of each hidden layer, first to last.

    Raises:
        SpecError: `hidden` is no list of positive integers.
    """
    if not isinstance(hidden, list | tuple):
        raise SpecError(
            f"trial.model.hidden = {written(hidden)}: must be a list of positive integers; write e.g. [256, 128]"
        )
    layers: list[nn.Module] = [nn.Flatten()]
    units = math.prod(input_shape)
    for index, size in enumerate(hidden):
        layers += [nn.Linear(units, positive_int(size, f"hidden.{index}")), nn.ReLU()]
        units = size
    return nn.Sequential(*layers, nn.Linear(units, classes))
