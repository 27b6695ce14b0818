"""The figure of an ablation: what each arm gains over the reference at equal bytes, one line an arm and point."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atmc_search.report.figures.style import DENSE, FRONT, QUIET, draw_frame, write_figure
from comparing.plan import Comparison
from comparing.tables import label, summary

_WIDEST = 12.0  # percentage points: what gains or loses more is an arrow with its figure


def draw_gains(comparison: Comparison, trials: pd.DataFrame, accuracies: Sequence[tuple[str, str]], path: Path) -> None:
    """Draws a panel for every accuracy (column, label) of `gains`: mean and 95 % interval of each arm and point."""
    write_figure(lambda: _figure(comparison, trials, accuracies), path)


def _figure(comparison: Comparison, trials: pd.DataFrame, accuracies: Sequence[tuple[str, str]]) -> Figure:
    means = summary(trials, ["size_bytes", *(f"gain_{name}" for name, _ in accuracies)])
    means = means[means["arm"] != comparison.reference].reset_index(drop=True)
    figure = Figure(figsize=(1.6 + 3.9 * len(accuracies), 1.1 + 0.27 * len(means)), facecolor="white")
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, len(accuracies), squeeze=False, sharey=True)[0]
    names = [
        row["arm"] + ("" if not (said := label(comparison, row)) else f" ({said})") for row in means.to_dict("records")
    ]
    for axes, (name, text) in zip(panels, accuracies, strict=True):
        gain, half = (100 * means[f"gain_{name}{end}"].to_numpy(float) for end in ("", "_half"))
        _rows(axes, gain, np.nan_to_num(half))
        axes.set_title(text, loc="left", size=10.5)
        axes.set_xlabel("gain at equal bytes, percentage points", color=QUIET)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    n = trials["seed"].nunique()
    figure.suptitle(
        f"Against {comparison.reference}; means over {n} seeds, bars: Student's 95 % intervals",
        x=0.01,
        ha="left",
        size=9,
        color=QUIET,
    )
    return figure


def _rows(axes: Axes, gain: np.ndarray, half: np.ndarray) -> None:
    draw_frame(axes)
    axes.axvline(0, color=QUIET, linewidth=1)
    within = np.abs(gain) <= _WIDEST
    sure = within & (np.abs(gain) > half)  # the interval is on one side of 0
    for chosen, color, fill in ((sure & (gain > 0), FRONT, FRONT), (sure & (gain < 0), DENSE, DENSE)):
        _dots(axes, gain, half, chosen, color, fill)
    _dots(axes, gain, half, within & ~sure, QUIET, "white")
    for row in np.flatnonzero(~within & np.isfinite(gain)):
        side = np.sign(gain[row])
        color = QUIET if half[row] >= abs(gain[row]) else DENSE if side < 0 else FRONT
        axes.plot(side * _WIDEST, row, marker="<" if side < 0 else ">", color=color)
        _word(axes, f"{gain[row]:+.0f} ± {half[row]:.0f}", side * _WIDEST, row, "left" if side < 0 else "right")
    for row in np.flatnonzero(np.isnan(gain)):
        _word(axes, "other sizes", 0, row, "left")
    axes.set_xlim(-1.06 * _WIDEST, 1.06 * _WIDEST)


def _word(axes: Axes, text: str, x: float, row: int, align: Literal["left", "right"]) -> None:
    inwards = 8 if align == "left" else -8
    axes.annotate(
        text,
        (x, row),
        xytext=(inwards, 0),
        textcoords="offset points",
        ha=align,
        va="center",
        size=8.5,
        color=QUIET,
    )


def _dots(axes: Axes, gain: np.ndarray, half: np.ndarray, chosen: np.ndarray, color: str, fill: str) -> None:
    rows = np.flatnonzero(chosen)
    axes.errorbar(
        gain[rows],
        rows,
        xerr=half[rows],
        color=color,
        markerfacecolor=fill,
        linestyle="none",
        marker="o",
        markersize=5,
        elinewidth=1,
    )
