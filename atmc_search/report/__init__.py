"""What people look at: the front as a table and as a figure, robustness curves.

A new figure is two modules: one here that turns a table of trials into a frozen dataclass (tested without drawing), and
one in `figures`, the only home of plotting, that draws that dataclass and decides nothing. Nothing outside `figures`
imports matplotlib.
"""

from __future__ import annotations

from atmc_search.report.curves import CurveData, curve_data
from atmc_search.report.front import Baseline, FrontData, Panel, Point, front_data
from atmc_search.report.labels import column_named, columns_in
from atmc_search.report.table import front_records, front_table

__all__ = [
    "Baseline",
    "CurveData",
    "FrontData",
    "Panel",
    "Point",
    "column_named",
    "columns_in",
    "curve_data",
    "front_data",
    "front_records",
    "front_table",
]
