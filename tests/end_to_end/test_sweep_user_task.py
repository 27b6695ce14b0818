"""Sweeps of a user's own task through Ray: what misbehaves is a row with a reason, and what was broken off goes on."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from shell import program

from atmc_search import load_trials
from atmc_search.errors import SpecError
from atmc_search.results import RunFolder
from atmc_search.search import prepare, run_study
from atmc_search.spec import StudySpec, dump_yaml

pytestmark = pytest.mark.usefixtures("ray_here")

MakeStudy = Callable[..., StudySpec]
Log = Callable[[], list[str]]

MISBEHAVIOUR = {
    "raise": r"ValueError: boom in two lines",
    "diverge": r"diverged: lower the rate",
    "memory": r"OutOfMemoryError: CUDA out of memory\. Tried to allocate 2 GiB",
    "exit": r"worker lost: .*",
    "kill": r"worker lost: .*",
    "nan": r"cost = nan: not finite",
    "inf": r"gain = inf: not finite",
    "none": r"cost is missing after the last epoch",
    "word": r"cost = 'cheap': its column is float64; return a plain number",
    "tensor": r"gain = tensor\(0\.5.*: its column is float64; return a plain number",
    "half": r"steps = 0\.5: its column is int64; return a whole number",
}


def test_a_trial_that_misbehaves_is_a_row_with_its_reason(
    toy_study: MakeStudy, tmp_path: Path, quiet: Console, log: Log
) -> None:
    modes = ["fine", *MISBEHAVIOUR, "fine", "fine"]
    spec = toy_study(trials=len(modes), modes=",".join(modes), cpu=1, max_failures=0)
    result = run_study(spec, runs=tmp_path, console=quiet)
    assert (result.ran, result.interrupted) == (len(modes), False)

    trials = pd.read_parquet(result.folder.path / "trials.parquet")
    assert trials["trial"].tolist() == list(range(len(modes)))
    assert trials["state"].tolist() == ["complete" if mode == "fine" else "failed" for mode in modes]
    for mode, (_, row) in zip(modes, trials.iterrows(), strict=True):
        if mode == "fine":
            assert (row["reason"], row["epoch"], row["steps"]) == ("", 2, 2)
            data = (result.folder.path / row["artifact"]).read_bytes()
            assert json.loads(data) == [row["trial"], 2]
            assert row["artifact_sha256"] == hashlib.sha256(data).hexdigest()
        else:
            assert pd.Series([row["reason"]]).str.fullmatch(MISBEHAVIOUR[mode] + ".*").all(), row["reason"]
        assert 0.1 <= row["trial.toy.lr"] <= 1
        assert row["seed"] == row["trial"]
    assert (trials["fingerprint"] == spec.fingerprint).all()

    front = pd.read_parquet(result.folder.path / "front.parquet")
    assert set(front["trial"]) <= set(trials.loc[trials["state"] == "complete", "trial"])
    assert len(front)
    traceback = (result.folder.path / "errors" / "00001.txt").read_text()
    assert "ValueError: boom" in traceback
    assert "users_own_task.py" in traceback
    assert log().count("start") == 1
    assert len([line for line in log() if line.startswith("trial")]) == len(modes)  # none was tried twice

    reports = pd.read_parquet(result.folder.reports)
    first = reports.groupby("trial").head(1)
    assert first["state"].tolist() == ["running"] * len(modes)
    assert first["epoch"].tolist() == [0] * len(modes)
    assert first["cost"].isna().all()


def test_a_start_that_fails_fails_every_trial(toy_study: MakeStudy, tmp_path: Path, quiet: Console, log: Log) -> None:
    result = run_study(toy_study(trials=3, modes="bad start"), runs=tmp_path, console=quiet)
    assert not result.interrupted
    assert result.trials["state"].tolist() == ["failed"] * 3
    assert result.trials["reason"].str.contains("no start today").all()
    assert log() == ["start"]
    assert pd.read_parquet(result.folder.path / "front.parquet").empty


def reported(trial: int, state: str, lr: float, **values: Any) -> dict[str, Any]:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    row = {"trial": trial, "state": state, "reason": "", "epoch": 1, "epochs": 2, "started_at": now}
    return {**row, "reported_at": now, "trial.toy.lr": lr, **values}


def test_a_broken_off_study_goes_on(toy_study: MakeStudy, tmp_path: Path, quiet: Console, log: Log) -> None:
    """The driver was killed: trial 1 still says running, trial 3 was marked interrupted, 4 had only just begun."""
    spec = toy_study(trials=7, sampler={"name": "tpe", "startup_trials": 2})
    prepared = prepare(spec)
    folder = RunFolder(tmp_path / spec.name)
    folder.create(spec)
    before = [
        reported(0, "running", 0.25, epoch=0),
        reported(1, "running", 0.123456789012345678, epoch=0),
        reported(1, "running", 0.123456789012345678, cost=1.1, gain=0.9),
        reported(0, "complete", 0.25, epoch=2, cost=1.25, gain=0.875),
        reported(2, "failed", 0.5, reason="diverged"),
        reported(3, "running", 0.75, cost=1.7, gain=0.6),
        reported(3, "interrupted", 0.75, cost=1.7, gain=0.6),
        reported(4, "running", 0.9, epoch=0),
    ]
    for number, row in enumerate(before):
        folder.append(row, prepared.columns, number)
    (folder.reports / ".00000008.parquet.1.partial").write_bytes(b"PAR1")

    result = run_study(spec, runs=tmp_path, console=quiet)
    assert (result.ran, result.interrupted) == (5, False)
    begun = [line.split() for line in log() if line.startswith("trial")]
    assert [int(number) for _, number, *_ in begun] == [1, 3, 4, 5, 6]  # what was broken off comes first
    assert [float(lr) for _, _, lr, _ in begun[:3]] == [0.123456789012345678, 0.75, 0.9]

    trials = result.trials
    assert trials["trial"].tolist() == list(range(7))
    assert trials["state"].tolist() == ["complete", "complete", "failed", *["complete"] * 4]
    assert trials.loc[0, "cost"] == 1.25
    assert trials["trial.toy.lr"].tolist()[:5] == [0.25, 0.123456789012345678, 0.5, 0.75, 0.9]
    reports = result.folder.read_reports()
    assert reports["state"].tolist()[:8] == [row["state"] for row in before]
    assert set(reports["trial"][8:]) == {1, 3, 4, 5, 6}


def test_more_resources_than_there_are_is_a_mistake(toy_study: MakeStudy, tmp_path: Path, quiet: Console) -> None:
    for resource, have in (({"gpu": 1}, 0), ({"cpu": 64}, 2)):
        (name,) = resource
        spec = toy_study(trials=2)
        spec = spec.model_copy(update={"resources": spec.resources.model_copy(update=resource)})
        with pytest.raises(SpecError, match=rf"resources\.{name} = \d+: there are {have} here.*; ask for at most that"):
            run_study(spec, runs=tmp_path, console=quiet)


def test_signals_stop_in_order_or_at_once_and_the_same_command_goes_on(
    toy_study: MakeStudy, tmp_path: Path, user_modules: Path, log: Log
) -> None:
    """The program as a user runs it, with a Ray of its own: SIGTERM as that starts, Ctrl-C, SIGTERM twice, through."""
    spec = toy_study(trials=4, modes="fine,slow,hang,slow", epochs=3, cpu=1)
    (tmp_path / "toys.yaml").write_text(dump_yaml(spec))
    command = [sys.executable, "-m", "atmc_search", "run", "toys.yaml", "--cpus", "1"]
    options: dict[str, Any] = {"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    path = os.pathsep.join([str(user_modules), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    folder = RunFolder(tmp_path / "runs" / "toys")

    drivers: list[subprocess.Popen[str]] = []

    def ray_starts() -> bool:
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it ended meanwhile
                _, name, _, parent, *_ = path.read_text().split()
                if (name, parent) == ("(gcs_server)", str(drivers[-1].pid)):
                    return True
        return False

    def stopped_by(*signals: signal.Signals, when: Callable[[], bool]) -> tuple[int, str, str]:
        driver = subprocess.Popen(command, env=environment, start_new_session=True, **options)
        drivers.append(driver)
        try:
            deadline = time.monotonic() + 300
            while not when():
                assert driver.poll() is None, driver.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            for number in signals:
                driver.send_signal(number)
                time.sleep(0.5)
            out, err = driver.communicate(timeout=60)
        finally:
            if driver.poll() is None:
                driver.kill()
                driver.communicate()
        assert "Traceback" not in err
        assert "Last result" not in out  # Tune's own lines
        assert "continue with the same command: atmc-search run toys.yaml --cpus 1" in out
        return driver.returncode, out, err

    def epochs(trial: str) -> list[str]:
        return [line.split()[2] for line in log() if line.startswith(f"epoch {trial} ")]

    # While Ray comes up, which takes SIGTERM for itself.
    code, _, _ = stopped_by(signal.SIGTERM, when=ray_starts)
    assert (code, folder.next_report()) == (143, 0)

    # Once: the epoch of a second that runs comes to its end, and is not done again.
    code, _, err = stopped_by(signal.SIGINT, when=lambda: folder.next_report() >= 6)  # trial 0 is done, 1 under way
    assert code == 130
    assert "stopping: trials that run end their epoch, for 20 s at most (Ctrl-C again: at once)" in err
    stopped = load_trials(folder.path).set_index("trial")
    assert stopped["state"].tolist()[:2] == ["complete", "interrupted"]
    assert "running" not in set(stopped["state"])
    assert len(epochs("1")) == stopped.loc[1, "epoch"]

    # Twice: an epoch that would never end is left. The first signal names the exit code.
    code, _, err = stopped_by(signal.SIGTERM, signal.SIGINT, when=lambda: epochs("2") == ["1", "2"])
    assert code == 143
    assert err.startswith(f"runs/toys/: continuing; 1 of 4 trials done, {len(stopped) - 1} under way\n")
    stopped = load_trials(folder.path).set_index("trial")
    assert stopped["state"].tolist()[:3] == ["complete", "complete", "interrupted"]
    assert epochs("1") == ["1", "2", "3"]

    (tmp_path / "log.fast").touch()
    last = subprocess.run(command, env=environment, timeout=150, check=False, **options)
    assert last.returncode == 0, last.stderr
    assert "4 trials (4 complete)" in last.stdout
    assert "Traceback" not in last.stderr
    finished = load_trials(folder.path).set_index("trial")
    assert finished["state"].tolist() == ["complete"] * 4
    assert (finished["trial.toy.lr"][stopped.index] == stopped["trial.toy.lr"]).all()
    assert epochs("2") == ["1", "2", "2", "3"]
    begun = [line.split()[1] for line in log() if line.startswith("trial")]
    assert begun.count("0") == 1
    assert log().count("start") == 1  # the later runs found it on disk


def test_a_config_that_no_extreme_showed_to_be_impossible_is_a_failed_trial(
    toy_study: MakeStudy, tmp_path: Path, quiet: Console
) -> None:
    """Each value is fine beside the middle of the other; some pairs are not a trial."""
    pairs = {"shape": {"choice": ["round", "plain"]}, "radius": {"choice": [None, 0.9]}}
    spec = toy_study(trials=6, epochs=1, toy=pairs, sampler={"name": "random"}, seed=1)
    result = run_study(spec, runs=tmp_path, console=quiet)
    trials = pd.read_parquet(result.folder.path / "trials.parquet")
    odd = (trials["trial.toy.shape"] == "plain") & trials["trial.toy.radius"].notna()
    assert odd.any()
    assert not odd.all()
    assert (trials.loc[odd, "state"] == "failed").all()
    assert trials.loc[odd, "reason"].str.contains("radius is of round toys and shape is plain").all()
    assert (trials.loc[~odd, "state"] == "complete").all()


def test_one_passing_error_costs_a_start_no_more_than_another_try(
    toy_study: MakeStudy, tmp_path: Path, quiet: Console, log: Log
) -> None:
    result = run_study(toy_study(trials=3, modes="short start", cpu=1), runs=tmp_path, console=quiet)
    assert result.trials["state"].tolist() == ["complete"] * 3
    assert log().count("start") == 2


def test_failed_trials_run_again_only_when_asked_and_as_they_were(
    toy_study: MakeStudy,
    tmp_path: Path,
    quiet: Console,
    log: Log,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = toy_study(trials=5, modes="fine,raise till mended,fine,raise,raise till mended", epochs=3)
    first = run_study(spec, runs=tmp_path, console=quiet).trials
    assert first["state"].tolist() == ["complete", "failed", "complete", "failed", "failed"]
    assert "No space left on device" in first["reason"][1]
    begun = len(log())
    (tmp_path / "log.mended").touch()

    again = run_study(spec, runs=tmp_path, console=quiet)
    assert (again.ran, again.interrupted, len(log())) == (0, False, begun)
    pd.testing.assert_frame_equal(again.trials, first)

    said = StringIO()
    more = run_study(spec, runs=tmp_path, retry_failed=True, console=Console(file=said, width=300))
    assert (more.ran, more.interrupted) == (3, False)
    trials = more.trials
    assert trials["trial"].tolist() == list(range(5))
    assert trials["state"].tolist() == ["complete", "complete", "complete", "failed", "complete"]
    assert trials["reason"].tolist() == ["", "", "", "ValueError: boom in two lines", ""]
    same = ["trial", "seed", "trial.toy.lr", "trial_fingerprint", "fingerprint"]
    pd.testing.assert_frame_equal(trials[same], first[same])
    pd.testing.assert_frame_equal(trials.loc[[0, 2]], first.loc[[0, 2]])  # nothing of the others changed
    assert [line.split()[1] for line in log()[begun:] if line.startswith("trial")] == ["1", "3", "4"]
    assert "continuing; 2 of 5 trials done, 0 under way" in said.getvalue()
    reports = more.folder.read_reports()  # the history holds both attempts
    assert reports.loc[reports["trial"] == 1, "state"].tolist().count("failed") == 1
    assert reports.loc[reports["trial"] == 1, "epoch"].tolist() == [0, 1, 1, 0, 1, 2, 3]
    data = (more.folder.path / trials["artifact"][1]).read_bytes()
    assert (json.loads(data), trials["artifact_sha256"][1]) == ([1, 3], hashlib.sha256(data).hexdigest())

    (tmp_path / "toys.yaml").write_text(dump_yaml(spec))
    words = ("run", tmp_path / "toys.yaml", "--runs", tmp_path, "--retry-failed")
    last = program(capsys, monkeypatch)(*words)
    assert last.code == 0
    assert "5 trials (4 complete, 1 failed), 1 of them run now" in last.out
    assert [line.split()[1] for line in log() if line.startswith("trial")][-1] == "3"
