"""Kills the driver of a sweep at random moments, runs the same command again, and counts what was promised.

    python scripts/chaos.py --kills 100 --seed 0        (about 20 s a kill on two cores)

A study of trivial trials (`breaking/tick.py`) runs as a program of its own with a Ray of its own; SIGKILL comes while
it starts, while trials train, or between a report and the next. When a study is through, the next begins, until all
kills are spent. Exit code 1 if any promise was broken: no report lost or twice, every figure as undisturbed, no
finished trial again, at most one epoch redone of each trial that ran, every Parquet file readable, no process left.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import yaml
from breaking.ledger import Ledger, Study

_MARK = "ATMC_CHAOS"
_GONE_WITHIN_S = 90.0
_AGENTS = ("ray::DashboardA", "ray::RuntimeEnv")
"""Ray's own, which try for 60 s to tell the head, dead as well, that their node is dead. They hold nothing."""
_ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Runs until all kills are spent and the last study is through."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=24, help="of each study")
    parser.add_argument("--epochs", type=int, default=6, help="of each trial")
    parser.add_argument("--epoch-s", type=float, default=0.1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quiet", action="store_true", help="print only the ledger")
    given = parser.parse_args()
    ledger, draw = Ledger(), random.Random(given.seed)
    marks: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        while ledger.kills < given.kills and not ledger.broken:
            _break_a_study(ledger, draw, Path(scratch) / str(ledger.studies), given, marks)
        for mark in marks:
            _end_what_is_left(ledger, mark)
    print(ledger.text())
    return 1 if ledger.broken else 0


def _break_a_study(
    ledger: Ledger, draw: random.Random, place: Path, given: argparse.Namespace, marks: list[tuple[str, float]]
) -> None:
    """Runs a study through, killing its driver; `marks` takes a token of each, and when its processes must be gone."""
    place.mkdir()
    log, spec = place / "epochs.log", place / "spec.yaml"
    spec.write_text(yaml.safe_dump(_spec(log, draw.randrange(1000), given)))
    command = [
        sys.executable,
        "-m",
        "atmc_search",
        "run",
        str(spec),
        "--runs",
        str(place),
        "--cpus",
        str(given.workers),
    ]
    study = Study(ledger, place / "chaos", log, given.workers)
    while not ledger.broken:
        token = uuid.uuid4().hex
        environment = {**os.environ, _MARK: token, "PYTHONPATH": os.pathsep.join([str(_ROOT), str(_ROOT / "scripts")])}
        with (place / "said").open("w+") as said:
            driver = subprocess.Popen(
                command, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )
            killed = ledger.kills < given.kills and _wait(driver, study, draw)
            if killed:
                driver.send_signal(signal.SIGKILL)
                ledger.kills += 1
            code = driver.wait()
            said.seek(0)
            text = said.read()
        marks.append((token, time.monotonic() + _GONE_WITHIN_S))
        _wait_for_the_end(marks[-1], but=_AGENTS)
        study.after(text, killed=killed)
        if not given.quiet:
            print(f"kill {ledger.kills}: {study.count()} reports, {len(ledger.broken)} promises broken", flush=True)
        if not killed and code != 0:
            ledger.broken.append(f"count: the driver ended with {code}: {text[-2000:]}")
        if code == 0:
            study.finish(given.trials)
            return


def _wait(driver: subprocess.Popen[bytes], study: Study, draw: random.Random) -> bool:
    """Waits for the moment of the kill; False if the driver ended before it."""
    before, began = study.count(), time.monotonic()
    reports = draw.randint(1, 40) if draw.random() < 0.75 else None  # else at a time at which it may still be starting
    seconds = draw.uniform(0, 0.3) if reports else draw.uniform(0, 12)
    while reports is not None and study.count() < before + reports:
        if driver.poll() is not None:
            return False
        time.sleep(0.005)
        if time.monotonic() - began > 300:
            raise TimeoutError("no report for five minutes")
    try:
        driver.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _wait_for_the_end(mark: tuple[str, float], but: tuple[str, ...] = ()) -> dict[int, str]:
    """Waits until no process of a driver is left, `but` these; gives those that stay beyond its deadline."""
    token, deadline = mark
    while left := {pid: name for pid, name in _started_with(token).items() if name not in but}:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return left


def _end_what_is_left(ledger: Ledger, mark: tuple[str, float]) -> None:
    """Ends and counts the processes of a driver that stay."""
    for pid, name in _wait_for_the_end(mark).items():
        ledger.zombies += 1
        ledger.broken.append(f"zombie: {pid} {name}")
        os.kill(pid, signal.SIGKILL)


def _started_with(token: str) -> dict[int, str]:
    """Processes that have our mark in their environment: only what the driver started, and what that started."""
    mark, found = f"{_MARK}={token}".encode(), {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "comm").read_text().strip()
        except OSError:  # gone meanwhile, or not ours
            continue
    return found


def _spec(log: Path, seed: int, given: argparse.Namespace) -> dict[str, object]:
    return {
        "name": "chaos",
        "task": "breaking.tick:Tick",
        "trial": {
            "tick": {
                "log": str(log),
                "epochs": given.epochs,
                "epoch_s": given.epoch_s,
                "lr": {"uniform": [0.1, 0.9]},
            }
        },
        "objectives": {"cost": "min", "gain": "max"},
        "search": {
            "trials": given.trials,
            "sampler": {"name": "tpe"},
            "scheduler": {"name": "mo_asha", "grace_epochs": 2, "reduction_factor": 2},
            "seed": seed,
        },
    }


if __name__ == "__main__":
    sys.exit(main())
