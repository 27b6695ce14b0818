"""What a model's bytes are spent on: non-zeros, the paper's own size, and the zero-order entropy bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from atmc_search.artifact.model import CompressedModel

_FLOAT_BITS = 32
_MOST_CODED = 256


@dataclass(frozen=True)
class SizeAccount:
    """Sizes of a compressed model beside the length of its file.

    Attributes:
        nnz: non-zeros in all factors together.
        dense_weights: weights of the uncompressed layers, the 100 % of `density`.
        bits_per_tensor: b of each factor's codebook of 2^b values; 32 without codebook, 0 where all is zero.
        paper_bits: Σ nnz · bits, the size that the ATMC paper counts: values alone, no positions, no codebooks.
        entropy_bits: Σ N · H over the symbols (zero included) of each factor, the least that a code without context
            could spend on positions and values; plus 32 bits a value where there is no codebook. Codebooks, biases
            and norm parameters are not in it.
    """

    nnz: int
    dense_weights: int
    bits_per_tensor: Mapping[str, int]
    paper_bits: int
    entropy_bits: float

    @property
    def density(self) -> float:
        """Non-zeros as a share of the dense weights."""
        return self.nnz / self.dense_weights


def account(model: CompressedModel, bits: int | Mapping[str, int]) -> SizeAccount:
    """Counts a model's non-zeros and the sizes that follow from them.

    Args:
        model: what is deployed.
        bits: b of the codebooks of 2^b values that it was projected on, of all tensors or by name; 32 where it was
            on none. A tensor without a name there (a product of factors) has as many as its values need.
    """
    nnz, paper, entropy = 0, 0, 0.0
    bits_per_tensor: dict[str, int] = {}
    for name, tensor in model.weights.items():
        count = int(tensor.count_nonzero())
        width = bits if isinstance(bits, int) else bits.get(name, least_bits(tensor))
        bits_per_tensor[name] = width if count else 0
        nnz += count
        paper += count * width
        entropy += entropy_bits(tensor, width)
    dense = sum(layer.rows * layer.columns for layer in model.layers)
    return SizeAccount(nnz, dense, bits_per_tensor, paper, entropy)


def least_bits(tensor: Tensor) -> int:
    """The least b whose 2^b values cover a tensor's distinct non-zeros, at least 1; 32 where they are over 256."""
    distinct = len(torch.unique(tensor[tensor != 0]))
    return max(1, (distinct - 1).bit_length()) if distinct <= _MOST_CODED else _FLOAT_BITS


def entropy_bits(tensor: Tensor, bits: int) -> float:
    """N · H of one tensor's symbols, zero included; at 32 bits, of its positions, and 32 bits a non-zero."""
    flat = tensor.numpy().reshape(-1)
    _, counts = np.unique(flat[flat != 0], return_counts=True)
    count = int(counts.sum())
    if bits < 32:
        return _entropy_bits(np.append(counts, flat.size - count))
    return _entropy_bits(np.array([count, flat.size - count])) + 32 * count


def _entropy_bits(counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum())
