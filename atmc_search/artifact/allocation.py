"""Mixed precision: how many bits each tensor gets when all share one budget of bytes.

A tensor's options are its codebooks of 2^1 to 2^8 values: what each costs is the length it is encoded to, positions
and codebook included, and what it distorts is the squared error of the projection. Which options to take is a
multiple-choice knapsack (`compress.knapsack`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atmc_search.artifact import coding
from atmc_search.compress import Weights, requantised
from atmc_search.compress.knapsack import Option, allocate

_BITS = range(1, 9)


def mixed_bits(
    weights: Weights,
    *,
    uniform: int | None = None,
    budget_bytes: int | None = None,
    floats: Literal["fp16", "fp32"],
    seed: int,
    centres: Mapping[str, Tensor] | None = None,
) -> dict[str, int] | None:
    """Bits per tensor, 1 to 8, that distort least for the bytes there are.

    Args:
        weights: pruned already; zeros stay zero.
        uniform: the budget is what all tensors cost at this many bits, and these bits are kept where no others distort
            less; give this or budget_bytes.
        budget_bytes: the most that all encoded tensors may add up to.
        floats: precision of codebooks.
        seed: of the k-means++ starts.
        centres: to start from, by name, as the last projection will: costs and errors are then those that it will have.

    Returns:
        the bits by name; None if not even the cheapest codebooks fit the budget.
    """
    warm = {name: tensor.numpy() for name, tensor in (centres or {}).items()}
    options = [
        _options(tensor.detach().cpu().contiguous().numpy(), floats, seed, warm.get(name))
        for name, tensor in weights.items()
    ]
    if budget_bytes is None:
        assert uniform is not None
        budget_bytes = sum(int(choices[uniform - 1][0]) for choices in options)
    chosen = allocate(options, budget_bytes)
    if chosen is None:
        return None
    if uniform is not None and _distortion(options, [uniform - 1] * len(options)) < _distortion(options, chosen):
        return dict.fromkeys(weights, uniform)
    return {name: _BITS[option] for name, option in zip(weights, chosen, strict=True)}


def encoded_bytes(weights: Mapping[str, NDArray[np.float32]]) -> int:
    """What the tensors take in a file, by name, all together."""
    return sum(len(coding.encode(tensor.reshape(-1))) for tensor in weights.values())


def _distortion(options: Sequence[Sequence[Option]], chosen: Sequence[int]) -> float:
    return sum(choices[j][1] for choices, j in zip(options, chosen, strict=True))


def _options(
    values: NDArray[np.float32], floats: Literal["fp16", "fp32"], seed: int, warm: NDArray[np.float32] | None
) -> list[Option]:
    """(bytes, squared error) at every number of bits."""
    options: list[Option] = []
    distinct = len(np.unique(values[values != 0]))
    places = coding.encode_places(values.reshape(-1))
    for bits in _BITS:
        if options and distinct <= 2 ** (bits - 1):  # nothing is left to gain
            options.append(options[-1])
            continue
        quantised = requantised(values, bits, seed=seed, warm=warm, floats=floats)
        error = float(((quantised.astype(np.float64) - values) ** 2).sum())
        options.append((float(len(coding.encode(quantised.reshape(-1), places))), error))
    return options
