"""The only home of plotting: drawings of what the data modules of `report` found."""

from atmc_search.report.figures.curves import draw_curves
from atmc_search.report.figures.front import draw_front

__all__ = ["draw_curves", "draw_front"]
