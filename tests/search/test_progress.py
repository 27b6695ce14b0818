"""What a person is told while a sweep runs, and the hypervolume against a value worked out by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from atmc_search.search import Prepared, prepare
from atmc_search.search import progress as progress_module
from atmc_search.search.progress import Progress, front_hypervolume
from atmc_search.search.server import StartProgress
from atmc_search.spec import StudySpec

REFERENCE = {"size_bytes": 10_000, "clean_accuracy": 0, "robust_accuracy": 0}


@pytest.fixture(scope="module")
def prepared(make_study: Callable[..., StudySpec]) -> Prepared:
    return replace(prepare(make_study(constraints={"clean_accuracy": {"min": 0.3}})), reference=REFERENCE)


def report(trial: int, state: str, size: int | None = None, clean: float = 0.5, robust: float = 0.5) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": trial, "state": state, "reason": "", "epoch": 1, "epochs": 9, "loss": 0.5}
    row |= {"trial.train.lr": 0.1, "trial.compress.keep": 0.2, "trial.compress.bits": 4}
    if size is not None:
        row |= {"size_bytes": size, "clean_accuracy": clean, "robust_accuracy": robust}
    return row


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress_module.time, "monotonic", made.monotonic)
    return made


def plain(prepared: Prepared, starts: Callable[[], Any] = list) -> tuple[Progress, StringIO]:
    file = StringIO()
    return Progress(prepared, Console(file=file, force_terminal=False, width=60), starts), file


def test_a_line_for_every_finished_trial(prepared: Prepared, clock: Clock) -> None:
    progress, file = plain(prepared)
    with progress:
        progress.report({**report(0, "running"), "epoch": 0})
        progress.report({**report(1, "running"), "epoch": 0})
        progress.report(report(0, "running", 1000))
        assert file.getvalue() == ""
        clock.now += 60
        progress.report(report(0, "complete", 1000, 0.8, 0.5))
        clock.now += 10
        progress.report({**report(1, "failed"), "reason": "diverged [bold]: lower lr"})
        clock.now += 10
        progress.report(report(2, "stopped", 100, 0.5, 0.25))
        progress.refresh()
    lines = file.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("trial 0 complete; size_bytes 1,000; clean_accuracy 0.8; robust_accuracy 0.5 | ")
    assert lines[1].startswith("trial 1 failed; diverged [bold]: lower lr | ")
    assert lines[2].startswith("trial 2 stopped; size_bytes 100; clean_accuracy 0.5; robust_accuracy 0.25 | ")
    assert "1/40 trials, front 1, hypervolume 0.400, 1:00 gone" in lines[0]
    assert "left" not in lines[0]
    # 0.4, and the box of one decade more that trial 2 adds: 0.5 x 0.25
    assert "3/40 trials, 1 stopped, 1 failed, front 2, hypervolume 0.525, 1:20 gone" in lines[2]
    # two finished in the 20 s since the first did: 37 more take 370 s
    assert lines[2].endswith("about 6:10 left")
    assert lines[1].endswith("about 6:20 left")
    assert "\x1b" not in file.getvalue()


def test_a_bound_keeps_trials_off_the_front(prepared: Prepared) -> None:
    progress, file = plain(prepared)
    progress.report(report(0, "complete", 1000, 0.2, 0.9))
    assert "front 0, hypervolume 0.000" in file.getvalue()
    assert progress.hypervolume == 0


def test_failed_trials_first_do_no_harm(prepared: Prepared) -> None:
    progress, file = plain(prepared)
    failed = {"trial": 0, "state": "failed", "reason": "its start failed: no", "epoch": 0, "epochs": 9}
    progress.report(failed)
    assert "its start failed: no" in file.getvalue()
    assert progress.hypervolume is None
    progress.report(report(1, "complete", 1000, 0.5, 1.0))
    assert progress.hypervolume == pytest.approx(0.5)


def test_earlier_trials_count_but_say_nothing(prepared: Prepared, clock: Clock) -> None:
    progress, file = plain(prepared)
    progress.earlier([report(0, "complete", 1000, 0.5, 1.0), report(1, "failed")])
    assert file.getvalue() == ""
    assert progress.hypervolume == pytest.approx(0.5)
    clock.now += 100
    progress.report(report(2, "complete", 2000, 0.1, 0.1))
    clock.now += 10
    progress.report(report(3, "complete", 2000, 0.1, 0.1))
    line = file.getvalue().splitlines()[-1]
    assert "4/40 trials" in line
    assert line.endswith("about 6:00 left")  # by this run's pace of 10 s, not by 100 s nor by trials of another run


def test_starts_in_the_making_are_said_once_an_epoch(prepared: Prepared, clock: Clock) -> None:
    making = [StartProgress("a", False, {})]
    progress, file = plain(prepared, lambda: making)
    for epoch in (0, 1, 1, 2):
        figures = {"epoch": epoch, "epochs": 24, "loss": 1.5} if epoch else {}
        making[0] = StartProgress("a", False, figures)
        clock.now += 1
        progress.refresh()
    lines = file.getvalue().splitlines()
    assert lines == [f"training the dense start: epoch {epoch}, epochs 24, loss 1.5" for epoch in (1, 2)]


def test_a_start_that_is_there_is_said_once_by_what_objectives_are_compared_with(
    prepared: Prepared, clock: Clock
) -> None:
    figures = {"dense_s": 12.5, "dense_size_bytes": 43_210, "dense_robust_accuracy": 0.75, "dense_clean_accuracy": 0.9}
    starts = [StartProgress("a", False, {"epoch": 2})]
    progress, file = plain(prepared, lambda: starts)
    for now in (
        [StartProgress("a", False, {"epoch": 2})],
        [StartProgress("a", True, {"dense_s": 12.5})],  # its figures are not there yet: nothing to compare with
        [StartProgress("a", True, {"dense_s": 12.5}), StartProgress("a-b", True, figures)],
        [StartProgress("a-b", True, figures)],
    ):
        starts[:] = now
        clock.now += 1
        progress.refresh()
    assert file.getvalue().splitlines() == [
        "training the dense start: epoch 2",
        "dense start: dense_size_bytes 43,210, dense_clean_accuracy 0.9, dense_robust_accuracy 0.75",
    ]
    progress.report(report(0, "complete", 1000))
    starts.append(StartProgress("c", True, {**figures, "dense_size_bytes": 1}))
    clock.now += 1
    progress.refresh()
    assert len(file.getvalue().splitlines()) == 3  # once there is a front, only trials are said


def test_it_refreshes_at_most_twice_a_second(prepared: Prepared, clock: Clock) -> None:
    asked = []
    progress, _ = plain(prepared, lambda: asked.append(clock.now) or [])  # type: ignore[func-returns-value]
    for _ in range(100):
        clock.now += 0.05
        progress.refresh()
    assert 8 <= len(asked) <= 10


def test_on_a_terminal_it_draws(prepared: Prepared, clock: Clock) -> None:
    file = StringIO()
    console = Console(file=file, force_terminal=True, width=100, height=40, _environ={"TERM": "xterm"})
    progress = Progress(prepared, console, lambda: [StartProgress("a", False, {"epoch": 3, "epochs": 24})])
    with progress:
        clock.now += 1
        progress.refresh()
        assert "training the dense start: epoch 3, epochs 24" in file.getvalue()
        for number in range(12):
            progress.report({**report(number, "running"), "epoch": 0})
            progress.report(report(number, "running", 1000 + number))
        progress.report({"trial": 20, "state": "running", "epoch": 2, "epochs": 9, "loss": None})
        progress.report({"trial": 21, "state": "running", "epoch": 2, "epochs": 9})
        progress.report(report(0, "complete", 1234, 0.75, 0.5))
        progress.report({**report(1, "failed"), "reason": "[/] no markup"})
        clock.now += 1
        progress.refresh()
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    assert "2/40 trials, 12 running, 1 failed, front 1" in drawn
    assert "epoch 1/9" in drawn
    assert "1,234" in drawn
    (bar, *_) = [line for line in drawn.splitlines() if "━" in line]
    assert set(bar.strip()) <= set("━╸╺")  # nothing else stands on the bar's line
    assert "trial 0 complete;" not in drawn  # lines are for where there is no terminal


def front(*rows: tuple[float, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(REFERENCE)).assign(trial=range(len(rows)), state="complete")


@pytest.mark.parametrize(
    ("rows", "volume"),
    [
        ([], 0.0),
        ([(1000, 1.0, 1.0)], 1.0),  # one decade below the reference
        ([(10, 0.5, 0.4)], 3 * 0.5 * 0.4),
        ([(10_000, 1.0, 1.0)], 0.0),
        ([(1000, 0.8, 0.5), (100, 0.5, 0.25)], 1 * 0.8 * 0.5 + 1 * 0.5 * 0.25),
        ([(1000, 0.8, 0.5), (100, 0.5, 0.6)], 1 * 0.4 + 2 * 0.5 * 0.6 - 1 * 0.5 * 0.5),
        ([(20_000, 0.9, 0.9), (1000, 0.5, 0.5)], 0.25),  # larger than the dense model: worth nothing
    ],
)
def test_hypervolume_by_hand(prepared: Prepared, rows: list[tuple[float, float, float]], volume: float) -> None:
    assert front_hypervolume(front(*rows), prepared) == pytest.approx(volume, abs=1e-12)


def test_no_hypervolume_without_a_reference(prepared: Prepared) -> None:
    assert front_hypervolume(front((1000, 1.0, 1.0)), replace(prepared, reference=None)) is None
