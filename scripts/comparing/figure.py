"""The figure of a comparison: bytes against clean and robust accuracy, and the paper's own size beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from atmc_search.report.figures.groups import Look, looks
from atmc_search.report.figures.style import QUIET, draw_frame, log_ticks, write_figure
from comparing.tables import summary

_DEPTH = 0.15
"""How far below the best mean a panel reaches, in accuracy."""


def draw(trials: pd.DataFrame, arms: Sequence[str], accuracies: Sequence[tuple[str, str]], path: Path) -> None:
    """Draws a panel for every accuracy (column, label) over honest bytes, and below over the paper's count."""
    write_figure(lambda: _figure(trials, arms, accuracies), path)


def _figure(trials: pd.DataFrame, arms: Sequence[str], accuracies: Sequence[tuple[str, str]]) -> Figure:
    sizes = [("size_bytes", "bytes of the file"), ("paper_bytes", "non-zeros × bits / 8, as papers count")]
    means = summary(trials, [name for name, _ in (*sizes, *accuracies)])
    figure = Figure(figsize=(4.8 * len(accuracies), 7.6), facecolor="white", layout="constrained")
    panels = figure.subplots(2, len(accuracies), squeeze=False, sharey="col")
    look = looks(arms)
    for line, (size, size_label) in zip(panels, sizes, strict=True):
        for axes, (accuracy, label) in zip(line, accuracies, strict=True):
            for arm in arms:
                own = means[means["arm"] == arm].sort_values(size)
                if own.empty:  # every trial failed
                    continue
                halves = {name: own[f"{name}_half"].fillna(0) for name in (size, accuracy)}
                mark = look[arm]
                axes.errorbar(
                    own[size],
                    own[accuracy],
                    xerr=halves[size],
                    yerr=halves[accuracy],
                    color=mark.color,
                    marker=mark.marker,
                    markersize=5,
                    linewidth=1.2,
                    elinewidth=0.8,
                    label=arm,
                )
            _cut(axes, means, look, size, accuracy)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator(log_ticks(*axes.get_xlim(), 6)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel(size_label, color=QUIET)
            axes.set_title(label, loc="left", size=10.5)
            draw_frame(axes)
    n = trials.groupby(["arm", "point"])["seed"].nunique().max()
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False, fontsize=9)
    figure.suptitle(f"Means over {n} seeds, bars: Student's 95 % intervals", x=0.01, ha="left", size=9, color=QUIET)
    return figure


def _cut(axes: Axes, means: pd.DataFrame, look: Mapping[str, Look], size: str, accuracy: str) -> None:
    """Leaves room for what is close: means far below the best stand at the lower edge, with their figures."""
    edge = means[accuracy].max() - _DEPTH
    below = means[(means[accuracy] < edge) & (means[size] > 0)]
    if below.empty:
        return
    above = means[means[accuracy] >= edge]
    axes.set_ylim(bottom=min(edge, (above[accuracy] - above[f"{accuracy}_half"].fillna(0)).min()) - 0.03)
    for row in below.to_dict("records"):
        mark = look[row["arm"]]
        place = (row[size], 0.03)
        axes.plot(*place, marker=mark.marker, color=mark.color, markersize=5, transform=axes.get_xaxis_transform())
        axes.annotate(
            f"{row[accuracy]:.2f} \N{DOWNWARDS ARROW}",
            place,
            xycoords=axes.get_xaxis_transform(),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            size=8.5,
            color=QUIET,
        )
