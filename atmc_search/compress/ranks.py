"""Ranks of low-rank layers, chosen over all layers at once from the singular values of the dense weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, linalg

from atmc_search.compress.factors import FactorisedLayer
from atmc_search.compress.knapsack import allocate

Spectra: TypeAlias = Mapping[str, NDArray[np.float64]]
"""Singular values of every layer's matrix, largest first, by the weight's name."""


def spectra(layers: Sequence[FactorisedLayer], weights: Mapping[str, Tensor]) -> Spectra:
    """The singular values of each layer's (rows, columns) matrix; `weights`: the plain model's tensors by name."""
    return {
        layer.weight: linalg.svdvals(layer.to_matrix(weights[layer.weight].detach()).double()).cpu().numpy()
        for layer in layers
    }


def ranks_by_energy(values: Spectra, share: float) -> dict[str, int]:
    """The fewest singular values that hold `share` of the energy Σ σ² of all layers together, at least one a layer.

    One threshold for all layers: a layer whose matrix is nearly of low rank gives up more.
    """
    squares = np.sort(np.concatenate([v**2 for v in values.values()]))[::-1]
    kept = min(len(squares), 1 + int(np.searchsorted(np.cumsum(squares), share * squares.sum() * (1 - 1e-12))))
    threshold = squares[kept - 1]
    return {name: max(1, int((v**2 >= threshold).sum())) for name, v in values.items()}


def ranks_by_budget(
    layers: Sequence[FactorisedLayer], values: Spectra, *, budget: float, value_cost: float, layer_cost: float = 0.0
) -> dict[str, int] | None:
    """The ranks that lose the least energy Σ σ² for a budget; a layer for which factors do not pay is left whole.

    Args:
        layers: the layers to factorise.
        values: their singular values.
        budget: in the unit of the costs: entries of the factors, or bytes.
        value_cost: of one entry.
        layer_cost: of each stored matrix beside its entries.

    Returns:
        the rank of each layer by its weight's name, 0 for one that is stored whole; None when rank 1 everywhere is
        over the budget.
    """
    items = []
    for layer in layers:
        tail = np.cumsum((values[layer.weight] ** 2)[::-1])[::-1]  # tail[r]: what is lost at rank r
        whole = layer.rows * layer.columns
        options = [(whole * value_cost + layer_cost, 0.0)]  # as it is: index 0, and so "rank" 0
        for rank in range(1, len(tail)):
            entries = rank * (layer.rows + layer.columns)
            options.append((entries * value_cost + 2 * layer_cost, float(tail[rank])))
        items.append(options)
    chosen = allocate(items, budget)
    if chosen is None:
        return None
    return {layer.weight: option for layer, option in zip(layers, chosen, strict=True)}
