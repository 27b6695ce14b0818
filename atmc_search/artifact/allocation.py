"""Mixed precision: how many bits each tensor gets when all share one budget of bytes.

A tensor's options are its codebooks of 2^1 to 2^8 values: what each costs is the bits it is coded in, positions and
codebook included, and what it distorts is the squared error of the projection. Which options to take is a
multiple-choice knapsack (`compress.knapsack`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atmc_search.artifact.body import kernel_of
from atmc_search.artifact.coding import (
    Kind,
    Margins,
    Plan,
    best_geometry,
    margins,
    mask_bits,
    value_bits,
    with_values,
)
from atmc_search.compress import FactorisedLayer, Weights, requantised
from atmc_search.compress.knapsack import Option, allocate

_BITS = range(1, 9)
_PLAN_BITS = 64
"""About the most that a tensor's plan and number of non-zeros take."""


class _Located(NamedTuple):
    """A tensor as a matrix, how its positions are coded, and the bytes that they and the plan take."""

    matrix: NDArray[np.float32]
    geometry: Plan
    bytes_: float


def mixed_bits(
    weights: Weights,
    layers: Sequence[FactorisedLayer],
    *,
    uniform: int | None = None,
    budget_bytes: int | None = None,
    floats: Literal["fp16", "fp32"],
    seed: int,
    centres: Mapping[str, Tensor] | None = None,
    price: float = 0.0,
) -> dict[str, int] | None:
    """Bits per tensor, 1 to 8, that distort least for the bytes there are.

    Args:
        weights: pruned already; zeros stay zero.
        layers: that they belong to.
        uniform: the budget is what all tensors cost at this many bits, and these bits are kept where no others distort
            less; give this or budget_bytes.
        budget_bytes: the most that all encoded tensors may add up to.
        floats: precision of codebooks.
        seed: of the k-means++ starts.
        centres: to start from, by name, as the last projection will: costs and errors are then those that it will have.
        price: of the bits of codes, likewise.

    Returns:
        the bits by name; None if not even the cheapest codebooks fit the budget.
    """
    starts = {name: tensor.numpy() for name, tensor in (centres or {}).items()}
    options = [
        _options(located, floats, seed, starts.get(name), price) for name, located in _located(weights, layers).items()
    ]
    budget: float | None = budget_bytes
    if budget is None:
        assert uniform is not None
        budget = sum(choices[uniform - 1][0] for choices in options)
    chosen = allocate(options, budget)
    if chosen is None:
        return None
    if uniform is not None and _distortion(options, [uniform - 1] * len(options)) < _distortion(options, chosen):
        return dict.fromkeys(weights, uniform)
    return {name: _BITS[option] for name, option in zip(weights, chosen, strict=True)}


def encoded_bytes(weights: Weights, layers: Sequence[FactorisedLayer]) -> float:
    """What the tensors take in a file, all together: bits by the coder's probabilities, over 8."""
    return sum(located.bytes_ + _value_bytes(located.matrix, located) for located in _located(weights, layers).values())


def _located(weights: Weights, layers: Sequence[FactorisedLayer]) -> dict[str, _Located]:
    """Every tensor by name, in the order of the file."""
    found: dict[str, _Located] = {}
    earlier = list[Margins]()
    for layer in layers:
        for name, shape in layer.factor_shapes.items():
            matrix = np.ascontiguousarray(weights[name].detach().cpu().reshape(shape).numpy())
            mask = matrix != 0
            nnz = int(np.count_nonzero(mask))
            geometry, bits = Plan(Kind.EMPTY), 0.0
            if nnz:
                geometry = best_geometry(mask, nnz, kernel_of(layer, shape), earlier)
                bits = _PLAN_BITS + mask_bits(mask, nnz, geometry, earlier)
            found[name] = _Located(matrix, geometry, bits / 8)
            earlier.append(margins(mask))
    return found


def _value_bytes(matrix: NDArray[np.float32], located: _Located) -> float:
    """What a matrix's values take, if its zeros are where they are in the one located."""
    if located.geometry.kind is Kind.EMPTY:
        return 0.0
    return value_bits(matrix, with_values(located.geometry, matrix)) / 8


def _distortion(options: Sequence[Sequence[Option]], chosen: Sequence[int]) -> float:
    return sum(choices[j][1] for choices, j in zip(options, chosen, strict=True))


def _options(
    located: _Located, floats: Literal["fp16", "fp32"], seed: int, warm: NDArray[np.float32] | None, price: float
) -> list[Option]:
    """(bytes, squared error) at every number of bits."""
    values, options = located.matrix, list[Option]()
    distinct = len(np.unique(values[values != 0]))
    for bits in _BITS:
        if options and distinct <= 2 ** (bits - 1):  # nothing is left to gain
            options.append(options[-1])
            continue
        quantised = requantised(values, bits, seed=seed, warm=warm, floats=floats, price=price)
        error = float(((quantised.astype(np.float64) - values) ** 2).sum())
        options.append((located.bytes_ + _value_bytes(quantised, located), error))
    return options
