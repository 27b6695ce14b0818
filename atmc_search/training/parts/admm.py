"""Codebooks by ADMM, with a quantised copy and scaled duals (Gui et al., arXiv 1902.03538, section 3.3).

minimise f(θ) subject to θ = θ', θ' ∈ codebook:
θ  ← descent on f(θ) + ρ/2 ‖θ − θ' + u‖²,  then the support's projection (every step)
θ' ← Π_codebook(θ + u),  u ← u + θ − θ'    (every few steps)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from atmc_search.compress import Codebook, Weights
from atmc_search.training.divergence import refuse_divergence
from atmc_search.training.parts.base import Moment
from atmc_search.training.parts.codes import Codes, codebook_facts
from atmc_search.training.parts.support import Support
from atmc_search.training.state import State, grouped, joined


@dataclass(frozen=True)
class AdmmState:
    """The codebook constraint, the quantised copies θ', the scaled duals u and the centres, by weight name."""

    codebook: Codebook
    copies: Mapping[str, Tensor]
    duals: Mapping[str, Tensor]
    centres: Mapping[str, Tensor]


class Admm(Codes):
    """A penalty of weight `rho` draws the weights to their quantised copies."""

    name: ClassVar[str] = "admm"

    def __init__(
        self,
        support: Support,
        codebook_of: Callable[[Weights], Codebook],
        *,
        sets_in: float,
        every: int,
        rho: float,
    ) -> None:
        super().__init__(support, codebook_of, sets_in=sets_in, every=every)
        self.rho = rho
        self.admm: AdmmState | None = None

    @property
    def codebook(self) -> Codebook | None:
        return None if self.admm is None else self.admm.codebook

    @property
    def centres(self) -> Mapping[str, Tensor]:
        return {} if self.admm is None else self.admm.centres

    def before_step(self, at: Moment) -> None:
        if self._waits(at):
            return
        weights = self.support.weights
        if self.admm is None:
            refuse_divergence(weights)
            self.admm = admm_start(weights, self.codebook_of(self.support.chosen()))
        add_penalty(weights, self.admm, self.rho)

    def after_step(self, at: Moment) -> None:
        if self.admm is not None and self._is_due(at):
            self.admm = admm_update(self.support.weights, self.admm)

    def state(self) -> State:
        if self.admm is None:
            return {}, {}
        groups = {"copies": self.admm.copies, "duals": self.admm.duals, "centres": self.admm.centres}
        return joined(groups), codebook_facts(self.admm.codebook)

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.admm = None
        if facts:
            groups = grouped(tensors)
            centres = {name: tensor.cpu() for name, tensor in groups["centres"].items()}
            self.admm = AdmmState(Codebook(**facts), groups["copies"], groups["duals"], centres)


@torch.no_grad()
def admm_start(weights: Weights, codebook: Codebook) -> AdmmState:
    """θ' = Π(θ), u = 0."""
    refuse_divergence(weights)
    copies, centres = codebook.project(weights, codebook.init(weights))
    return AdmmState(codebook, copies, {name: torch.zeros_like(w) for name, w in weights.items()}, centres)


@torch.no_grad()
def admm_update(weights: Weights, state: AdmmState) -> AdmmState:
    """One dual update: θ' ← Π(θ + u), u ← u + θ − θ'."""
    shifted = {name: weight + state.duals[name] for name, weight in weights.items()}
    refuse_divergence(shifted)
    copies, centres = state.codebook.project(shifted, state.centres)
    return AdmmState(state.codebook, copies, {name: shifted[name] - copies[name] for name in shifted}, centres)


@torch.no_grad()
def add_penalty(weights: Weights, state: AdmmState, rho: float) -> None:
    """Adds ∇ ρ/2 ‖θ − θ' + u‖² = ρ (θ − θ' + u) to the gradients that the weights hold."""
    for name, weight in weights.items():
        assert weight.grad is not None
        weight.grad.add_(weight - state.copies[name] + state.duals[name], alpha=rho)
