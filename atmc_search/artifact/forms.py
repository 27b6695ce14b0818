"""Factors or their product: a factorised layer is stored as whichever takes fewer bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from atmc_search.artifact.body import code_layer
from atmc_search.artifact.coding import Margins, Meter, margins
from atmc_search.artifact.model import CompressedModel
from atmc_search.compress import FactorisedLayer, effective_weight


@torch.no_grad()
def smallest_forms(compressed: CompressedModel) -> CompressedModel:
    """The same weights to the bit, each layer in its factors or as their product W in the dense form.

    The product is taken where it has no more non-zeros, so that the ℓ0 budget holds, and fewer bytes: where U died out,
    say. It then decodes to the same bits on any machine, which a multiplication on the reader's need not.
    """
    earlier = list[Margins]()
    layers, weights = list[FactorisedLayer](), dict[str, Tensor]()
    for layer in compressed.layers:
        factors = {name: compressed.weights[name] for name in layer.factor_shapes}
        candidates = [(layer, factors)]
        dense = FactorisedLayer(layer.module, layer.shape, "dense", layer.transposed)
        if layer.form != "dense":
            (name, shape), *_ = dense.factor_shapes.items()
            product = effective_weight(layer, compressed.weights).reshape(shape).contiguous() + 0.0
            if int(product.count_nonzero()) <= sum(int(tensor.count_nonzero()) for tensor in factors.values()):
                candidates.append((dense, {name: product}))
        best = (
            candidates[0]
            if len(candidates) == 1
            else min(candidates, key=lambda candidate: _bits(*candidate, earlier=earlier))
        )
        layers.append(best[0])
        weights |= best[1]
        earlier += [margins(tensor.numpy()) for tensor in best[1].values()]
    return dataclasses.replace(compressed, layers=tuple(layers), weights=weights)


def _bits(layer: FactorisedLayer, weights: Mapping[str, Tensor], *, earlier: Sequence[Margins]) -> float:
    meter = Meter()
    code_layer(meter, layer, weights, list(earlier))
    return meter.total
