"""ATMC: adversarial training under one budget of weights, with factors and codebooks (Gui et al., arXiv 1902.03538)."""

from atmc_search.tasks.atmc.columns import ATMC_COLUMNS
from atmc_search.tasks.atmc.methods import METHODS
from atmc_search.tasks.atmc.spec import AtmcSpec
from atmc_search.tasks.atmc.task import AtmcTask

__all__ = ["ATMC_COLUMNS", "METHODS", "AtmcSpec", "AtmcTask"]
