"""What is known of a model before it is trained: its layers, its dense size, and its least packed size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from torch import nn

from atmc_search.artifact import Architecture, CompressedModel, pack
from atmc_search.compress import FactorisedLayer, layers_to_compress


@dataclass(frozen=True)
class ModelFacts:
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


def model_facts(architecture: Architecture) -> ModelFacts:
    """Facts of the architecture; found once, as every extreme of a search space asks for them."""
    return _model_facts(
        architecture.name, json.dumps(architecture.args), architecture.input_shape, architecture.classes
    )


def dense_weights(layers: Sequence[FactorisedLayer]) -> int:
    """How many weights the plain layers have."""
    return sum(layer.rows * layer.columns for layer in layers)


def dense_bytes(model: nn.Module) -> int:
    """The model's state at 4 bytes a value."""
    return 4 * sum(int(t.numel()) for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked"))


@lru_cache(maxsize=16)
def _model_facts(name: str, args: str, input_shape: tuple[int, int, int], classes: int) -> ModelFacts:
    architecture = Architecture(name, json.loads(args), input_shape, classes)
    model = architecture.build()
    layers = layers_to_compress(model)
    for tensor in model.state_dict().values():
        tensor.zero_()
    return ModelFacts(tuple(layers), dense_bytes(model), len(pack(CompressedModel.of(model, layers, architecture))))
