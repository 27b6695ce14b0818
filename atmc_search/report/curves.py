"""What there is to see of robustness curves: robust accuracy against the radius of the attack and against its steps.

`curve_data` decides everything that can be right or wrong; `figures.curves` only draws it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class CurvePoint:
    """Robust accuracy at one radius or number of steps, with the ends of its interval."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """One trial's curve, points by ascending x."""

    trial: int
    size_bytes: int
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class CurvePanel:
    """All trials' curves over one setting of the attack.

    Attributes:
        over: what x is: the radius, or the number of gradient steps (on a log scale).
        mark: the study's own radius, or the steps that the attack has by its settings (and over radii); None where
            trials differ, or it has none.
        curves: by ascending size.
    """

    over: Literal["eps", "steps"]
    mark: float | None
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class CurveData:
    """All that the figure says.

    Attributes:
        title: the study's name, or "".
        norm: of the perturbation, None where trials differ.
        attack: name of the attack, None where trials differ.
        images: "360 test images", say.
        panels: those over which there is something to show: eps, steps, or both.
    """

    title: str
    norm: str | None
    attack: str | None
    images: str
    panels: tuple[CurvePanel, ...]


def curve_data(rows: Sequence[Mapping[str, Any]], *, title: str, split: str) -> CurveData:
    """What there is to see of some trials' robustness curves.

    Args:
        rows: one a trial: trial, size_bytes, norm, eps, images, attack (name and settings), and by_eps and by_steps,
            lists of points {eps or steps, robust_accuracy, robust_interval}.
        title: the study's name.
        split: what the images are called.
    """
    panels = []
    overs: tuple[Literal["eps", "steps"], ...] = ("eps", "steps")
    for over in overs:
        curves = [
            Curve(
                trial=int(row["trial"]),
                size_bytes=int(row["size_bytes"]),
                points=tuple(
                    CurvePoint(float(point[over]), point["robust_accuracy"], *point["robust_interval"])
                    for point in sorted(row[f"by_{over}"], key=lambda point: float(point[over]))
                ),
            )
            for row in rows
            if row[f"by_{over}"]
        ]
        if curves:
            mark = _common(row["eps"] if over == "eps" else row["attack"].get("steps") for row in rows)
            ordered = sorted(curves, key=lambda curve: (curve.size_bytes, curve.trial))
            panels.append(CurvePanel(over, None if mark is None else float(mark), tuple(ordered)))
    images = _common(row["images"] for row in rows)
    return CurveData(
        title=title,
        norm=_common(row["norm"] for row in rows),
        attack=_common(row["attack"]["name"] for row in rows),
        images=f"{split} images" if images is None else f"{images:,} {split} images",
        panels=tuple(panels),
    )


def _common(values: Any) -> Any:
    """The value that all share, or None."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def spread(size: int, most: int = 4) -> list[int]:
    """At most `most` places, evenly over `size` ordered rows, with the first and the last."""
    return list(range(size)) if size <= most else [round(i * (size - 1) / (most - 1)) for i in range(most)]
