"""The front drawn: in every shape, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import matplotlib.image
import pandas as pd
import pytest

from atmc_search.errors import AtmcError
from atmc_search.report import front_data
from atmc_search.report.figures import draw_front
from atmc_search.spec import BoundSpec
from atmc_search.tasks.atmc.methods import METHODS

OBJECTIVES = {"size_bytes": "min", "clean_accuracy": "max", "robust_accuracy": "max"}


def with_methods(trials: pd.DataFrame, names: list[str | None]) -> pd.DataFrame:
    return trials.assign(**{"trial.method": [names[i % len(names)] for i in range(len(trials))]})


def words_of(path: Path) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.parse(path).iter() if text.tag.endswith("}text")]


def test_png_is_wide_and_not_blank(trials: pd.DataFrame, tmp_path: Path) -> None:
    draw_front(front_data(trials, OBJECTIVES, {"clean_accuracy": BoundSpec(min=0.55)}), tmp_path / "front.png")
    height, width, _ = matplotlib.image.imread(tmp_path / "front.png").shape
    assert width > 2000
    assert 1.5 < width / height < 3
    assert [path.name for path in tmp_path.iterdir()] == ["front.png"]


def test_svg_is_xml_and_the_same_every_time(trials: pd.DataFrame, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw_front(front_data(trials, OBJECTIVES), tmp_path / name)
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("rows", "objectives"),
    [
        (0, OBJECTIVES),
        (1, OBJECTIVES),
        (8, OBJECTIVES),
        (40, {"size_bytes": "min"}),
        (40, {"clean_accuracy": "max"}),
        (40, {"clean_accuracy": "max", "robust_accuracy": "max"}),
        (40, {"size_bytes": "min", "paper_bits": "min"}),
        (40, {**OBJECTIVES, "loss": "min", "epoch": "min", "elapsed_s": "min"}),
    ],
)
def test_every_shape_of_study_can_be_drawn(
    trials: pd.DataFrame, tmp_path: Path, rows: int, objectives: dict[str, str]
) -> None:
    draw_front(front_data(trials.head(rows), objectives), tmp_path / "front.png")
    assert matplotlib.image.imread(tmp_path / "front.png").min() < 0.5


def test_drawing_leaves_matplotlib_as_it_was(trials: pd.DataFrame, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    draw_front(front_data(trials, OBJECTIVES), tmp_path / "front.png")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["front.gif", "front", "missing/front.png"])
def test_a_path_that_cannot_be_drawn_to_is_one_line(trials: pd.DataFrame, tmp_path: Path, name: str) -> None:
    with pytest.raises(AtmcError, match="front") as caught:
        draw_front(front_data(trials, OBJECTIVES), tmp_path / name)
    assert "\n" not in str(caught.value)


def test_methods_are_listed_with_their_share_of_the_front(trials: pd.DataFrame, tmp_path: Path) -> None:
    data = front_data(with_methods(trials, list(METHODS)), OBJECTIVES)
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # letters as letters, not as shapes
        for name in ("a.svg", "b.svg"):
            draw_front(data, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    words = words_of(tmp_path / "a.svg")
    listed = words[words.index("front / measured") + 1 :][: 2 * len(METHODS)]
    assert listed[::2] == list(METHODS)
    assert listed[1::2] == [f"{front}/{measured}" for front, measured in data.group_counts]
    assert "Method" in words


def test_a_study_of_one_method_is_drawn_as_one_of_none(trials: pd.DataFrame, tmp_path: Path) -> None:
    draw_front(front_data(trials, OBJECTIVES), tmp_path / "none.svg")
    draw_front(front_data(with_methods(trials, ["atmc"]), OBJECTIVES), tmp_path / "one.svg")
    assert (tmp_path / "none.svg").read_bytes() == (tmp_path / "one.svg").read_bytes()


@pytest.mark.parametrize(("method", "color"), [("atmc", "#0072b2"), ("atmc_mixed", "#009e73"), ("nap", "#1f2328")])
def test_a_method_has_its_colour_whichever_others_there_are(
    trials: pd.DataFrame, tmp_path: Path, method: str, color: str
) -> None:
    for others in (["da"], ["al0", "alr"]):
        draw_front(front_data(with_methods(trials, [method, *others]), OBJECTIVES), tmp_path / "front.svg")
        # As a filled marker with an edge of its own colour: text and lines can be of nap's dark grey too.
        assert f"fill: {color}; stroke: {color}" in (tmp_path / "front.svg").read_text()
        draw_front(front_data(with_methods(trials, ["ap", *others]), OBJECTIVES), tmp_path / "front.svg")
        assert f"fill: {color}; stroke: {color}" not in (tmp_path / "front.svg").read_text()


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize(
    "names",
    [list(METHODS), ["ap", "atmc"], ["atmc", None], [f"a rather long name {i}" for i in range(30)]],
    ids=["methods", "two", "not set", "thirty"],
)
@pytest.mark.parametrize(
    "objectives",
    [OBJECTIVES, {"clean_accuracy": "max"}, {"size_bytes": "min", "loss": "min"}],
    ids=["two panels", "by trial", "no intervals"],
)
def test_every_set_of_groups_can_be_drawn(
    trials: pd.DataFrame, tmp_path: Path, names: list[str | None], objectives: dict[str, str], suffix: str
) -> None:
    data = front_data(with_methods(trials, names), objectives, {"clean_accuracy": BoundSpec(min=0.55)})
    assert len(data.groups) > 1
    draw_front(data, tmp_path / f"front.{suffix}")
    assert (tmp_path / f"front.{suffix}").stat().st_size > 10_000
