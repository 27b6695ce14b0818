"""The ℓ0 budget by layer-adaptive magnitudes: layers of any scale are comparable, and none of them dies.

LAMP (Lee et al., arXiv 2010.07611): of a layer's weights by falling magnitude, the r-th has the score
w_r² / Σ_{i ≤ r} w_i², what the layer's output loses at most, relative to what is left, where it goes. The largest of a
layer has the score 1, so that a budget of as many non-zeros as there are layers leaves each of them one. By plain
magnitudes a depthwise convolution, whose weights are a tenth of its neighbours' at the start, dies first, and the
network with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from atmc_search.compress.base import Constraint, Weights
from atmc_search.compress.l0 import GlobalL0, largest


@dataclass(frozen=True)
class LampBudget(Constraint[None]):
    """At most `k` non-zeros, those of the largest LAMP scores. The violation is the number of non-zeros too many.

    Attributes:
        k: the most non-zeros.
        layers: by tensor, the name of its layer: a layer's factors compete by magnitude. A tensor without an entry is
            a layer of its own.
    """

    k: int
    layers: Mapping[str, str] = field(default_factory=dict)

    def init(self, weights: Weights) -> None:
        return None

    def project(self, weights: Weights, state: None) -> tuple[dict[str, Tensor], None]:
        """The k largest scores stay; within a layer these are its largest magnitudes, of equal ones the first."""
        groups: dict[str, list[str]] = {}
        for name in weights:
            groups.setdefault(self.layers.get(name, name), []).append(name)
        magnitudes = [torch.cat([weights[name].detach().reshape(-1) for name in group]) for group in groups.values()]
        # NaN counts as largest, as in GlobalL0: zeroed, it would hide that the training diverged.
        magnitudes = [values.abs().nan_to_num_(nan=torch.inf, posinf=torch.inf) for values in magnitudes]
        kept: dict[str, Tensor] = {}
        for group, values, count in zip(groups.values(), magnitudes, _counts(magnitudes, self.k), strict=True):
            masks = torch.split(largest(values, count), [weights[name].numel() for name in group])
            for name, mask in zip(group, masks, strict=True):
                weight = weights[name]
                kept[name] = torch.where(mask.view(weight.shape), weight, weight.new_zeros(()))
        return {name: kept[name] for name in weights}, None

    def violation(self, weights: Weights) -> float:
        return GlobalL0(self.k).violation(weights)


def lamp_scores(magnitudes: Tensor) -> Tensor:
    """Scores of the largest of a layer.

    Args:
        magnitudes: (n,) ≥ 0, in falling order, the layer's largest first.

    Returns:
        (n,) float32 in [0, 1], falling: 0 for zeros, 1 for what is infinite.
    """
    squares = magnitudes.double().square()
    return squares.div_(squares.cumsum(0)).nan_to_num_(nan=1.0).mul_(magnitudes > 0).float()


def _counts(layers: list[Tensor], k: int) -> list[int]:
    """How many of each layer's magnitudes are among the k largest scores of all; of equal scores the first layers'."""
    scores = [lamp_scores(_falling(values)[: max(0, k)]) for values in layers]  # no layer has more of them
    chosen = largest(torch.cat(scores), k)
    return [int(part.sum()) for part in torch.split(chosen, [len(of_layer) for of_layer in scores])]


def _falling(values: Tensor) -> Tensor:
    if values.device.type == "cpu":  # numpy's sort of floats is vectorised: 0.1 s for 11 M of them, not 3
        return torch.from_numpy(np.sort(values.numpy())).flip(0)
    return values.sort(descending=True).values
