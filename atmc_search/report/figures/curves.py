"""Robustness curves as a figure. Draws what `report.curves` found and decides nothing but how it looks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from atmc_search.formatting import number, size
from atmc_search.report.curves import CurveData, CurvePanel
from atmc_search.report.figures.style import DENSE, QUIET, TEXT, draw_frame, keep_one, log_ticks, write_figure

# Sizes are ordered, and so are the colours: the larger the model, the darker its line.
_SHADES = LinearSegmentedColormap.from_list("sizes", ["#4FA3DC", "#0072B2", "#0A2A52"])
_NORMS = {"linf": "ℓ∞", "l2": "ℓ2"}


def draw_curves(data: CurveData, path: Path) -> None:
    """Draws the figure and writes it whole or not at all.

    Args:
        data: from `curve_data`.
        path: ends in .png (at 200 dots an inch) or .svg; its folder must exist.

    Raises:
        AtmcError: another suffix, or the file cannot be written.
    """
    write_figure(lambda: _figure(data), path)


def _figure(data: CurveData) -> Figure:
    # In inches and by hand, as the front's figure is.
    n = max(1, len(data.panels))
    left, right, between = 0.75, 0.85, 0.8  # right: names at the ends of curves
    top, bottom, panel_top = 0.85, 0.75, 0.62
    panel_width, panel_height = (5.0 if n > 1 else 6.8), 3.6
    width = left + n * panel_width + (n - 1) * between + right
    height = top + panel_top + panel_height + bottom
    figure = Figure(figsize=(width, height), facecolor="white")

    def text(x: float, y: float, words: str, size: float, color: str = TEXT, weight: str = "normal") -> None:
        figure.text(x / width, y / height, words, size=size, color=color, weight=weight, va="baseline")

    text(0.25, height - 0.42, ": ".join(filter(None, (data.title, "robustness curves"))), 14, weight="bold")
    attack = f"attack: {data.attack}, " if data.attack else ""
    text(0.25, height - 0.71, f"{attack}n = {data.images} · bands: 95 % intervals (Wilson)", 10, QUIET)
    for i, panel in enumerate(data.panels):
        x0, y0 = left + i * (panel_width + between), bottom
        axes = figure.add_axes((x0 / width, y0 / height, panel_width / width, panel_height / height))
        name = "radius" if panel.over == "eps" else "steps"
        text(x0, y0 + panel_height + 0.34, f"Robust accuracy by {name}", 12, weight="bold")
        text(x0, y0 + panel_height + 0.13, _meaning(panel), 9, QUIET)
        _draw_panel(axes, panel, data)
    return figure


def _meaning(panel: CurvePanel) -> str:
    if panel.over == "eps":
        return "Must fall to about 0 as the radius grows; at 0 it is clean accuracy"
    return "Each number of steps by itself: the curve must not rise"


def _draw_panel(axes: Axes, panel: CurvePanel, data: CurveData) -> None:
    draw_frame(axes)
    axes.set_ylim(-0.01, 1.02)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.2, 0.4, 0.6, 0.8, 1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    x = sorted({point.x for curve in panel.curves for point in curve.points})
    if panel.over == "steps":
        low, high = x[0] / 1.12, max(x[-1], 2 * x[0]) * 1.12
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(x if len(x) <= 8 else log_ticks(low, high, most=7)))
        axes.set_xlabel("Gradient steps (log scale)", labelpad=7)
    else:
        air = 0.02 * ((x[-1] - x[0]) or 1)
        low, high = x[0] - air, x[-1] + air
        axes.set_xlabel(f"eps ({_NORMS[data.norm]}, pixels in 0 to 1)" if data.norm in _NORMS else "eps", labelpad=7)
    axes.set_xlim(low, high)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 3)))

    n = len(panel.curves)
    shades = [to_hex(_SHADES(i / (n - 1) if n > 1 else 0.5)) for i in range(n)]
    for curve, shade in zip(panel.curves, shades, strict=True):
        xs, ys = [p.x for p in curve.points], [p.y for p in curve.points]
        lows, highs = [p.low for p in curve.points], [p.high for p in curve.points]
        axes.fill_between(xs, lows, highs, color=shade, alpha=0.13, linewidth=0, zorder=2)
        axes.plot(xs, ys, color=shade, linewidth=1.6, marker="o", markersize=3.8, markeredgewidth=0, zorder=4)
    if panel.mark is not None and low <= panel.mark <= high:
        axes.axvline(panel.mark, color=DENSE, linewidth=1.4, linestyle=(0, (5, 3)), zorder=2.5)
        _draw_mark_words(axes, panel, panel.mark)
    # Over steps the curves end apart, and each has its name at its end. Over radii they start and end together, and a
    # name at one of them would stand at all (tried: names along the curves, where there is room for the outer two).
    if panel.over == "steps":
        _draw_names(axes, panel, shades)
    else:
        axes.legend(
            handles=axes.get_lines()[:n][::-1],
            labels=[size(curve.size_bytes) for curve in panel.curves][::-1],
            loc="best",
            frameon=False,
            labelcolor="linecolor",
            prop={"size": 9.5, "weight": "bold"},
            handlelength=1.4,
        )


def _draw_mark_words(axes: Axes, panel: CurvePanel, mark: float) -> None:
    """Writes beside the dashed line what it is, at its foot or its head."""
    words = f"{'the study' if panel.over == 'eps' else 'the attack'}'s own: {number(mark, 3)}"
    notes = [
        axes.annotate(
            words,
            (mark, y),
            xycoords=axes.get_xaxis_transform(),
            xytext=(right, 0),
            textcoords="offset points",
            ha="left" if right > 0 else "right",
            va="center",
            size=9.5,
            color=DENSE,
            zorder=7,
        )
        for y in (0.05, 0.95)
        for right in (-5, 5)
    ]
    keep_one(axes, notes, _obstacles(axes, panel), otherwise=notes[0])


def _draw_names(axes: Axes, panel: CurvePanel, shades: Sequence[str]) -> None:
    """Writes each curve's size right of its end, apart from the others."""
    heights = _apart([curve.points[-1].y for curve in panel.curves], 0.05)
    for curve, shade, height in zip(panel.curves, shades, heights, strict=True):
        axes.annotate(
            size(curve.size_bytes),
            (1, height),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            size=9.5,
            weight="bold",
            color=shade,
            annotation_clip=False,
        )


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Heights in the same order, moved as little as it takes for each to be `gap` from the next."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    groups: list[list[int]] = []  # neighbours that touch, spread about their mean
    for i in order:
        groups.append([i])
        while len(groups) > 1 and _foot(heights, groups[-1], gap) < _head(heights, groups[-2], gap) + gap:
            upper = groups.pop()
            groups[-1] += upper
    moved = list(heights)
    for group in groups:
        for place, i in enumerate(group):
            moved[i] = _foot(heights, group, gap) + gap * place
    return moved


def _foot(heights: Sequence[float], group: Sequence[int], gap: float) -> float:
    """Where the lowest of a group stands."""
    return sum(heights[i] for i in group) / len(group) - gap * (len(group) - 1) / 2


def _head(heights: Sequence[float], group: Sequence[int], gap: float) -> float:
    """Where the highest of it stands."""
    return _foot(heights, group, gap) + gap * (len(group) - 1)


def _obstacles(axes: Axes, panel: CurvePanel) -> list[Bbox]:
    """What words must not cover, in pixels: the curves, cut into pieces so short that their boxes are the lines."""
    taken = []
    for curve in panel.curves:
        pixels = axes.transData.transform([(p.x, p.y) for p in curve.points])
        taken += [Bbox.from_extents(x - 3, y - 3, x + 3, y + 3) for x, y in pixels]
        for start, end in pairwise(pixels):
            pieces = np.linspace(start, end, 2 + int(np.abs(end - start).max() / 4))
            for (x0, y0), (x1, y1) in pairwise(pieces):
                taken.append(Bbox.from_extents(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)).padded(0.7))
    return taken
