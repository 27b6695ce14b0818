"""Weights that are no longer finite: training has diverged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from atmc_search.compress import Weights
from atmc_search.errors import TrialFailed


def all_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether no tensor holds NaN or infinity."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def refuse_divergence(weights: Weights) -> None:
    """Raises TrialFailed if a weight is no longer finite."""
    if not all_finite(weights):
        raise TrialFailed("diverged: weights are not finite where a codebook is sought; lower trial.train.lr")
