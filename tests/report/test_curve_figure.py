"""Robustness curves as a figure: the data by hand, the drawing in every shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import matplotlib.image
import pytest

from atmc_search.errors import AtmcError
from atmc_search.measure import wilson_interval
from atmc_search.report import CurveData, curve_data
from atmc_search.report.curves import CurvePoint
from atmc_search.report.figures import draw_curves

EPS = (0, 0.05, 0.1, 0.2, 0.4)
STEPS = (1, 2, 5, 10, 20, 50)


def row(trial: int, size: int, *, eps: tuple[float, ...] = EPS, steps: tuple[int, ...] = STEPS, **other: Any) -> Any:
    """What re-measuring gives for one trial, made up: the larger the model, the more robust."""

    def point(name: str, at: float, share: float) -> dict[str, Any]:
        correct = round(200 * max(0.0, min(1.0, share)))
        return {name: at, "robust_accuracy": correct / 200, "robust_interval": wilson_interval(correct, 200)}

    skill = size / (size + 1500)
    return {
        "trial": trial,
        "size_bytes": size,
        "norm": "linf",
        "eps": 0.1,
        "images": 200,
        "attack": {"name": "pgd", "steps": 20},
        "by_eps": [point("eps", e, skill + 0.2 - 4 * e) for e in eps],
        "by_steps": [point("steps", k, skill - 0.2 + 0.1 / k) for k in steps],
        **other,
    }


ROWS = [row(3, 5000), row(7, 1200), row(5, 20_000)]


def data(*rows: Any) -> CurveData:
    return curve_data(rows, title="digits", split="test")


def test_one_panel_for_each_setting_with_the_study_s_own_value_marked() -> None:
    found = data(*ROWS)
    assert [(panel.over, panel.mark) for panel in found.panels] == [("eps", 0.1), ("steps", 20)]
    assert (found.title, found.norm, found.attack, found.images) == ("digits", "linf", "pgd", "200 test images")


def test_curves_go_by_size_and_points_by_radius() -> None:
    panel = data(*ROWS, row(1, 900, eps=(0.4, 0, 0.1))).panels[0]
    assert [(curve.trial, curve.size_bytes) for curve in panel.curves] == [(1, 900), (7, 1200), (3, 5000), (5, 20_000)]
    assert [point.x for point in panel.curves[0].points] == [0, 0.1, 0.4]


def test_points_have_their_intervals() -> None:
    point = data(row(0, 1500, eps=(0.1,))).panels[0].curves[0].points[0]
    assert point == CurvePoint(0.1, 0.3, *wilson_interval(60, 200))


@pytest.mark.parametrize(("eps", "steps", "over"), [((), STEPS, ["steps"]), (EPS, (), ["eps"]), ((), (), [])])
def test_what_was_not_measured_has_no_panel(eps: Any, steps: Any, over: list[str]) -> None:
    assert [panel.over for panel in data(row(0, 1500, eps=eps, steps=steps)).panels] == over


def test_what_differs_between_trials_is_not_said() -> None:
    other = row(9, 700, norm="l2", eps_=0, attack={"name": "apgd_ce"}, images=100) | {"eps": 0.5}
    found = data(*ROWS, other)
    assert (found.norm, found.attack, found.images) == (None, None, "test images")
    assert [panel.mark for panel in found.panels] == [None, None]


def test_no_trials_no_panels() -> None:
    assert data().panels == ()


def test_png_is_wide_and_not_blank(tmp_path: Path) -> None:
    draw_curves(data(*ROWS), tmp_path / "curves.png")
    height, width, _ = matplotlib.image.imread(tmp_path / "curves.png").shape
    assert width > 2000
    assert 1.5 < width / height < 3
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_svg_is_xml_the_same_every_time_and_names_each_size(tmp_path: Path) -> None:
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # letters as letters, not as shapes
        for name in ("a.svg", "b.svg"):
            draw_curves(data(*ROWS), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    words = ["".join(text.itertext()) for text in ElementTree.parse(tmp_path / "a.svg").iter() if "text" in text.tag]
    for size in ("1.2 kB", "5 kB", "20 kB"):
        assert words.count(size) == 2  # in each panel
    assert "the study's own: 0.1" in words
    assert "the attack's own: 20" in words


@pytest.mark.parametrize(
    "rows",
    [
        [],
        ROWS[:1],
        [row(0, 1500, eps=(0.1,), steps=(7,))],
        [row(0, 1500, eps=(0,), steps=())],
        [row(0, 1500, eps=(), steps=tuple(range(1, 40)))],
        [row(i, 1500) for i in range(6)],  # all alike
        [row(0, 1500, norm="l2"), row(1, 2500, norm="linf")],
        [row(0, 1500, eps=(0.0, 0.1)), row(1, 2500, eps=(0.2,), steps=(100,))],
    ],
    ids=["none", "one", "one point", "clean only", "steps only", "alike", "norms", "ranges"],
)
def test_every_shape_of_curves_can_be_drawn(rows: list[Any], tmp_path: Path) -> None:
    draw_curves(data(*rows), tmp_path / "curves.png")
    assert matplotlib.image.imread(tmp_path / "curves.png").min() < 0.5


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    draw_curves(data(*ROWS), tmp_path / "curves.png")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["curves.gif", "curves", "missing/curves.png"])
def test_a_path_that_cannot_be_drawn_to_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(AtmcError, match="curves") as caught:
        draw_curves(data(*ROWS), tmp_path / name)
    assert "\n" not in str(caught.value)
