"""Sweeps whose run folder fails them: a disk that fills, another driver, artifacts that are dropped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from atmc_search.spec import StudySpec, dump_yaml

pytestmark = pytest.mark.usefixtures("ray_here")

MakeStudy = Callable[..., StudySpec]


def with_storage(spec: StudySpec, **storage: Any) -> StudySpec:
    return spec.model_copy(update={"storage": spec.storage.model_copy(update=storage)})


@contextmanager
def sweep(spec: StudySpec, folder: Path, runs: Path, reports: int) -> Iterator[subprocess.Popen[str]]:
    """The program as a user runs it, with a Ray of its own, once it has so many reports."""
    (folder / "toys.yaml").write_text(dump_yaml(spec))
    command = [sys.executable, "-m", "atmc_search", "run", "toys.yaml", "--cpus", "1", "--runs", str(runs)]
    program = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: RunFolder(runs / spec.name).next_report() >= reports or program.poll() is not None, 240)
        assert program.poll() is None, program.communicate()
        yield program
    finally:
        program.kill()
        program.wait()


def test_a_disk_that_fills_stops_the_sweep_and_room_lets_it_go_on(
    toy_study: MakeStudy, tmp_path: Path, quiet: Console
) -> None:
    spec = with_storage(toy_study(trials=4, modes="fine,slow,slow,slow", epochs=3, cpu=1), patience_s=0.5)
    with small_disk(tmp_path / "disk", "4m") as disk:
        folder = RunFolder(disk / spec.name)
        with sweep(spec, tmp_path, disk, reports=4) as program:
            ballast = fill(disk)
            _, said = program.communicate(timeout=240)
        assert program.returncode == 2, said
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert str(folder.path) in line
        assert "cannot be written (No space left on device" in line
        assert "run the same command again" in line
        kept = folder.read_reports()
        assert len(kept) >= 4
        assert "failed" not in set(kept["state"])  # it was no trial's fault
        for path in folder.path.rglob("*.parquet"):
            pd.read_parquet(path)

        ballast.unlink()
        (tmp_path / "log.fast").touch()
        result = run_study(spec, runs=disk, console=quiet)
        assert result.trials["state"].tolist() == ["complete"] * 4
        reports = folder.read_reports()
        assert reports["report"].tolist() == list(range(len(reports)))
        assert reports.head(len(kept))["trial"].tolist() == kept["trial"].tolist()
        for trial, epochs in reports.groupby("trial")["epoch"]:
            assert epochs.tolist() == [0, 1, 2, 3], trial  # none lost, none twice
        assert not list(folder.path.rglob(".*"))


def test_the_second_driver_is_refused_before_it_does_anything(
    toy_study: MakeStudy, tmp_path: Path, quiet: Console
) -> None:
    spec = toy_study(trials=2)
    folder = RunFolder(tmp_path / spec.name)
    with folder.locked(spec):
        before = sorted(folder.path.rglob("*"))
        with pytest.raises(RunError, match=r"is being run by process \d+ on .* since 20.*; let it finish, or stop it"):
            run_study(spec, runs=tmp_path, console=quiet)
        assert sorted(folder.path.rglob("*")) == before
    assert run_study(spec, runs=tmp_path, console=quiet).ran == 2


def test_a_driver_that_lost_its_study_stops(toy_study: MakeStudy, tmp_path: Path) -> None:
    spec = with_storage(toy_study(trials=4, modes="fine,slow,slow,slow", epochs=99, cpu=1), lease_s=1)
    folder = RunFolder(tmp_path / spec.name)
    with sweep(spec, tmp_path, tmp_path, reports=102) as program:
        # What another host does once the lease is over.
        lock = max((folder.path / "lock").glob("0*.json"))
        successor = {**json.loads(lock.read_text()), "host": "another", "token": "another"}
        (lock.parent / f"{int(lock.stem) + 1:08d}.json").write_text(json.dumps(successor))
        _, said = program.communicate(timeout=240)
    assert program.returncode == 2, said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "is being run by process" in line
    assert "on another since" in line
    assert "this driver lost the study while it was suspended, and stops" in line
    assert "interrupted" not in set(folder.read_reports()["state"])  # not even that was written


def test_artifacts_that_no_front_needs_are_removed(toy_study: MakeStudy, tmp_path: Path, quiet: Console) -> None:
    everything = run_study(toy_study(trials=8), runs=tmp_path / "all", console=quiet)
    assert everything.folder.freed.files == 0
    spec = with_storage(toy_study(trials=8), keep_artifacts="front")
    result = run_study(spec, runs=tmp_path / "front", console=quiet)
    assert result.trials["cost"].tolist() == everything.trials["cost"].tolist()
    # cost and gain are both best where lr is least: one trial is on every front
    best = int(result.trials["cost"].idxmin())
    assert [path.name for path in result.folder.artifacts.iterdir()] == [f"{best:05d}.artifact"]
    assert result.folder.freed.files == 7
    trials = load_trials(result.folder.path)
    assert trials["artifact"].notna().tolist() == [trial == best for trial in trials["trial"]]
    assert front(trials)["trial"].tolist() == [best]
