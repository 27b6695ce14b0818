"""Compression constraints and the parametrisations they act on.

A constraint is an immutable object over named weights (`Constraint`): its state is passed in and returned. To add
one: a file with such a class, a row in tests/compress/test_constraint_laws.py, its settings in `spec.CompressSpec`.
"""

from atmc_search.compress.base import Constraint, Weights
from atmc_search.compress.codebook import Codebook, half_precision, requantised
from atmc_search.compress.entropy import Cells, priced_cells
from atmc_search.compress.factors import (
    FORMS,
    FactorForm,
    FactorisedLayer,
    combine,
    constrained_weights,
    effective_weight,
    factorisable,
    factorise,
    layers_to_compress,
)
from atmc_search.compress.grow import GrowSchedule, regrown
from atmc_search.compress.kmeans import kmeans_with_zero
from atmc_search.compress.l0 import GlobalL0, largest
from atmc_search.compress.lamp import LampBudget, lamp_scores
from atmc_search.compress.live import LiveBudget
from atmc_search.compress.ranks import ranks_by_budget, ranks_by_energy, spectra
from atmc_search.compress.rate import RateBudget, place_bits
from atmc_search.compress.schedule import CubicSchedule
from atmc_search.compress.support import FixedSupport

__all__ = [
    "FORMS",
    "Cells",
    "Codebook",
    "Constraint",
    "CubicSchedule",
    "FactorForm",
    "FactorisedLayer",
    "FixedSupport",
    "GlobalL0",
    "GrowSchedule",
    "LampBudget",
    "LiveBudget",
    "RateBudget",
    "Weights",
    "combine",
    "constrained_weights",
    "effective_weight",
    "factorisable",
    "factorise",
    "half_precision",
    "kmeans_with_zero",
    "lamp_scores",
    "largest",
    "layers_to_compress",
    "place_bits",
    "priced_cells",
    "ranks_by_budget",
    "ranks_by_energy",
    "regrown",
    "requantised",
    "spectra",
]
