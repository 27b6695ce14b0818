"""Codebook quantisation: at most 2^b distinct non-zero values per tensor, zero being free.

Gui et al., arXiv 1902.03538, eq. 6.

The projection is 1-D k-means with one centre fixed at zero (`kmeans`); or, with a price of codes, what weighs the
distortion against the bits that they cost (`entropy`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atmc_search.compress.base import Constraint, Weights
from atmc_search.compress.entropy import priced_cells
from atmc_search.compress.kmeans import kmeans_with_zero, nearest


@dataclass(frozen=True)
class Codebook(Constraint[Mapping[str, Tensor]]):
    """At most `2**bits` distinct non-zero values in each tensor. State: the centres of each tensor, sorted.

    `bits` is one number for all tensors, or each tensor's own by name. `price`: of the bits of codes, as of
    `entropy.priced_cells`; 0: the nearest centre, whatever its code costs.

    The violation is the number of distinct non-zero values too many, summed over tensors. For tensors of more than
    256 distinct values `project` is a local optimum of k-means, not always the nearest point of the set; a second
    projection changes nothing all the same, because values that number at most 2^b are their own centres. With a price
    it is no projection but a proximal step, and a second one may merge more.
    """

    bits: int | Mapping[str, int]
    seed: int = 0
    price: float = 0.0

    def bits_of(self, name: str) -> int:
        """The bits of tensor `name`."""
        return self.bits if isinstance(self.bits, int) else self.bits[name]

    def init(self, weights: Weights) -> Mapping[str, Tensor]:
        return {}

    def project(self, weights: Weights, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Mapping[str, Tensor]]:
        """Each entry moved to its tensor's nearest centre; the centres found before are one of the starts."""
        projected, centres = {}, {}
        for name, tensor in weights.items():
            flat = tensor.detach().reshape(-1)
            support = flat != 0
            values = flat[support].cpu().numpy()  # the rest stays zero: on a GPU only these cross to the CPU, and back
            warm = state[name].cpu().numpy() if name in state else None
            clusters = 2 ** self.bits_of(name)
            if self.price:
                zeros = flat.numel() - len(values)
                cells = priced_cells(values, clusters, price=self.price, zeros=zeros, warm=warm)
                found, coded = np.unique(cells.centres[cells.centres != 0]), cells.of(values)
            else:
                found = kmeans_with_zero(values, clusters, seed=self.seed, warm=warm)
                coded = nearest(values, found)
            moved = torch.zeros_like(flat)
            moved[support] = torch.from_numpy(coded).to(tensor.device)
            projected[name] = moved.view_as(tensor)
            centres[name] = torch.from_numpy(found)
        return projected, centres

    def violation(self, weights: Weights) -> float:
        excess = 0
        for name, tensor in weights.items():
            distinct = torch.unique(tensor[tensor != 0]).numel()
            excess += max(0, distinct - 2 ** self.bits_of(name))
        return float(excess)


def requantised(
    values: NDArray[np.float32],
    bits: int,
    *,
    seed: int = 0,
    warm: NDArray[np.float32] | None = None,
    floats: Literal["fp16", "fp32"] = "fp32",
    price: float = 0.0,
) -> NDArray[np.float32]:
    """`values` on at most 2^bits values, the support as it was: the last projection, and what is deployed.

    Args:
        values: any shape; exact zeros stay zero, all others stay non-zero.
        bits: of the codebook.
        seed: of the k-means++ starts.
        warm: centres to start from.
        floats: precision of the centres, to which they are rounded before values move to them.
        price: of the bits of codes, as of `entropy.priced_cells`; 0: every value moves to the nearest centre.
    """
    flat = values.reshape(-1)
    support = flat != 0
    out = flat.copy()
    if support.any() and price:
        cells = priced_cells(flat[support], 2**bits, price=price, zeros=None, warm=warm)
        if floats == "fp16":
            halves = half_precision(torch.from_numpy(cells.centres)).numpy()
            cells = cells if (halves == 0).any() else cells._replace(centres=halves)
        out[support] = cells.of(flat[support])
    elif support.any():
        found = kmeans_with_zero(flat[support], 2**bits, seed=seed, warm=warm, zero=False)
        if floats == "fp16":
            halves = np.unique(half_precision(torch.from_numpy(found)).numpy())
            found = found if (halves == 0).any() else halves  # a centre that fp16 takes for zero would prune
        out[support] = nearest(flat[support], found, zero=False)
    return out.reshape(values.shape)


def half_precision(tensor: Tensor) -> Tensor:
    """`tensor` rounded to fp16's grid (as float32), or unchanged if that moves a value by over 0.1 % or 1e-7."""
    rounded = tensor.half().float()
    near = torch.isclose(rounded, tensor, rtol=1e-3, atol=1e-7)
    return rounded if bool(near.all()) else tensor
