"""What the front's figure says, by hand; how it is drawn is in `test_front_figure`."""

from __future__ import annotations

import pandas as pd
import pytest
from tables import described

from atmc_search.errors import RunError
from atmc_search.report import Baseline, FrontData, Panel, front_data
from atmc_search.results import front_of
from atmc_search.spec import BoundSpec
from atmc_search.tasks.atmc.methods import METHODS

OBJECTIVES = {"size_bytes": "min", "clean_accuracy": "max", "robust_accuracy": "max"}


def frame(*rows: tuple[float, float, float], **columns: object) -> pd.DataFrame:
    """Complete trials 0, 1, ... with these sizes, clean and robust accuracies."""
    table = pd.DataFrame(rows, columns=["size_bytes", "clean_accuracy", "robust_accuracy"])
    table.insert(0, "trial", range(len(rows)))
    table.insert(1, "state", "complete")
    return described(table.assign(**columns))


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
    assert panel(data, "clean_accuracy").dense == Baseline(name="dense start", y=0.9, x=100_000, starts=1)
    assert panel(data, "robust_accuracy").dense is None


def test_of_several_dense_starts_the_best_is_the_baseline() -> None:
    trials = BY_HAND.assign(dense_size_bytes=[7, 8, 8, 8, 8], dense_clean_accuracy=[0.9, 0.7, 0.7, 0.7, 0.8])
    assert panel(front_data(trials, OBJECTIVES), "clean_accuracy").dense == Baseline(
        name="dense start", y=0.9, x=7, starts=3
    )


def test_title_and_samples_come_from_the_table(trials: pd.DataFrame) -> None:
    data = front_data(trials, OBJECTIVES)
    assert (data.title, data.samples) == ("fashion-lenet", "5,000 images")
    assert front_data(BY_HAND, OBJECTIVES).samples == ""
    assert front_data(BY_HAND.assign(validation_images=[1, 1, 1, 1, 2]), OBJECTIVES).samples == ""
    assert front_data(BY_HAND.assign(validation_images=[2, 2, 2, 2, 2]), OBJECTIVES).samples == "2 images"


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


def grouped(methods: list[str | None], constraints: dict[str, BoundSpec] | None = None) -> FrontData:
    return front_data(BY_HAND.assign(**{"trial.method": methods}), OBJECTIVES, constraints)


def groups(data: FrontData, name: str = "clean_accuracy") -> dict[int, str | None]:
    return {point.trial: point.group for point in panel(data, name).points}


def test_points_of_a_study_of_methods_are_told_apart_by_method() -> None:
    data = grouped(["ap", "atmc", "ap", "al0", "atmc"])
    assert data.by == "trial.method"
    for name in ("clean_accuracy", "robust_accuracy"):
        assert groups(data, name) == {0: "ap", 1: "atmc", 2: "ap", 3: "al0", 4: "atmc"}


def test_groups_go_in_the_order_of_methods_then_by_name() -> None:
    assert grouped(["atmc", "zebra", "al0", "ant", "nap"]).groups == ("nap", "al0", "atmc", "ant", "zebra")
    names = sorted(METHODS)
    every = frame(*[(1000 + i, 0.5, 0.5) for i in range(len(names))], **{"trial.method": names})
    assert front_data(every, OBJECTIVES).groups == tuple(METHODS)


def test_each_group_s_share_of_the_front_is_counted() -> None:
    data = grouped(["ap", "atmc", "ap", "al0", "atmc"])  # the front is 1, 3 and 4
    assert dict(zip(data.groups, data.group_counts, strict=True)) == {"ap": (0, 2), "al0": (1, 1), "atmc": (2, 2)}


def test_counts_heed_constraints_and_trials_that_a_panel_cannot_show() -> None:
    data = grouped(["ap", "atmc", "ap", "al0", "atmc"], {"size_bytes": BoundSpec(max=3500)})  # the front is 1 and 3
    assert dict(zip(data.groups, data.group_counts, strict=True)) == {"ap": (0, 2), "al0": (1, 1), "atmc": (1, 2)}
    lacking = frame((1000, 0.6, 0.4), (900, 0.9, float("nan")), **{"trial.method": ["ap", "atmc"]})
    data = front_data(lacking, OBJECTIVES)
    assert set(groups(data, "robust_accuracy")) == {0}
    assert dict(zip(data.groups, data.group_counts, strict=True)) == {"ap": (1, 1), "atmc": (0, 1)}


def test_counts_add_up_to_the_whole_study(trials: pd.DataFrame) -> None:
    data = front_data(trials, OBJECTIVES, by="trial.compress.factors")
    assert data.groups == ("none", "uvc")
    assert tuple(map(sum, zip(*data.group_counts, strict=True))) == (data.front, data.trials)


@pytest.mark.parametrize("columns", [{}, {"trial.method": "atmc"}, {"trial.method": None}], ids=["no", "one", "unset"])
def test_without_different_values_points_are_not_told_apart(columns: dict[str, object]) -> None:
    data = front_data(BY_HAND.assign(**columns), OBJECTIVES)
    assert (data.by, data.groups, data.group_counts) == ("", (), ())
    assert set(groups(data).values()) == {None}
    assert data == front_data(BY_HAND, OBJECTIVES)


def test_only_measured_trials_make_groups() -> None:
    trials = BY_HAND.assign(**{"trial.method": ["ap", "atmc", "ap", "al0", "nap"]})
    trials["state"] = ["complete", "stopped", "complete", "running", "failed"]
    assert front_data(trials, OBJECTIVES).groups == ("ap", "atmc")
    trials["state"] = ["complete", "failed", "complete", "running", "failed"]
    assert front_data(trials, OBJECTIVES).groups == ()


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_trials_without_a_value_are_a_group_of_their_own_and_the_last(missing: object) -> None:
    data = grouped(["zebra", "atmc", missing, "zebra", missing])  # type: ignore[list-item]
    assert data.groups == ("atmc", "zebra", "not set")
    assert groups(data)[4] == "not set"
    assert data.group_counts[-1] == (1, 2)


def test_groups_change_nothing_else() -> None:
    data, plain = grouped(["ap", "atmc", "ap", "al0", "atmc"]), front_data(BY_HAND, OBJECTIVES)
    assert [panel.staircase for panel in data.panels] == [panel.staircase for panel in plain.panels]
    assert standings(data) == standings(plain)
    assert (data.trials, data.front) == (plain.trials, plain.front)
