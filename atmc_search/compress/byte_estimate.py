"""How many non-zeros and how many bits a value a budget of bytes pays for: an estimate from entropies, before packing.

A tensor of N entries with n non-zeros on a codebook of 2^b values takes about N·H(n/N) bits for their positions and
n·h for their values, h being the entropy of the codes (METHOD 2), and its codebook. For every b the k is sought whose
estimate meets the budget, and of these (k, b) that of least distortion Σ(w − ŵ)² wins: the energy of what is pruned,
and the squared error of what is quantised (bits against sparsity: Choi et al., arXiv 1612.01543).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from atmc_search.compress.base import Weights
from atmc_search.compress.kmeans import kmeans_with_zero, nearest

Floats = NDArray[np.float64]
_ROUNDS = 2
_SAMPLE = 4_096
"""Values of a tensor from which entropy and error of a codebook are estimated."""


@dataclass(frozen=True)
class Estimate:
    """k non-zeros at b bits: the bytes that they take, and Σ(w − ŵ)²."""

    k: int
    bits: int
    bytes_: float
    distortion: float


@dataclass(frozen=True)
class RateModel:
    """All entries of some weights by falling magnitude, and the tensor that each is of.

    Attributes:
        tensors: the values of each, by falling magnitude, non-zeros only.
        sizes: entries of each, zeros included.
        owners: (n,) index of the tensor of each non-zero of all tensors together, by falling magnitude.
        energies: (n + 1,) squares summed over what is pruned where that many of them are kept.
    """

    tensors: tuple[NDArray[np.float32], ...]
    sizes: NDArray[np.int64]
    owners: NDArray[np.int32]
    energies: Floats

    @classmethod
    def of(cls, weights: Weights) -> RateModel:
        """The model of these weights, on any device."""
        flat = [tensor.detach().reshape(-1).cpu().numpy() for tensor in weights.values()]
        sizes = np.array([len(values) for values in flat], dtype=np.int64)
        tensors = tuple(values[values != 0] for values in flat)
        tensors = tuple(values[np.argsort(-np.abs(values), kind="stable")] for values in tensors)
        magnitudes = np.abs(np.concatenate(tensors))
        order = np.argsort(-magnitudes, kind="stable")
        owners = np.repeat(np.arange(len(tensors), dtype=np.int32), [len(values) for values in tensors])[order]
        squares = magnitudes[order].astype(np.float64) ** 2
        return cls(tensors, sizes, owners, np.append(np.cumsum(squares[::-1])[::-1], 0.0))

    def counts(self, k: int) -> NDArray[np.int64]:
        """Non-zeros of each tensor where the k largest of all are kept."""
        return np.bincount(self.owners[:k], minlength=len(self.sizes)).astype(np.int64)

    def at(self, budget: float, bits: int, *, scale: float = 1.0, seed: int = 0) -> Estimate:
        """The most non-zeros that `budget` bytes pay for at `bits`, in an estimate.

        Args:
            budget: of the tensors alone, without what a file has beside them.
            bits: of the codebooks of 2^bits values, 32 for floats.
            scale: real bytes per estimated byte.
            seed: of k-means.
        """
        k = min(len(self.owners), max(1, round(8 * budget / (bits + 4))))
        for _ in range(_ROUNDS):  # the codes' entropy hardly depends on k, so that it is taken at the k before
            values, errors = self._codes(k, bits, seed)
            k = self._most(budget, bits, values, scale)
        distortion = float(self.energies[k] + (self.counts(k) * errors).sum())
        return Estimate(k, bits, scale * self._bytes(k, bits, values), distortion)

    def _most(self, budget: float, bits: int, values: Floats, scale: float) -> int:
        low, high = 1, len(self.owners)
        while low < high:
            middle = (low + high + 1) // 2
            if scale * self._bytes(middle, bits, values) <= budget:
                low = middle
            else:
                high = middle - 1
        return low

    def _bytes(self, k: int, bits: int, values: Floats) -> float:
        n = self.counts(k)
        p = n / self.sizes
        with np.errstate(divide="ignore", invalid="ignore"):
            positions = -self.sizes * np.nan_to_num(p * np.log2(p) + (1 - p) * np.log2(1 - p))
        centres = 16 * np.minimum(2.0**bits, n) if bits < 32 else 0.0
        return float((positions + n * values + centres).sum()) / 8

    def _codes(self, k: int, bits: int, seed: int) -> tuple[Floats, Floats]:
        """Entropy in bits and squared error of a value, for each tensor with its share of the k largest."""
        if bits == 32:
            return np.full(len(self.sizes), 32.0), np.zeros(len(self.sizes))
        entropies, errors = np.zeros(len(self.sizes)), np.zeros(len(self.sizes))
        for i, n in enumerate(self.counts(k)):
            if not n:
                continue
            kept = self.tensors[i][:n][:: max(1, n // _SAMPLE)]
            coded = nearest(kept, kmeans_with_zero(kept, 2**bits, seed=seed, zero=False), zero=False)
            _, found = np.unique(coded, return_counts=True)
            shares = found / found.sum()
            entropies[i] = -(shares * np.log2(shares)).sum()
            errors[i] = float(((coded.astype(np.float64) - kept) ** 2).mean())
        return entropies, errors


@torch.no_grad()
def least_distortion(
    weights: Weights, budget: float, widths: Iterable[int], *, scale: float = 1.0, seed: int = 0
) -> Estimate:
    """Of the `widths` in bits that which distorts the weights least at `budget` bytes; of equals, the fewest bits.

    Args:
        weights: dense, or as dense as a schedule still holds them; at least one is not zero.
        budget: of the tensors alone, in bytes.
        widths: to choose from.
        scale: real bytes per estimated byte.
        seed: of k-means.
    """
    model = RateModel.of(weights)
    return min((model.at(budget, bits, scale=scale, seed=seed) for bits in widths), key=lambda found: found.distortion)
