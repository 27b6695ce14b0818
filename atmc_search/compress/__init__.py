"""Compression constraints and the parametrisations they act on.

A constraint is an immutable object over named weights (`Constraint`): its state is passed in and returned. To add
one: a file with such a class, its laws in tests/compress/test_laws.py, its settings in `spec.CompressSpec`.
"""

from atmc_search.compress.base import Constraint, Weights
from atmc_search.compress.codebook import Codebook, kmeans_with_zero
from atmc_search.compress.factors import (
    FORMS,
    FactorForm,
    FactorisedLayer,
    combine,
    constrained_weights,
    effective_weight,
    factorise,
    layers_to_compress,
)
from atmc_search.compress.l0 import GlobalL0, largest

__all__ = [
    "FORMS",
    "Codebook",
    "Constraint",
    "FactorForm",
    "FactorisedLayer",
    "GlobalL0",
    "Weights",
    "combine",
    "constrained_weights",
    "effective_weight",
    "factorise",
    "kmeans_with_zero",
    "largest",
    "layers_to_compress",
]
