"""Groups of points in a figure, such as methods: how each looks, and the list that says so beside the panels.

Groups that should always look the same have their place in their column's `order`; all others take what is next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from atmc_search.errors import printable
from atmc_search.report.figures.style import FRONT, OTHER, QUIET, TEXT
from atmc_search.report.front import NOT_SET, FrontData
from atmc_search.report.labels import capitalised


@dataclass(frozen=True)
class Look:
    """How points are drawn.

    Attributes:
        color: on the front.
        faint: off it.
        marker: the shape.
        area: of the marker, as a share of a circle's, so that all shapes seem of one size.
    """

    color: str
    faint: str
    marker: str = "o"
    area: float = 1.0


PLAIN = Look(FRONT, OTHER)
NEUTRAL = Look(QUIET, OTHER)

# In the order of the column, so that a method looks the same in every figure. Okabe and Ito's palette, with a wine red
# for their yellow, which is lost on white: any two differ to the three kinds of colour blindness as well (by at least
# 16 in CIE 1976, colours as Machado et al. 2009 simulate them). Crosses are left to points outside the constraints.
_COLORS = ("#1F2328", "#882255", "#E69F00", "#D55E00", "#CC79A7", "#56B4E9", "#0072B2", "#009E73")
_MARKERS = (("<", 1.3), ("*", 1.9), ("v", 1.3), ("^", 1.3), ("P", 1.4), ("s", 0.9), ("o", 1.0), ("D", 0.8))


def looks(groups: Sequence[str], known: Sequence[str] = ()) -> dict[str | None, Look]:
    """Each group's look, no two alike among 56 or fewer; the plain look for None where there are no groups.

    Args:
        groups: to be told apart.
        known: all values that the column can have, in order.
    """
    if not groups:
        return {None: PLAIN}
    order = [*known, *(name for name in groups if name not in known)]
    return {name: NEUTRAL if name == NOT_SET else _look(order.index(name)) for name in groups}


def _look(place: int) -> Look:
    rounds, place = divmod(place, len(_COLORS))  # in every round the shapes move on by one
    color, (marker, area) = _COLORS[place], _MARKERS[(place + rounds) % len(_MARKERS)]
    # Paler by hand, not by transparency: where points crowd, transparent ones add up to what the front looks like.
    red, green, blue = (0.55 * part + 0.45 for part in to_rgb(color))
    return Look(color, to_hex((red, green, blue)), marker, area)


_LINE, _GAP = 0.25, 0.3  # inches


def groups_width(data: FrontData, height: float) -> float:
    """How wide the list is that `draw_groups` draws into this height, both in inches."""
    columns = math.ceil(len(data.groups) / int(height / _LINE))
    list_width = columns * (_column_width(data) + _GAP) - _GAP
    return max(list_width, 0.115 * len(_heading(data)))  # at 12 points a bold letter is so wide


def draw_groups(figure: Figure, data: FrontData, x: float, top: float, height: float) -> None:
    """Lists each group's marker, name and share of the front, with headings as panels have them.

    Args:
        figure: to draw on.
        data: with groups.
        x, top, height: of the list without its headings, in inches from the figure's lower left corner.
    """
    inches, width, rows = figure.dpi_scale_trans, _column_width(data), int(height / _LINE)

    def text(x: float, y: float, words: str, color: str = TEXT, **other: Any) -> None:
        how: dict[str, Any] = {"size": 9.5, "va": "center_baseline", **other}
        figure.text(x, y, words, color=color, transform=inches, **how)

    text(x, top + 0.34, _heading(data), size=12, weight="bold", va="baseline")
    text(x, top + 0.13, "front / measured", QUIET, size=9, va="baseline")
    by_group = looks(data.groups, data.order)
    for i, (group, (front, measured)) in enumerate(zip(data.groups, data.group_counts, strict=True)):
        column, row = divmod(i, rows)
        look, left, y = by_group[group], x + column * (width + _GAP), top - 0.14 - _LINE * row
        marker = Line2D([left + 0.07], [y], color=look.color, marker=look.marker, transform=inches)
        marker.set(markersize=math.sqrt(38 * look.area), markeredgewidth=0)
        figure.add_artist(marker)
        shade = TEXT if front else QUIET
        text(left + 0.25, y, printable(group), shade)
        text(left + width, y, f"{front:,}/{measured:,}", shade, ha="right")


def _heading(data: FrontData) -> str:
    return capitalised(data.by.rpartition(".")[2].replace("_", " "))


def _column_width(data: FrontData) -> float:
    # Marker, name (at 9.5 points a letter is 0.08 inches wide) and counts; the second heading at least.
    counts = max(len(f"{front:,}/{measured:,}") for front, measured in data.group_counts)
    return max(1.25, 0.25 + 0.08 * (max(map(len, data.groups)) + 2 + counts))
