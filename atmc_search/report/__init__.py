"""What people look at: the front as a figure and as a table, robustness curves. The only home of plotting.

A new figure is two functions: one that turns a table of trials into a frozen dataclass (tested without drawing), and
one that draws that dataclass and decides nothing. They share a new file, or have one each where that would be long.
"""

from __future__ import annotations

from atmc_search.report.curve_figure import CurveData, curve_data, draw_curves
from atmc_search.report.front import Baseline, FrontData, Panel, Point, front_data
from atmc_search.report.front_figure import draw_front
from atmc_search.report.table import front_records, front_table

__all__ = [
    "Baseline",
    "CurveData",
    "FrontData",
    "Panel",
    "Point",
    "curve_data",
    "draw_curves",
    "draw_front",
    "front_data",
    "front_records",
    "front_table",
]
