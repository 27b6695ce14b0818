"""The front as a figure. Draws what `front_data` (in `front`) found and decides nothing but how it looks.

Without groups colour tells the front from the rest. With groups (a study that mixes methods) colour and shape say whose
a point is, and nothing else: all that belongs to no group is drawn in greys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from atmc_search.formatting import with_unit
from atmc_search.report.figures.groups import NEUTRAL, PLAIN, Look, draw_groups, groups_width, looks
from atmc_search.report.figures.style import DENSE, FRONT, QUIET, TEXT, draw_frame, keep_one, log_ticks, write_figure
from atmc_search.report.front import Baseline, FrontData, Panel, Point
from atmc_search.report.labels import capitalised, label
from atmc_search.results import Column

_MOST_LABELS = 12


def draw_front(data: FrontData, path: Path) -> None:
    """Draws the figure and writes it whole or not at all.

    Args:
        data: from `front_data`.
        path: ends in .png (at 200 dots an inch) or .svg; its folder must exist.

    Raises:
        AtmcError: another suffix, or the file cannot be written.
    """
    write_figure(lambda: _figure(data), path)


def _figure(data: FrontData) -> Figure:
    # The layout is in inches, by hand: headings, panels and legend each have their own strip and cannot meet. Tried
    # and lost: constrained layout, which gives a title only one style and centres it.
    n = len(data.panels)
    across = n if n <= 3 else 2
    down = math.ceil(n / across)
    top, bottom, panel_top, panel_bottom = 0.85, (0.4 if n > 1 else 0.75), 0.62, 0.62
    panel_width, panel_height = (5.0 if n > 1 else 6.8), 3.3
    strip = groups_width(data, panel_height) if data.groups else 0.0
    left, right, between = 0.75, 0.3 + (strip + 0.3 if strip else 0.0), 0.8
    width = left + across * panel_width + (across - 1) * between + right
    height = top + down * (panel_top + panel_height + panel_bottom) + bottom
    figure = Figure(figsize=(width, height), facecolor="white")

    def text(x: float, y: float, words: str, size: float, color: str = TEXT, weight: str = "normal") -> None:
        figure.text(x / width, y / height, words, size=size, color=color, weight=weight, va="baseline")

    text(0.25, height - 0.42, _heading(data), 14, weight="bold")
    text(0.25, height - 0.71, _subheading(data), 10, QUIET)
    x_limits = _limits([p.x for panel in data.panels for p in panel.points], log=data.x.log)
    legend: dict[str, Artist] = {}
    for i, panel in enumerate(data.panels):
        row, column = divmod(i, across)
        x0 = left + column * (panel_width + between)
        y0 = height - top - (row + 1) * (panel_top + panel_height) - row * panel_bottom
        axes = figure.add_axes((x0 / width, y0 / height, panel_width / width, panel_height / height))
        text(x0, y0 + panel_height + 0.34, capitalised(label(panel.column)), 12, weight="bold")
        text(x0, y0 + panel_height + 0.13, _fitting(panel.column.meaning, panel_width), 9, QUIET)
        legend |= _draw_panel(axes, panel, data, x_limits)
    if data.groups:
        draw_groups(figure, data, width - 0.3 - strip, height - top - panel_top, panel_height)
    if legend:
        figure.legend(
            list(legend.values()),
            list(legend),
            loc="lower left",
            bbox_to_anchor=(0.25 / width, 0.16 / height),
            ncols=len(legend) if n > 1 else 2,
            frameon=False,
            fontsize=9.5,
            borderaxespad=0,
            borderpad=0,
            columnspacing=2.2,
            handletextpad=0.6,
        )
    return figure


def _heading(data: FrontData) -> str:
    shown = " and ".join(", ".join(label(panel.column) for panel in data.panels).rsplit(", ", 1))
    return ": ".join(part for part in (data.title, f"{shown} by {label(data.x)}") if part)


def _subheading(data: FrontData) -> str:
    parts = [f"{data.trials:,} measured trials, {data.front:,} on the front"]
    barred = [panel.column for panel in data.panels if any(point.low is not None for point in panel.points)]
    if barred:
        # Of shares, intervals are Wilson's; of all else, only the task knows whose they are.
        wilson = "Wilson" if all(column.unit == "share" for column in barred) else ""
        how = ", ".join(filter(None, (wilson, f"n = {data.samples}" if data.samples else "")))
        parts.append("bars: 95 % intervals" + (f" ({how})" if how else ""))
    return " · ".join(parts)


def _fitting(words: str, inches: float) -> str:
    # At 9 points a letter of DejaVu Sans is 0.075 inches wide on average.
    most = int(inches / 0.075)
    return capitalised(words if len(words) <= most else words[: most - 1].rstrip() + "…")


def _limits(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    """Limits of an axis with some air around the values."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    if not finite:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = min(finite), max(finite)
    if log:
        air = max(0.06 * math.log(high / low), math.log(1.1))
        return low / math.exp(air), high * math.exp(air)
    air = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - air, high + air


def _draw_panel(axes: Axes, panel: Panel, data: FrontData, x_limits: tuple[float, float]) -> dict[str, Artist]:
    """Draws one panel; returns its entries of the legend."""
    draw_frame(axes)
    legend: dict[str, Artist] = {}
    front = [point for point in panel.points if point.standing == "front"]
    ends = [end for p in front for end in (p.low, p.high) if end is not None]
    dense = [panel.dense.y] if panel.dense else []
    y_low, y_high = _limits([*(p.y for p in panel.points), *ends, *dense], log=panel.column.log)
    if panel.column.unit == "share":
        y_low, y_high = max(y_low, -0.01), min(y_high, 1.02)
    _scale(axes, "x", data.x, x_limits, ticks=7)
    _scale(axes, "y", panel.column, (y_low, y_high), ticks=6)
    axes.set_xlabel(capitalised(label(data.x)) + (" (log scale)" if data.x.log else ""), labelpad=7)

    # What belongs to no group in grey, where colours say groups.
    by_group, neutral = looks(data.groups, data.order), NEUTRAL if data.groups else PLAIN
    if panel.staircase:
        # On to the edge: a larger budget reaches at least what the last corner does.
        edge = x_limits[1] if data.x_direction == "min" else x_limits[0]
        x, y = zip(*panel.staircase, (edge, panel.staircase[-1][1]), strict=True)
        floor = y_low if panel.direction == "max" else y_high
        axes.fill_between(*_steps(x, y), floor, color=neutral.color, alpha=0.06, linewidth=0, zorder=1)
        (line,) = axes.plot(*_steps(x, y), color=neutral.color, linewidth=1.5, alpha=0.55, zorder=3)
        legend[_line_name(data)] = line
    if front:
        shown = [p for p in front if p.low is not None and p.high is not None]
        axes.vlines(
            [p.x for p in shown],
            [p.low for p in shown if p.low is not None],
            [p.high for p in shown if p.high is not None],
            color=[by_group[p.group].color for p in shown],
            linewidth=1.3,
            alpha=0.85,
            zorder=4,
        )
    for kind in _KINDS:
        points = [point for point in panel.points if _kind(point) == kind]
        for group, look in by_group.items():
            if members := [point for point in points if point.group == group]:
                legend[kind] = _draw_markers(axes, members, kind, look)
        if kind in legend and data.groups:
            legend[kind] = _draw_markers(axes, [], kind, neutral)
    taken = _obstacles(axes, panel)
    if panel.dense:
        legend[panel.dense.name] = axes.axhline(
            panel.dense.y, color=_dense_color(data), linewidth=1.4, linestyle=(0, (5, 3)), zorder=2.5
        )
        _draw_dense_words(axes, panel, panel.dense, data, taken)
    if not panel.points:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no trial measured yet", transform=axes.transAxes, ha="center", color=QUIET, size=11)
    if len(front) <= _MOST_LABELS:
        for point in front:
            _draw_number(axes, point, FRONT if point.group is None else TEXT, taken)
    return legend


_KINDS = ("on the front", "on the front, for another objective", "dominated", "outside the constraints")


def _kind(point: Point) -> str:
    if point.standing == "front":
        return _KINDS[0] if point.on_line else _KINDS[1]
    return _KINDS[2] if point.standing == "dominated" else _KINDS[3]


def _draw_markers(axes: Axes, points: Sequence[Point], kind: str, look: Look) -> Artist:
    how: dict[str, Any] = {
        _KINDS[0]: {"s": 32 * look.area, "color": look.color, "linewidth": 1.3, "zorder": 6},
        _KINDS[1]: {"s": 32 * look.area, "color": "white", "edgecolor": look.color, "linewidth": 1.3, "zorder": 6},
        _KINDS[2]: {"s": 22 * look.area, "color": look.faint, "alpha": 0.85, "linewidth": 0, "zorder": 2},
        _KINDS[3]: {"s": 20, "color": look.faint, "linewidth": 1.1, "zorder": 2},
    }[kind]
    marker = "x" if kind == _KINDS[3] else look.marker
    return axes.scatter([p.x for p in points], [p.y for p in points], marker=marker, **how)


def _dense_color(data: FrontData) -> str:
    return TEXT if data.groups else DENSE


def _line_name(data: FrontData) -> str:
    if data.x.name == "trial":
        return "best so far"
    kept = "at most" if data.x_direction == "min" else "at least"
    return f"best with {kept} this {label(data.x)}"


def _draw_dense_words(axes: Axes, panel: Panel, dense: Baseline, data: FrontData, taken: list[Bbox]) -> None:
    """Writes what the dashed line is, above or below it, at an end if there is room; `taken` grows by the place."""
    words = f"{dense.name}: {with_unit(dense.y, panel.column.unit)}"
    if dense.x is not None:
        words += f" ({label(data.x)} {with_unit(dense.x, data.x.unit)})"
    if dense.starts > 1:
        words += f", best of {dense.starts}"
    # Close to the line at its ends, else close to it anywhere, else at its ends above the bars that cross it.
    ends, between = (0.012, 0.988), [0.04 * i for i in range(1, 17)]
    places = [(x, rise) for xs in (ends, between) for rise in (4, -12) for x in xs]
    places += [(x, rise) for rise in range(8, 44, 4) for x in ends]
    notes = [
        axes.annotate(
            words,
            (x, dense.y),
            xycoords=axes.get_yaxis_transform(),
            xytext=(0, rise),
            textcoords="offset points",
            ha="right" if x == 0.988 else "left",
            size=9.5,
            color=_dense_color(data),
            zorder=7,
        )
        for x, rise in places
    ]
    keep_one(axes, notes, taken, otherwise=notes[0])
    frame, y = axes.get_window_extent(), axes.transData.transform((axes.get_xlim()[0], dense.y))[1]
    taken.append(Bbox.from_extents(frame.x0, y - 1, frame.x1, y + 1))


def _steps(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """The corners of a line that keeps its y up to the next x."""
    return [x[0], *(v for v in x[1:] for _ in (0, 1))], [*(v for v in y[:-1] for _ in (0, 1)), y[-1]]


def _scale(axes: Axes, which: Literal["x", "y"], column: Column, limits: tuple[float, float], ticks: int) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log" if column.log else "linear")
    (axes.set_xlim if which == "x" else axes.set_ylim)(*limits)
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    if column.log:
        axis.set_major_locator(FixedLocator(log_ticks(*limits, most=ticks)))
    else:
        axis.set_major_locator(MaxNLocator(ticks, integer=column.kind == "int64", steps=[1, 2, 2.5, 5, 10]))
    if column.unit == "share":
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    else:
        axis.set_major_formatter(FuncFormatter(lambda value, _: with_unit(value, column.unit)))


# Where a number may stand, in points from its marker: above the line first.
_PLACES = ((-5, 5, "right"), (5, -12, "left"), (5, 5, "left"), (-5, -12, "right"), (7, -4, "left"), (-7, -4, "right"))


def _draw_number(axes: Axes, point: Point, color: str, taken: list[Bbox]) -> None:
    """Writes a front point's trial number beside it, or nothing where every place would cover something."""
    notes = [
        axes.annotate(
            str(point.trial),
            (point.x, point.y),
            xytext=(right, up),
            textcoords="offset points",
            ha=side,
            size=9,
            color=color,
            zorder=7,
        )
        for right, up, side in _PLACES
    ]
    keep_one(axes, notes, taken, otherwise=None)


def _obstacles(axes: Axes, panel: Panel) -> list[Bbox]:
    """What words must not cover, in pixels: markers, interval bars and the staircase up to its last corner."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    pixel = figure.dpi / 72
    taken = []
    for point in panel.points:
        (x, y), front = axes.transData.transform((point.x, point.y)), point.standing == "front"
        half = (3.7 if front else 2.5) * pixel
        taken.append(Bbox.from_extents(x - half, y - half, x + half, y + half))
        if front and point.low is not None and point.high is not None:
            (_, low), (_, high) = axes.transData.transform([(point.x, point.low), (point.x, point.high)])
            taken.append(Bbox.from_extents(x - pixel, low, x + pixel, high))
    if panel.staircase:
        x_steps, y_steps = _steps(*zip(*panel.staircase, strict=True))
        for (x0, y0), (x1, y1) in pairwise(axes.transData.transform(np.column_stack((x_steps, y_steps)))):
            taken.append(Bbox.from_extents(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)).padded(0.5 * pixel))
    return taken
