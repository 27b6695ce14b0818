"""What people look at: the front as a figure and as a table. The only home of plotting.

A new figure is a new file with two functions: one that turns a table of trials into a frozen dataclass (tested without
drawing), and one that draws that dataclass and decides nothing.
"""

from __future__ import annotations

from atmc_search.report.front_figure import Baseline, FrontData, Panel, Point, draw_front, front_data
from atmc_search.report.table import front_records, front_table

__all__ = ["Baseline", "FrontData", "Panel", "Point", "draw_front", "front_data", "front_records", "front_table"]
