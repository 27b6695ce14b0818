"""ADMM with a quantised copy and scaled duals ([P] sect. 3.3; METHOD 1).

minimise f(θ) subject to θ = θ', θ' ∈ codebook:
θ  ← descent on f(θ) + ρ/2 ‖θ − θ' + u‖²,  then the ℓ0 projection (every step; training/loop.py)
θ' ← Π_codebook(θ + u),  u ← u + θ − θ'    (every `dual_every` steps; here)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from atmc_search.compress import Codebook, Weights
from atmc_search.errors import TrialFailed


@dataclass(frozen=True)
class AdmmState:
    """The codebook constraint, the quantised copies θ', the scaled duals u and the centres, by weight name."""

    codebook: Codebook
    copies: Mapping[str, Tensor]
    duals: Mapping[str, Tensor]
    centres: Mapping[str, Tensor]


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


def all_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether no tensor holds NaN or infinity."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def refuse_divergence(weights: Weights) -> None:
    """Raises TrialFailed if a weight is no longer finite."""
    if not all_finite(weights):
        raise TrialFailed("diverged: weights are not finite where a codebook is sought; lower trial.train.lr")


@torch.no_grad()
def add_penalty(weights: Weights, state: AdmmState, rho: float) -> None:
    """Adds ∇ ρ/2 ‖θ − θ' + u‖² = ρ (θ − θ' + u) to the gradients that the weights hold."""
    for name, weight in weights.items():
        assert weight.grad is not None
        weight.grad.add_(weight - state.copies[name] + state.duals[name], alpha=rho)
