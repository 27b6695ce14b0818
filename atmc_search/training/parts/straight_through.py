"""Codebooks by straight-through estimation: the network is seen at its quantised weights from some point on.

ŵ = nearest centre of w's tensor where w ≠ 0, and 0 where it is 0: the pruning decides what is zero. Every step attacks
and differentiates the network at ŵ and applies the gradient to the latent w, as if dŵ/dw were 1 (Bengio et al., arXiv
1308.3432). The centres are those of k-means on the non-zeros, as in Deep Compression (arXiv 1510.00149), fitted again
every few steps from the ones before. Where codes have a price, cells are those of `compress.entropy`, whose
edges hold until the next fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from atmc_search.compress import Codebook, Weights, kmeans_with_zero, priced_cells
from atmc_search.training.divergence import refuse_divergence
from atmc_search.training.parts.base import Moment
from atmc_search.training.parts.codes import Codes, codebook_facts
from atmc_search.training.state import State, grouped, joined


@dataclass(frozen=True)
class StraightThroughState:
    """The codebook constraint and every tensor's centres, sorted and on the CPU, by weight name.

    Attributes:
        codebook: the constraint.
        centres: (m,) each.
        edges: (m − 1,) each, between the centres' cells, where codes have a price; else they are half way.
    """

    codebook: Codebook
    centres: Mapping[str, Tensor]
    edges: Mapping[str, Tensor] = field(default_factory=dict)


class StraightThrough(Codes):
    """Attacks and gradients see the weights at their centres; steps move the latent weights."""

    name: ClassVar[str] = "straight_through"
    fitted: StraightThroughState | None = None

    @property
    def codebook(self) -> Codebook | None:
        return None if self.fitted is None else self.fitted.codebook

    @property
    def centres(self) -> Mapping[str, Tensor]:
        return {} if self.fitted is None else self.fitted.centres

    @contextmanager
    def seen(self, at: Moment) -> Iterator[None]:
        if self._waits(at):
            yield
            return
        weights = self.support.weights
        if self.fitted is None:
            refuse_divergence(weights)
            self.fitted = fitted_centres(weights, self.codebook_of(self.support.chosen()), {})
        with at_centres(weights, self.fitted):
            yield

    def after_step(self, at: Moment) -> None:
        if self.fitted is not None and self._is_due(at):
            self.fitted = fitted_centres(self.support.weights, self.fitted.codebook, self.fitted.centres)

    def state(self) -> State:
        if self.fitted is None:
            return {}, {}
        return joined({"centres": self.fitted.centres, "edges": self.fitted.edges}), codebook_facts(
            self.fitted.codebook
        )

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.fitted = None
        if facts:
            groups = grouped({name: tensor.cpu() for name, tensor in tensors.items()})
            self.fitted = StraightThroughState(Codebook(**facts), groups["centres"], groups.get("edges", {}))


@torch.no_grad()
def fitted_centres(weights: Weights, codebook: Codebook, earlier: Mapping[str, Tensor]) -> StraightThroughState:
    """The centres of the weights' non-zeros, from those found `earlier` where there are such.

    Raises:
        TrialFailed: a weight is not finite.
    """
    refuse_divergence(weights)
    centres, edges = {}, {}
    for name, weight in weights.items():
        values = weight[weight != 0].cpu().numpy()
        warm = earlier[name].numpy() if name in earlier else None
        clusters = 2 ** codebook.bits_of(name)
        if codebook.price:
            cells = priced_cells(values, clusters, price=codebook.price, zeros=None, warm=warm)
            centres[name], edges[name] = torch.from_numpy(cells.centres), torch.from_numpy(cells.edges)
            continue
        centres[name] = torch.from_numpy(
            kmeans_with_zero(values, clusters, seed=codebook.seed, warm=warm, zero=False)  # the support is pruning's
        )
    return StraightThroughState(codebook, centres, edges)


def on_centres(tensor: Tensor, centres: Tensor, edges: Tensor | None = None) -> Tensor:
    """`tensor` with every non-zero at the centre of its cell, on any device; without `edges`, at the nearest.

    A value on an edge, or as near to two centres, goes to the lower.

    Without a centre it stays as it is: its non-zeros are younger than the last fit.
    """
    if not len(centres):
        return tensor.clone()
    if edges is None:
        edges = (centres[:-1].double() + centres[1:]) / 2
    support = tensor != 0
    cells = torch.bucketize(tensor[support].double(), edges.to(tensor.device))
    out = torch.zeros_like(tensor)
    out[support] = centres.to(tensor.device)[cells]
    return out


@contextmanager
def at_centres(weights: Weights, state: StraightThroughState) -> Iterator[None]:
    """Inside, the parameters hold their quantised values, at which gradients are taken; after, the latent ones."""
    with torch.no_grad():
        latent = {name: weight.clone() for name, weight in weights.items()}
        for name, weight in weights.items():
            weight.copy_(on_centres(weight, state.centres[name], state.edges.get(name)))
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(latent[name])
