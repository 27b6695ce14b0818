from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import matplotlib.image
import pandas as pd
import pytest

from atmc_search.errors import AtmcError, RunError
from atmc_search.report import Baseline, FrontData, Panel, draw_front, front_data
from atmc_search.results import front_of
from atmc_search.spec import BoundSpec

OBJECTIVES = {"size_bytes": "min", "clean_accuracy": "max", "robust_accuracy": "max"}


def frame(*rows: tuple[float, float, float], **columns: object) -> pd.DataFrame:
    """Complete trials 0, 1, ... with these sizes, clean and robust accuracies."""
    table = pd.DataFrame(rows, columns=["size_bytes", "clean_accuracy", "robust_accuracy"])
    table.insert(0, "trial", range(len(rows)))
    table.insert(1, "state", "complete")
    return table.assign(**columns)


def panel(data: FrontData, name: str) -> Panel:
    return next(panel for panel in data.panels if panel.column.name == name)


def standings(data: FrontData, name: str = "clean_accuracy") -> dict[int, str]:
    return {point.trial: point.standing for point in panel(data, name).points}


BY_HAND = frame(
    (4000, 0.80, 0.50),
    (1000, 0.60, 0.45),
    (2000, 0.60, 0.30),  # dominated by trial 1
    (3000, 0.70, 0.40),  # on the front for clean accuracy only
    (4000, 0.80, 0.55),  # dominates trial 0
)


def test_the_first_minimised_objective_is_shared_and_each_other_has_a_panel() -> None:
    data = front_data(BY_HAND, {"clean_accuracy": "max", "size_bytes": "min", "robust_accuracy": "max"})
    assert (data.x.name, data.x_direction, data.x.log) == ("size_bytes", "min", True)
    assert [panel.column.name for panel in data.panels] == ["clean_accuracy", "robust_accuracy"]


def test_the_staircase_is_the_best_reachable_within_a_size() -> None:
    data = front_data(BY_HAND, OBJECTIVES)
    assert panel(data, "clean_accuracy").staircase == ((1000, 0.60), (3000, 0.70), (4000, 0.80))
    assert panel(data, "robust_accuracy").staircase == ((1000, 0.45), (4000, 0.55))


def test_dominated_trials_are_shown_but_not_on_the_front() -> None:
    data = front_data(BY_HAND, OBJECTIVES)
    assert standings(data) == {0: "dominated", 1: "front", 2: "dominated", 3: "front", 4: "front"}
    assert (data.trials, data.front) == (5, 3)


def test_a_front_trial_can_lie_below_the_line_of_one_panel() -> None:
    data = front_data(BY_HAND, OBJECTIVES)
    on_line = {name: {p.trial for p in panel(data, name).points if p.on_line} for name in list(OBJECTIVES)[1:]}
    assert 3 in on_line["clean_accuracy"]
    assert 3 not in on_line["robust_accuracy"]


def test_trials_outside_the_constraints_are_marked_and_do_not_lift_the_line() -> None:
    data = front_data(BY_HAND, OBJECTIVES, {"size_bytes": BoundSpec(max=3500)})
    assert standings(data) == {0: "infeasible", 1: "front", 2: "dominated", 3: "front", 4: "infeasible"}
    assert panel(data, "clean_accuracy").staircase == ((1000, 0.60), (3000, 0.70))
    assert not any(p.on_line for p in panel(data, "clean_accuracy").points if p.standing == "infeasible")


@pytest.mark.parametrize(
    ("state", "shown"),
    [("complete", True), ("stopped", True), ("running", False), ("failed", False), ("interrupted", False)],
)
def test_only_measured_trials_are_shown(state: str, shown: bool) -> None:
    trials = BY_HAND.assign(state=["complete"] * 4 + [state])
    data = front_data(trials, OBJECTIVES)
    assert (4 in standings(data)) == shown
    assert (panel(data, "robust_accuracy").staircase[-1] == (4000, 0.55)) == shown


def test_a_trial_that_lacks_an_objective_is_on_no_line() -> None:
    data = front_data(frame((1000, 0.6, 0.4), (900, 0.9, float("nan"))), OBJECTIVES)
    assert panel(data, "clean_accuracy").staircase == ((1000, 0.6),)
    assert standings(data) == {0: "front", 1: "dominated"}
    assert set(standings(data, "robust_accuracy")) == {0}


def test_intervals_are_taken_where_they_were_recorded() -> None:
    data = front_data(frame((1000, 0.6, 0.4), clean_accuracy_low=0.55, clean_accuracy_high=0.65), OBJECTIVES)
    (clean,), (robust,) = (panel.points for panel in data.panels)
    assert (clean.low, clean.high) == (0.55, 0.65)
    assert (robust.low, robust.high) == (None, None)


def test_the_dense_start_is_the_baseline() -> None:
    trials = BY_HAND.assign(dense_size_bytes=100_000, dense_clean_accuracy=0.9)
    data = front_data(trials, OBJECTIVES)
    assert panel(data, "clean_accuracy").dense == Baseline(y=0.9, x=100_000, starts=1)
    assert panel(data, "robust_accuracy").dense is None


def test_of_several_dense_starts_the_best_is_the_baseline() -> None:
    trials = BY_HAND.assign(dense_size_bytes=[7, 8, 8, 8, 8], dense_clean_accuracy=[0.9, 0.7, 0.7, 0.7, 0.8])
    assert panel(front_data(trials, OBJECTIVES), "clean_accuracy").dense == Baseline(y=0.9, x=7, starts=3)


def test_title_and_images_come_from_the_table(trials: pd.DataFrame) -> None:
    data = front_data(trials, OBJECTIVES)
    assert (data.title, data.images) == ("fashion-lenet", 5000)
    assert front_data(BY_HAND, OBJECTIVES).images is None
    assert front_data(BY_HAND.assign(validation_images=[1, 1, 1, 1, 2]), OBJECTIVES).images is None


def test_a_single_objective_is_shown_by_trial_with_the_best_so_far() -> None:
    data = front_data(frame((1000, 0.6, 0), (1000, 0.5, 0), (1000, 0.7, 0)), {"clean_accuracy": "max"})
    assert data.x.name == "trial"
    assert panel(data, "clean_accuracy").staircase == ((0, 0.6), (2, 0.7))
    small = front_data(BY_HAND, {"size_bytes": "min"})
    assert panel(small, "size_bytes").staircase == ((0, 4000), (1, 1000))


def test_maximised_objectives_are_shown_against_the_first_from_its_best_end() -> None:
    data = front_data(BY_HAND, {"robust_accuracy": "max", "clean_accuracy": "max"})
    assert (data.x.name, data.x_direction) == ("robust_accuracy", "max")
    assert panel(data, "clean_accuracy").staircase == ((0.55, 0.80),)


def test_the_line_passes_over_the_front_of_a_real_study(trials: pd.DataFrame) -> None:
    front = front_of(trials, OBJECTIVES)
    for metric in ("clean_accuracy", "robust_accuracy"):
        for x, y in panel(front_data(trials, OBJECTIVES), metric).staircase:
            assert front.loc[front["size_bytes"] <= x, metric].max() == y


def test_an_unknown_objective_is_named() -> None:
    with pytest.raises(RunError, match="clean_acuracy"):
        front_data(BY_HAND, {"size_bytes": "min", "clean_acuracy": "max"})


def test_a_study_without_reports_has_empty_panels() -> None:
    data = front_data(pd.DataFrame(), OBJECTIVES)
    assert [panel.points for panel in data.panels] == [(), ()]


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
def test_a_path_that_cannot_be_drawn_to_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(AtmcError, match="front") as caught:
        draw_front(front_data(BY_HAND, OBJECTIVES), tmp_path / name)
    assert "\n" not in str(caught.value)
