"""The last projection: what is deployed of the weights that training ends with.

θ, already within the ℓ0 budget, keeps its support; on it, every tensor's values move to the nearest of at most 2^b
centres (METHOD 1: the quantised copy masked by θ's support, re-quantised on the non-zeros; the original's quantised
copy was not bound by k). Codebooks, biases and norm parameters are rounded to fp16 when asked, *before* anything is
measured, so that the file holds exactly the model whose figures are reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from atmc_search.compress import Codebook, Weights, kmeans_with_zero
from atmc_search.compress.codebook import nearest


@torch.no_grad()
def deployable(
    weights: Weights,
    others: Mapping[str, Tensor],
    codebook: Codebook | None,
    centres: Mapping[str, Tensor],
    floats: Literal["fp16", "fp32"],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The constrained weights on their codebooks, and the other tensors, both rounded as asked.

    Args:
        weights: within the ℓ0 budget.
        others: every other tensor of the state.
        codebook: how many values a tensor may have; None leaves the values as they are.
        centres: ADMM's, by weight name, to start from; empty where ADMM has not set in.
        floats: precision of codebooks and other tensors. A tensor that fp16 would distort keeps fp32.
    """
    rounding = half_precision if floats == "fp16" else (lambda tensor: tensor)
    # Contiguous: of other strides (singular vectors have them) `reshape` below would be a copy, and be lost.
    quantised = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()
    }
    if codebook is not None:
        for name, tensor in quantised.items():
            values = tensor.numpy().reshape(-1)
            support = values != 0
            if not support.any():
                continue
            warm = centres[name].numpy() if name in centres else None
            found = kmeans_with_zero(values[support], 2**codebook.bits, seed=codebook.seed, warm=warm, zero=False)
            found = np.unique(rounding(torch.from_numpy(found)).numpy())
            values[support] = nearest(values[support], found, zero=False)
    return quantised, {name: rounding(t) if t.is_floating_point() else t for name, t in others.items()}


def half_precision(tensor: Tensor) -> Tensor:
    """`tensor` rounded to fp16's grid (as float32), or unchanged if that moves a value by over 0.1 % or 1e-7."""
    rounded = tensor.half().float()
    near = torch.isclose(rounded, tensor, rtol=1e-3, atol=1e-7)
    return rounded if bool(near.all()) else tensor
