"""How many non-zeros and how many bits a value a budget of bytes pays for: an estimate from entropies, before packing.

A tensor of N entries with n non-zeros on a codebook of 2^b values takes about N·H(n/N) bits for their positions and
n·h for their values, h being the entropy of the codes, and its codebook. For every b the k is sought whose
estimate meets the budget, and of these (k, b) that of least distortion wins (bits against sparsity: Choi et al.,
arXiv 1612.01543): what pruning loses, of the energy there was, and what codes lose, of the energy that is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from atmc_search.compress.base import Weights
from atmc_search.compress.kmeans import kmeans_with_zero, nearest
from atmc_search.compress.lamp import lamp_scores

Values = NDArray[np.float32]
Floats = NDArray[np.float64]
_PRUNED = 0.25
"""What a loss by pruning counts beside one by codes: training makes up for most of it, as the support is there long
before the codes. At 1, as in Σ(w − ŵ)², 2 bits win below a density of a tenth: less robust than 3 and fewer weights."""
_SAMPLE = 2_048
"""Values of a tensor from which entropy and error of a codebook are estimated."""


@dataclass(frozen=True)
class Estimate:
    """k non-zeros at b bits: the bytes that they take, and the distortion (`RateModel.distortion`)."""

    k: int
    bits: int
    bytes_: float
    distortion: float


@dataclass(frozen=True)
class RateModel:
    """What tensors take and lose where so many of their entries are kept at so many bits.

    Attributes:
        values: the non-zeros of each tensor.
        magnitudes: the same by falling magnitude.
        scores: likewise; the largest of all tensors together stay.
        ranked: the scores of all, falling.
        sizes: (tensors,) entries, zeros included.
        energies: of each tensor, the squares summed over the first 0, 1, ... of its magnitudes.
    """

    values: tuple[Values, ...]
    magnitudes: tuple[Values, ...]
    scores: tuple[Values, ...]
    ranked: Values
    sizes: NDArray[np.int64]
    energies: tuple[Floats, ...]

    @classmethod
    def of(cls, weights: Weights, lamp: Mapping[str, str] | None = None) -> RateModel:
        """The model of these weights, on any device.

        Args:
            weights: by name.
            lamp: by tensor, its layer, where the largest LAMP scores stay (`LampBudget.layers`); None: the largest
                magnitudes.
        """
        flat = [tensor.detach().reshape(-1).cpu().numpy() for tensor in weights.values()]
        values = tuple(entries[entries != 0] for entries in flat)
        magnitudes = tuple(np.sort(np.abs(entries))[::-1] for entries in values)
        scores = magnitudes if lamp is None else _lamp_scores(dict(zip(weights, magnitudes, strict=True)), lamp)
        energies = tuple(np.append(0.0, np.cumsum(m.astype(np.float64) ** 2)) for m in magnitudes)
        ranked = np.sort(np.concatenate(scores))[::-1]
        return cls(values, magnitudes, scores, ranked, np.array([len(entries) for entries in flat]), energies)

    @property
    def entries(self) -> int:
        """Non-zeros of all tensors."""
        return len(self.ranked)

    def counts(self, k: int) -> NDArray[np.int64]:
        """Non-zeros of each tensor where the k largest scores are kept; of those equal to the k-th, all."""
        if k <= 0:
            return np.zeros(len(self.sizes), dtype=np.int64)
        least = self.ranked[min(k, self.entries) - 1]
        return np.array([len(s) - np.searchsorted(s[::-1], least) for s in self.scores], dtype=np.int64)

    def at(self, budget: float, bits: int, *, scale: float = 1.0, seed: int = 0) -> Estimate:
        """The most non-zeros that `budget` bytes pay for at `bits`, in an estimate.

        Args:
            budget: of the tensors alone, without what a file has beside them.
            bits: of the codebooks of 2^bits values, 32 for floats.
            scale: real bytes per estimated byte.
            seed: of k-means.
        """
        # The codes' entropy hardly depends on k: that of a first guess at k says which k it is to be taken at.
        k = self._most(budget, bits, np.full(len(self.sizes), 0.9 * bits), scale)
        values, errors = self._codes(k, bits, seed)
        k = self._most(budget, bits, values, scale)
        return Estimate(k, bits, scale * self._bytes(k, bits, values), self.distortion(self.counts(k), errors))

    def bytes_at(self, k: int, bits: int, *, seed: int = 0) -> float:
        """Bytes that the k entries of the largest scores take at `bits`, in an estimate."""
        return self._bytes(k, bits, self._codes(k, bits, seed)[0])

    def distortion(self, counts: NDArray[np.int64], errors: Floats) -> float:
        """Energy lost of that before pruning, times `_PRUNED`, and squared error of the codes of the energy kept.

        Args:
            counts: (tensors,) non-zeros of each.
            errors: (tensors,) mean squared error of a value on its codebook.
        """
        whole = sum(float(energy[-1]) for energy in self.energies)
        kept = sum(float(energy[n]) for energy, n in zip(self.energies, counts, strict=True))
        return _PRUNED * (1 - kept / whole) + float((counts * errors).sum()) / max(kept, 1e-300)

    def _most(self, budget: float, bits: int, values: Floats, scale: float) -> int:
        low, high = 1, self.entries
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
            kept = self.values[i][np.abs(self.values[i]) >= self.magnitudes[i][n - 1]]
            kept = kept[:: max(1, len(kept) // _SAMPLE)]
            coded = nearest(kept, kmeans_with_zero(kept, 2**bits, seed=seed, zero=False), zero=False)
            _, found = np.unique(coded, return_counts=True)
            shares = found / found.sum()
            entropies[i] = -(shares * np.log2(shares)).sum()
            errors[i] = float(((coded.astype(np.float64) - kept) ** 2).mean())
        return entropies, errors


@torch.no_grad()
def least_distortion(
    model: RateModel, budget: float, widths: Iterable[int], *, scale: float = 1.0, seed: int = 0
) -> Estimate:
    """Of the `widths` in bits that which distorts the weights least at `budget` bytes; of equals, the fewest bits.

    Args:
        model: of weights that are dense, or as dense as a schedule still holds them; at least one is not zero.
        budget: of the tensors alone, in bytes.
        widths: to choose from, rising. The first that distorts more than the one before ends the search: with a bit
            more the error of codes falls to about a quarter, ever less in absolute terms, while what it costs stays.
        scale: real bytes per estimated byte.
        seed: of k-means.
    """
    best: Estimate | None = None
    for bits in widths:
        found = model.at(budget, bits, scale=scale, seed=seed)
        if best is not None and found.distortion >= best.distortion:
            break
        best = found
    assert best is not None
    return best


def _lamp_scores(magnitudes: Mapping[str, Values], layers: Mapping[str, str]) -> tuple[Values, ...]:
    """Of each tensor's magnitudes, falling, the score among those of its layer."""
    groups: dict[str, list[str]] = {}
    for name in magnitudes:
        groups.setdefault(layers.get(name, name), []).append(name)
    found: dict[str, Values] = {}
    for group in groups.values():
        together = np.sort(np.concatenate([magnitudes[name] for name in group]))[::-1]
        scores = lamp_scores(torch.from_numpy(together.copy())).numpy()
        if len(group) == 1:
            found[group[0]] = scores
            continue
        for name in group:  # of equal magnitudes the last one's
            places = np.searchsorted(-together, -magnitudes[name], side="right") - 1
            found[name] = scores[places]
    return tuple(found[name] for name in magnitudes)
