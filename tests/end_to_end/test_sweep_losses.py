"""What is lost on the way is made good: workers, trials that hang or fail, a driver that is killed again and again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from atmc_search.errors import RunError
from atmc_search.search import run_study
from atmc_search.search.sampler import OptunaSearcher
from atmc_search.spec import StudySpec

MakeStudy = Callable[..., StudySpec]
Log = Callable[[], list[str]]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.usefixtures("ray_here")
def test_a_trial_outlives_its_worker_and_one_that_hangs_is_ended(
    toy_study: MakeStudy, tmp_path: Path, log: Log
) -> None:
    modes = "fine,kill once,hang,server gone,kill"
    spec = toy_study(trials=5, modes=modes, epochs=4, cpu=1, trial_timeout_s=8.0, max_failures=1)
    said = StringIO()
    result = run_study(spec, runs=tmp_path, console=Console(file=said, width=300))
    trials = result.trials.set_index("trial")
    assert trials["state"].tolist() == ["complete", "complete", "failed", "complete", "failed"]
    assert trials.loc[2, "reason"] == "timeout: trained for longer than search.trial_timeout_s = 8 s"
    assert trials.loc[4, "reason"].startswith("worker lost: The actor is dead because its worker process has died.")
    for number in (2, 4):
        assert "The actor died" in (result.folder.path / "errors" / f"{number:05d}.txt").read_text()

    epochs = [line.split()[1:3] for line in log() if line.startswith("epoch")]
    begun = [line.split()[1] for line in log() if line.startswith("trial")]
    done = {number: [int(e) for n, e in epochs if n == number] for number in "01234"}
    assert (begun.count("1"), done["1"]) == (2, [1, 2, 3, 3, 4])  # the third epoch, in which it was killed, again
    assert (begun.count("2"), done["2"]) == (1, [1, 2])  # not tried again: it would hang again
    assert (begun.count("4"), done["4"]) == (2, [1, 2, 2])
    reports = result.folder.read_reports()
    assert reports.loc[reports["trial"] == 1, "epoch"].tolist() == [0, 1, 2, 3, 4]
    assert list((result.folder.path / "checkpoints").iterdir()) == []
    lines = said.getvalue().splitlines()
    assert [line.split("; ")[-1] for line in lines if "trial 1 lost its worker" in line] == [
        "it continues after epoch 2 (failures: 1, search.max_failures 1)"
    ]


@pytest.mark.usefixtures("ray_here")
def test_a_hopeless_sweep_stops_early(toy_study: MakeStudy, tmp_path: Path, quiet: Console) -> None:
    spec = toy_study(trials=9, modes="fine,raise,raise" + ",raise" * 6, max_failed_trials=2)
    with pytest.raises(RunError) as stopped:
        run_study(spec, runs=tmp_path, console=quiet)
    assert str(stopped.value) == (
        "search.max_failed_trials = 2: so many trials failed in this run, the last for "
        "'ValueError: boom in two lines'; mend that, or raise it, and run again"
    )
    trials = pd.read_parquet(tmp_path / spec.name / "trials.parquet")
    assert trials["state"].tolist()[:3] == ["complete", "failed", "failed"]
    assert len(trials) <= 5  # those that had begun meanwhile
    mended = spec.model_copy(update={"search": spec.search.model_copy(update={"max_failed_trials": None})})
    assert run_study(mended, runs=tmp_path, console=quiet).trials["state"].tolist() == ["complete"] + ["failed"] * 8


@pytest.mark.usefixtures("ray_here")
def test_the_same_spec_seed_and_one_worker_give_the_same_twice(
    toy_study: MakeStudy, tmp_path: Path, quiet: Console
) -> None:
    spec = toy_study(
        trials=16,
        epochs=4,
        sampler={"name": "tpe", "startup_trials": 4},
        scheduler={"name": "mo_asha", "grace_epochs": 1, "reduction_factor": 2},
        seed=5,
    )
    tables = []
    for place in ("one", "two"):
        result = run_study(spec, runs=tmp_path / place, console=quiet)
        front = pd.read_parquet(result.folder.path / "front.parquet")
        kept = ["trial", "state", "reason", "epoch", "cost", "gain", "seed", "artifact_sha256", *spec.distributions]
        tables.append((result.trials[kept], front[kept], result.folder.read_reports()[kept]))
    assert set(tables[0][0]["state"]) == {"complete", "stopped"}
    for one, two in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(one, two)


def test_killed_drivers_lose_nothing() -> None:
    """A short form of what the script does at length."""
    command = [sys.executable, str(ROOT / "scripts" / "chaos.py"), "--kills", "2", "--trials", "6", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=570, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = dict(line.rsplit("  ", 1) for line in done.stdout.splitlines() if "  " in line)
    ledger = {name.strip(): value.strip() for name, value in figures.items()}
    assert ledger["kills"] == "2"
    assert int(ledger["reports acknowledged (files seen at a kill or the end)"]) == int(ledger["reports found"]) > 12
    assert ledger["zombies (processes left behind)"] == ledger["reports lost"] == ledger["reports twice"] == "0"


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("taken_by", ["us", "Ray"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_ray_starts_ends_it_at_once(
    number: signal.Signals,
    taken_by: str,
    toy_study: MakeStudy,
    tmp_path: Path,
    quiet: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    @contextmanager
    def starting(*_: object) -> Iterator[None]:
        if taken_by == "Ray":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))  # as it does
        os.kill(os.getpid(), number)
        pytest.fail("it went on")
        yield

    monkeypatch.setattr("atmc_search.search.study.ray_for", starting)
    result = run_study(toy_study(trials=2), runs=tmp_path, console=quiet)
    assert (result.interrupted, result.signal, len(result.trials)) == (True, number, 0)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.usefixtures("ray_here")
def test_a_signal_between_a_proposal_and_its_start_is_a_stop_in_order(
    toy_study: MakeStudy, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune makes a result of every trial at the end, of one that never started too."""
    proposed: list[str] = []

    class Signalled(OptunaSearcher):
        def suggest(self, trial_id: str) -> dict[str, Any]:
            config = super().suggest(trial_id)
            proposed.append(trial_id)
            if len(proposed) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return config

    monkeypatch.setattr("atmc_search.search.study.OptunaSearcher", Signalled)
    spec = toy_study(trials=6, modes="fine" + ",slow" * 5, cpu=1)
    result = run_study(spec, runs=tmp_path, console=quiet)
    assert (result.interrupted, result.signal) == (True, signal.SIGINT)
    assert set(result.trials["trial"]) <= {0, 1}  # the third was proposed and never began
    monkeypatch.undo()
    (tmp_path / "log.fast").touch()
    assert run_study(spec, runs=tmp_path, console=quiet).trials["state"].tolist() == ["complete"] * 6
