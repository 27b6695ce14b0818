"""The look and the tools that the figures share: what differs between two figures of one product is what they say.

To change the look of all figures, change it here; what only one figure needs stays in its own file.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from atmc_search.errors import AtmcError
from atmc_search.results import write_atomic

# Okabe and Ito's palette, told apart by colour-blind eyes (jfly.uni-koeln.de/color); front and dense also differ in
# lightness and in dash, so that the figure survives a grey printer.
FRONT = "#0072B2"
DENSE = "#C2500A"
OTHER = "#B4B8BD"
TEXT = "#1F2328"
QUIET = "#59636E"
GRID = "#E9EBEE"

_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 10,
    "text.color": TEXT,
    "axes.edgecolor": OTHER,
    "axes.labelcolor": TEXT,
    "axes.unicode_minus": True,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "text.parse_math": False,  # a name with two dollars is a name
    "svg.hashsalt": "atmc-search",  # the same data give the same file
    "figure.dpi": 100,
}


def write_figure(draw: Callable[[], Figure], path: Path) -> None:
    """Draws a figure in the common look and writes it whole or not at all.

    Args:
        draw: makes the figure; called once, with the look's settings in force.
        path: ends in .png (at 200 dots an inch) or .svg; its folder must exist.

    Raises:
        AtmcError: another suffix, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in (".png", ".svg"):
        raise AtmcError(f"{path}: {path.suffix or 'no suffix'!r} is no format of figures; end the name in .png or .svg")
    if path.is_dir():
        raise AtmcError(f"{path}: cannot be written (it is a folder); give a path in a folder that exists")
    buffer = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        draw().savefig(buffer, format=suffix[1:], dpi=200, metadata={"Date": None} if suffix == ".svg" else None)
    try:
        write_atomic(path, buffer.getvalue())
    except OSError as error:
        raise AtmcError(f"{path}: cannot be written ({error.strerror}); give a path in a folder that exists") from None


def draw_frame(axes: Axes) -> None:
    """Gives a panel its two axes, without ticks, and a grid behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)


def log_ticks(low: float, high: float, most: int) -> list[float]:
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


def keep_one(axes: Axes, notes: Sequence[Annotation], taken: list[Bbox], *, otherwise: Annotation | None) -> None:
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
