"""What is known of a model before it is trained: its layers, its size dense, and the least that it can be packed to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from torch import nn

from atmc_search.artifact import Architecture, CompressedModel, pack
from atmc_search.compress import FactorisedLayer, layers_to_compress


@dataclass(frozen=True)
class Outline:
    """Facts of an architecture.

    Attributes:
        layers: those to compress, in order.
        dense_bytes: the state at 4 bytes a value.
        least_bytes: the artifact with every weight zero.
    """

    layers: tuple[FactorisedLayer, ...]
    dense_bytes: int
    least_bytes: int

    @property
    def weights(self) -> int:
        """Of the layers to compress."""
        return dense_weights(self.layers)


def outline(architecture: Architecture) -> Outline:
    """The architecture's outline; built once, as every corner of a search space asks for it."""
    return _outline(architecture.name, json.dumps(architecture.args), architecture.input_shape, architecture.classes)


def dense_weights(layers: Sequence[FactorisedLayer]) -> int:
    """How many weights the plain layers have."""
    return sum(layer.rows * layer.columns for layer in layers)


def dense_bytes(model: nn.Module) -> int:
    """The model's state at 4 bytes a value."""
    return 4 * sum(int(t.numel()) for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked"))


@lru_cache(maxsize=16)
def _outline(name: str, args: str, input_shape: tuple[int, int, int], classes: int) -> Outline:
    architecture = Architecture(name, json.loads(args), input_shape, classes)
    model = architecture.build()
    layers = layers_to_compress(model)
    for tensor in model.state_dict().values():
        tensor.zero_()
    return Outline(tuple(layers), dense_bytes(model), len(pack(CompressedModel.of(model, layers, architecture))))
