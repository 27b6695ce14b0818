"""The parts of training, beside the step itself: what binds, averages or teaches. One file each.

To add one: a file with a `Part` subclass here, and a line where a task makes its list of parts.
"""

from atmc_search.training.parts.admm import Admm, AdmmState, add_penalty, admm_start, admm_update
from atmc_search.training.parts.average import Average
from atmc_search.training.parts.base import Moment, Part
from atmc_search.training.parts.codes import Codes
from atmc_search.training.parts.distillation import Distillation
from atmc_search.training.parts.fixed import Fixed
from atmc_search.training.parts.grown import Grown
from atmc_search.training.parts.projected import Projected
from atmc_search.training.parts.scored import Scored
from atmc_search.training.parts.straight_through import (
    StraightThrough,
    StraightThroughState,
    at_centres,
    fitted_centres,
    on_centres,
)
from atmc_search.training.parts.support import Support

__all__ = [
    "Admm",
    "AdmmState",
    "Average",
    "Codes",
    "Distillation",
    "Fixed",
    "Grown",
    "Moment",
    "Part",
    "Projected",
    "Scored",
    "StraightThrough",
    "StraightThroughState",
    "Support",
    "add_penalty",
    "admm_start",
    "admm_update",
    "at_centres",
    "fitted_centres",
    "on_centres",
]
