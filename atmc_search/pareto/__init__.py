"""Which results are worth looking at, how good a set of them is, and which one to take: arrays in, arrays out.

Every function here minimises; the caller turns maximised objectives round once, at the edge. Only `choose` takes
values as they were measured, because its bounds are a person's words. A new indicator or rule is a new file here.
"""

from __future__ import annotations

from atmc_search.pareto.choose import Bound, Choice, Relaxation, choose
from atmc_search.pareto.hypervolume import hypervolume
from atmc_search.pareto.nondominated import nondominated, nondominated_sort, rank

__all__ = ["Bound", "Choice", "Relaxation", "choose", "hypervolume", "nondominated", "nondominated_sort", "rank"]
