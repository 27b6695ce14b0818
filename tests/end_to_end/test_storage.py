"""Sweeps whose run folder fails them: a disk that fills, another driver, artifacts that are dropped."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from faults import fill, small_disk, until
from rich.console import Console

from atmc_search import front, load_trials
from atmc_search.errors import RunError
from atmc_search.results import RunFolder
from atmc_search.search import run_study
from atmc_search.spec import StudySpec

pytestmark = pytest.mark.usefixtures("ray_here")

MakeStudy = Callable[..., StudySpec]


def with_storage(spec: StudySpec, **storage: Any) -> StudySpec:
    return spec.model_copy(update={"storage": spec.storage.model_copy(update=storage)})


class While:
    """Does `action` beside the sweep, as soon as it has so many reports."""

    def __init__(self, folder: RunFolder, reports: int, action: Callable[[], Any]) -> None:
        self.answer: Any = None

        def work() -> None:
            until(lambda: folder.next_report() >= reports, 240)
            self.answer = action()

        self.thread = threading.Thread(target=work)
        self.thread.start()

    def end(self) -> Any:
        self.thread.join()
        return self.answer


def test_a_disk_that_fills_stops_the_sweep_and_room_lets_it_go_on(
    toy_study: MakeStudy, tmp_path: Path, quiet: Console
) -> None:
    spec = with_storage(toy_study(trials=5, modes="fine,slow,slow,slow,slow", epochs=2, cpu=1), patience_s=0.5)
    with small_disk(tmp_path / "disk", "4m") as disk:
        folder = RunFolder(disk / spec.name)
        filling = While(folder, 4, lambda: fill(disk))
        with pytest.raises(RunError, match=rf"{folder.path}.*: cannot be written \(No space left on device in .* same"):
            run_study(spec, runs=disk, console=quiet)
        ballast = filling.end()
        kept = folder.read_reports()
        assert len(kept) >= 4
        assert "failed" not in set(kept["state"])  # it was no trial's fault
        for path in folder.path.rglob("*.parquet"):
            pd.read_parquet(path)

        ballast.unlink()
        (tmp_path / "log.fast").touch()
        result = run_study(spec, runs=disk, console=quiet)
        assert result.trials["state"].tolist() == ["complete"] * 5
        reports = folder.read_reports()
        assert reports["report"].tolist() == list(range(len(reports)))
        assert reports.head(len(kept))["trial"].tolist() == kept["trial"].tolist()
        for trial, epochs in reports.groupby("trial")["epoch"]:
            assert epochs.tolist() == sorted(set(epochs)), trial  # no epoch twice
        assert not list(folder.path.rglob(".*"))


def test_the_second_driver_is_refused_before_it_does_anything(
    toy_study: MakeStudy, tmp_path: Path, quiet: Console
) -> None:
    spec = toy_study(trials=2)
    folder = RunFolder(tmp_path / spec.name)
    with folder.held(spec):
        before = sorted(folder.path.rglob("*"))
        with pytest.raises(RunError, match=r"is being run by process \d+ on .* since 20.*; let it finish, or stop it"):
            run_study(spec, runs=tmp_path, console=quiet)
        assert sorted(folder.path.rglob("*")) == before
    assert run_study(spec, runs=tmp_path, console=quiet).ran == 2


def test_a_driver_that_lost_its_study_stops(toy_study: MakeStudy, tmp_path: Path, quiet: Console) -> None:
    spec = with_storage(toy_study(trials=4, modes="fine,slow,slow,slow", epochs=9, cpu=1), lease_s=1)
    folder = RunFolder(tmp_path / spec.name)

    def take() -> int:
        """What another host does once the lease is over."""
        lock = max((folder.path / "lock").glob("0*.json"))
        successor = {**json.loads(lock.read_text()), "host": "another", "token": "another"}
        (lock.parent / f"{int(lock.stem) + 1:08d}.json").write_text(json.dumps(successor))
        time.sleep(1)
        return folder.next_report()

    taking = While(folder, 4, take)
    with pytest.raises(RunError, match=r"is being run by process \d+ on another .*this driver lost the study"):
        run_study(spec, runs=tmp_path, console=quiet)
    assert taking.end() == folder.next_report()  # nothing was written since, not even that trials were interrupted


def test_artifacts_that_no_front_needs_are_removed(toy_study: MakeStudy, tmp_path: Path, quiet: Console) -> None:
    everything = run_study(toy_study(trials=8), runs=tmp_path / "all", console=quiet)
    assert everything.folder.freed.files == 0
    spec = with_storage(toy_study(trials=8), keep_artifacts="front")
    result = run_study(spec, runs=tmp_path / "front", console=quiet)
    assert result.trials["cost"].tolist() == everything.trials["cost"].tolist()
    # cost and gain are both best where lr is least: one trial is on every front
    best = int(result.trials["cost"].idxmin())
    assert [path.name for path in result.folder.artifacts.iterdir()] == [f"{best:05d}.atmc"]
    assert result.folder.freed.files == 7
    trials = load_trials(result.folder.path)
    assert trials["artifact"].notna().tolist() == [trial == best for trial in trials["trial"]]
    assert front(trials)["trial"].tolist() == [best]
