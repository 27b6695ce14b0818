"""The front as a figure: what every other objective costs in the first minimised one (size, as a rule).

`front_data` decides everything that can be right or wrong; `draw_front` only draws. To show something new, add it to
the data first.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from atmc_search.errors import AtmcError
from atmc_search.report.format import column_named, label, value_text
from atmc_search.results import ATMC_COLUMNS, STUDY_COLUMNS, Column, front_of
from atmc_search.results.derive import MEASURED, feasible, minimised
from atmc_search.results.store import write_atomic
from atmc_search.spec import BoundSpec

Standing = Literal["front", "dominated", "infeasible"]


@dataclass(frozen=True)
class Point:
    """One measured trial in one panel.

    Attributes:
        trial: its number.
        x, y: its values, in the units of the two columns.
        low, high: ends of the interval of y, None where none was recorded.
        standing: on the front of *all* objectives, dominated, or infeasible (outside the constraints).
        on_line: whether it is a corner of the panel's staircase. A trial can be on the front for another objective's
            sake and lie below the line in this panel.
    """

    trial: int
    x: float
    y: float
    low: float | None
    high: float | None
    standing: Standing
    on_line: bool


@dataclass(frozen=True)
class Baseline:
    """The dense start that trials are compared with.

    Attributes:
        y: its value of the panel's metric; the best one, where trials had different dense starts.
        x: its value of the shared metric, None where none was recorded.
        starts: how many different values of y the trials' dense starts have.
    """

    y: float
    x: float | None
    starts: int


@dataclass(frozen=True)
class Panel:
    """One objective against the shared metric.

    Attributes:
        column: the objective.
        direction: "min" or "max".
        points: measured trials with finite values, by x.
        staircase: (x, y) corners of the attainment line: y is the best value reachable at x or better. From one corner
            the line keeps its y up to the next corner's x. Over feasible trials only.
        dense: the dense start, None where none was recorded.
    """

    column: Column
    direction: str
    points: tuple[Point, ...]
    staircase: tuple[tuple[float, float], ...]
    dense: Baseline | None


@dataclass(frozen=True)
class FrontData:
    """All that the figure says.

    Attributes:
        title: the study's name, "" where the table has none.
        x: the metric that all panels share.
        x_direction: "min" or "max"; "min" for trial numbers, where the line is the best so far.
        panels: one for each other objective.
        trials: measured trials.
        front: how many of them are on the front.
        images: n of the accuracies, None where it was not recorded or differs between trials.
    """

    title: str
    x: Column
    x_direction: str
    panels: tuple[Panel, ...]
    trials: int
    front: int
    images: int | None


def front_data(
    trials: pd.DataFrame,
    objectives: Mapping[str, str],
    constraints: Mapping[str, BoundSpec] | None = None,
    *,
    columns: Sequence[Column] = ATMC_COLUMNS,
) -> FrontData:
    """What there is to see of a study's front.

    The shared metric is the first minimised objective, or the first one if all are maximised; a single objective is
    shown against the number of the trial. Trials that failed or are still running are left out.

    Args:
        trials: one row a trial (`RunFolder.read_trials`); `attrs["name"]` becomes the title.
        objectives: metric to "min" or "max", at least one.
        constraints: bounds that a trial must keep to count.
        columns: where the metrics are declared; others are drawn as plain numbers.

    Raises:
        RunError: an objective is no column.
    """
    assert objectives, "a study has at least one objective"
    if len(objectives) == 1:
        x_name, x_direction = "trial", "min"
    else:
        x_name = next((name for name, direction in objectives.items() if direction == "min"), next(iter(objectives)))
        x_direction = objectives[x_name]
    front = front_of(trials, objectives, constraints)
    measured = trials if trials.empty else trials[trials["state"].isin(MEASURED)]
    within = feasible(measured, constraints or {})
    on_front = measured["trial"].isin(front["trial"]).to_numpy(dtype=bool) if len(measured) else within
    standings: list[Standing] = [
        "front" if best else "dominated" if good else "infeasible" for best, good in zip(on_front, within, strict=True)
    ]
    # A trial that lacks one objective is on no front, so it must not lift the line of another.
    counts = within & (np.isfinite(minimised(measured, objectives)).all(axis=1) if len(measured) else within)
    x = _numbers(measured, x_name)
    panels = []
    for name, direction in objectives.items():
        if name == x_name:
            continue
        staircase = _staircase(x[counts], _numbers(measured, name)[counts], x_direction, direction)
        panels.append(
            Panel(
                column=column_named(name, (*columns, *STUDY_COLUMNS)),
                direction=direction,
                points=_points(measured, x, name, standings, staircase),
                staircase=staircase,
                dense=_baseline(measured, x_name, name, direction),
            )
        )
    images = _numbers(measured, "validation_images")
    distinct = {int(n) for n in images[np.isfinite(images)]}
    return FrontData(
        title=str(trials.attrs.get("name", "")),
        x=column_named(x_name, (*columns, *STUDY_COLUMNS)),
        x_direction=x_direction,
        panels=tuple(panels),
        trials=len(measured),
        front=len(front),
        images=distinct.pop() if len(distinct) == 1 else None,
    )


def _numbers(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    return frame[name].to_numpy(dtype=float, na_value=np.nan)


def _points(
    trials: pd.DataFrame,
    x: NDArray[np.float64],
    name: str,
    standings: Sequence[Standing],
    staircase: Sequence[tuple[float, float]],
) -> tuple[Point, ...]:
    y, low, high = (_numbers(trials, name + end) for end in ("", "_low", "_high"))
    corners = set(staircase)
    points = [
        Point(
            trial=int(trial),
            x=float(x[i]),
            y=float(y[i]),
            low=_or_none(low[i]),
            high=_or_none(high[i]),
            standing=standings[i],
            on_line=standings[i] != "infeasible" and (x[i], y[i]) in corners,
        )
        for i, trial in enumerate(trials["trial"] if len(trials) else ())
        if math.isfinite(x[i]) and math.isfinite(y[i])
    ]
    return tuple(sorted(points, key=lambda point: (point.x, point.trial)))


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _staircase(
    x: NDArray[np.float64], y: NDArray[np.float64], x_direction: str, y_direction: str
) -> tuple[tuple[float, float], ...]:
    x_cost = x if x_direction == "min" else -x
    y_cost = y if y_direction == "min" else -y
    corners: list[tuple[float, float]] = []
    best = math.inf
    for i in np.lexsort((y_cost, x_cost)):
        if y_cost[i] < best:
            best = y_cost[i]
            corners.append((float(x[i]), float(y[i])))
    return tuple(corners)


def _baseline(trials: pd.DataFrame, x_name: str, name: str, direction: str) -> Baseline | None:
    y = _numbers(trials, f"dense_{name}")
    if not np.isfinite(y).any():
        return None
    best = int(np.nanargmin(y) if direction == "min" else np.nanargmax(y))
    x = _numbers(trials, f"dense_{x_name}")[best]
    return Baseline(y=float(y[best]), x=_or_none(x), starts=len(np.unique(y[np.isfinite(y)])))


# Okabe and Ito's palette, told apart by colour-blind eyes (jfly.uni-koeln.de/color); front and dense also differ in
# lightness and in dash, so that the figure survives a grey printer.
_FRONT = "#0072B2"
_DENSE = "#C2500A"
_OTHER = "#B4B8BD"
_TEXT = "#1F2328"
_QUIET = "#59636E"
_GRID = "#E9EBEE"

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 10,
    "text.color": _TEXT,
    "axes.edgecolor": _OTHER,
    "axes.labelcolor": _TEXT,
    "axes.unicode_minus": True,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "svg.hashsalt": "atmc-search",  # the same data give the same file
    "figure.dpi": 100,
}
_MOST_LABELS = 12


def draw_front(data: FrontData, path: Path) -> None:
    """Draws the figure and writes it whole or not at all.

    Args:
        data: from `front_data`.
        path: ends in .png (at 200 dots an inch) or .svg; its folder must exist.

    Raises:
        AtmcError: another suffix, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in (".png", ".svg"):
        raise AtmcError(f"{path}: {path.suffix or 'no suffix'!r} is no format of figures; end the name in .png or .svg")
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure = _figure(data)
        figure.savefig(buffer, format=suffix[1:], dpi=200, metadata={"Date": None} if suffix == ".svg" else None)
    try:
        write_atomic(path, buffer.getvalue())
    except OSError as error:
        raise AtmcError(f"{path}: cannot be written ({error.strerror}); give a path in a folder that exists") from None


def _figure(data: FrontData) -> Figure:
    # The layout is in inches, by hand: headings, panels and legend each have their own strip and cannot meet. Tried
    # and lost: constrained layout, which gives a title only one style and centres it.
    n = len(data.panels)
    across = n if n <= 3 else 2
    down = math.ceil(n / across)
    left, right, between = 0.75, 0.3, 0.8
    top, bottom, panel_top, panel_bottom = 0.85, (0.4 if n > 1 else 0.75), 0.62, 0.62
    panel_width, panel_height = (5.0 if n > 1 else 6.8), 3.3
    width = left + across * panel_width + (across - 1) * between + right
    height = top + down * (panel_top + panel_height + panel_bottom) + bottom
    figure = Figure(figsize=(width, height), facecolor="white")

    def text(x: float, y: float, words: str, size: float, color: str = _TEXT, weight: str = "normal") -> None:
        figure.text(x / width, y / height, words, size=size, color=color, weight=weight, va="baseline")

    text(0.25, height - 0.42, _heading(data), 14, weight="bold")
    text(0.25, height - 0.71, _subheading(data), 10, _QUIET)
    x_limits = _limits([p.x for panel in data.panels for p in panel.points], log=data.x.log)
    legend: dict[str, Artist] = {}
    for i, panel in enumerate(data.panels):
        row, column = divmod(i, across)
        x0 = left + column * (panel_width + between)
        y0 = height - top - (row + 1) * (panel_top + panel_height) - row * panel_bottom
        axes = figure.add_axes((x0 / width, y0 / height, panel_width / width, panel_height / height))
        text(x0, y0 + panel_height + 0.34, _capital(label(panel.column)), 12, weight="bold")
        text(x0, y0 + panel_height + 0.13, _fitting(panel.column.meaning, panel_width), 9, _QUIET)
        legend |= _draw_panel(axes, panel, data, x_limits)
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
    if any(point.low is not None for panel in data.panels for point in panel.points):
        images = f", n = {data.images:,} images" if data.images is not None else ""
        parts.append(f"bars: 95 % intervals (Wilson{images})")
    return " · ".join(parts)


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _fitting(words: str, inches: float) -> str:
    # At 9 points a letter of DejaVu Sans is 0.075 inches wide on average.
    most = int(inches / 0.075)
    return _capital(words if len(words) <= most else words[: most - 1].rstrip() + "…")


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
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)
    legend: dict[str, Artist] = {}
    by_standing = {
        standing: [point for point in panel.points if point.standing == standing]
        for standing in ("front", "dominated", "infeasible")
    }
    ends = [end for p in by_standing["front"] for end in (p.low, p.high) if end is not None]
    dense = [panel.dense.y] if panel.dense else []
    y_low, y_high = _limits([*(p.y for p in panel.points), *ends, *dense], log=panel.column.log)
    if panel.column.unit == "share":
        y_low, y_high = max(y_low, -0.01), min(y_high, 1.02)
    _scale(axes, "x", data.x, x_limits, ticks=7)
    _scale(axes, "y", panel.column, (y_low, y_high), ticks=6)
    axes.set_xlabel(_capital(label(data.x)) + (" (log scale)" if data.x.log else ""), labelpad=7)

    front = by_standing["front"]
    if panel.staircase:
        # On to the edge: a larger budget reaches at least what the last corner does.
        edge = x_limits[1] if data.x_direction == "min" else x_limits[0]
        x, y = zip(*panel.staircase, (edge, panel.staircase[-1][1]), strict=True)
        floor = y_low if panel.direction == "max" else y_high
        axes.fill_between(*_steps(x, y), floor, color=_FRONT, alpha=0.06, linewidth=0, zorder=1)
        (line,) = axes.plot(*_steps(x, y), color=_FRONT, linewidth=1.5, alpha=0.55, zorder=3)
        legend[_line_name(data)] = line
    if front:
        shown = [p for p in front if p.low is not None and p.high is not None]
        axes.vlines(
            [p.x for p in shown],
            [p.low for p in shown if p.low is not None],
            [p.high for p in shown if p.high is not None],
            color=_FRONT,
            linewidth=1.3,
            alpha=0.85,
            zorder=4,
        )
    kinds = {
        "on the front": ([p for p in front if p.on_line], _FRONT),
        "on the front, for another objective": ([p for p in front if not p.on_line], "white"),
    }
    for kind, (points, fill) in kinds.items():
        if points:
            legend[kind] = axes.scatter(
                [p.x for p in points],
                [p.y for p in points],
                s=32,
                color=fill,
                edgecolor=_FRONT,
                linewidth=1.3,
                zorder=6,
            )
    if points := by_standing["dominated"]:
        legend["dominated"] = axes.scatter(
            [p.x for p in points], [p.y for p in points], s=22, color=_OTHER, alpha=0.85, linewidth=0, zorder=2
        )
    if points := by_standing["infeasible"]:
        legend["outside the constraints"] = axes.scatter(
            [p.x for p in points], [p.y for p in points], s=20, marker="x", color=_OTHER, linewidth=1.1, zorder=2
        )
    taken = _obstacles(axes, panel)
    if panel.dense:
        legend["dense start"] = axes.axhline(
            panel.dense.y, color=_DENSE, linewidth=1.4, linestyle=(0, (5, 3)), zorder=2.5
        )
        _draw_dense_words(axes, panel, panel.dense, data, taken)
    if not panel.points:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no trial measured yet", transform=axes.transAxes, ha="center", color=_QUIET, size=11)
    if len(front) <= _MOST_LABELS:
        for point in front:
            _draw_number(axes, point, taken)
    return legend


def _line_name(data: FrontData) -> str:
    if data.x.name == "trial":
        return "best so far"
    kept = "within" if data.x_direction == "min" else "beyond"
    return f"best {kept} a given {label(data.x)}"


def _draw_dense_words(axes: Axes, panel: Panel, dense: Baseline, data: FrontData, taken: list[Bbox]) -> None:
    """Writes what the dashed line is, at an end of it, above or below; `taken` grows by the place."""
    words = f"dense start: {value_text(dense.y, panel.column)}"
    if dense.x is not None:
        words += f" ({label(data.x)} {value_text(dense.x, data.x)})"
    if dense.starts > 1:
        words += f", best of {dense.starts}"
    notes = [
        axes.annotate(
            words,
            (x, dense.y),
            xycoords=axes.get_yaxis_transform(),
            xytext=(0, rise),
            textcoords="offset points",
            ha="left" if x < 0.5 else "right",
            size=9.5,
            color=_DENSE,
            zorder=7,
        )
        for rise in (4, -12)
        for x in (0.012, 0.988)
    ]
    _keep_one(axes, notes, taken, otherwise=notes[0])
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
        axis.set_major_locator(FixedLocator(_log_ticks(*limits, most=ticks)))
    else:
        axis.set_major_locator(MaxNLocator(ticks, integer=column.kind == "int64", steps=[1, 2, 2.5, 5, 10]))
    if column.unit == "share":
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    else:
        axis.set_major_formatter(FuncFormatter(lambda value, _: value_text(value, column)))


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between low and high: 1 2 5 10 as a rule, denser or sparser ones if these are too few or many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for digits in ((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 4, 6, 8), (1, 2, 5), (1, 3), (1,)):
        ticks = [d * 10.0**e for e in decades for d in digits if low <= d * 10.0**e <= high]
        if len(ticks) <= most:
            break
    if len(ticks) >= 2:
        return ticks[:: math.ceil(len(ticks) / most)]
    return [float(tick) for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]


# Where a number may stand, in points from its marker: above the line first.
_PLACES = ((-5, 5, "right"), (5, -12, "left"), (5, 5, "left"), (-5, -12, "right"), (7, -4, "left"), (-7, -4, "right"))


def _draw_number(axes: Axes, point: Point, taken: list[Bbox]) -> None:
    """Writes a front point's trial number beside it, or nothing where every place would cover something."""
    notes = [
        axes.annotate(
            str(point.trial),
            (point.x, point.y),
            xytext=(right, up),
            textcoords="offset points",
            ha=side,
            size=9,
            color=_FRONT,
            zorder=7,
        )
        for right, up, side in _PLACES
    ]
    _keep_one(axes, notes, taken, otherwise=None)


def _keep_one(axes: Axes, notes: Sequence[Annotation], taken: list[Bbox], *, otherwise: Annotation | None) -> None:
    """Keeps the first note that lies inside the panel and covers nothing taken, and takes its place too."""
    frame = axes.get_window_extent()
    kept = otherwise
    for note in notes:
        box = note.get_window_extent()
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        if inside and not any(box.overlaps(other) for other in taken):
            kept = note
            break
    for note in notes:
        if note is not kept:
            note.remove()
    if kept:
        taken.append(kept.get_window_extent().padded(2))


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
