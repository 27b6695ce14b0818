"""What trials start from: made once, tried again after what may pass, taken from another trial, and never piled up."""

from __future__ import annotations

import gc
import hashlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toys import Toy, config_of, resident_bytes, toy_study, worker

from atmc_search.errors import AtmcError, DataError, StorageError, TrialFailed
from atmc_search.results import RunFolder
from atmc_search.search import server as server_module
from atmc_search.search import trainable as trainable_module
from atmc_search.search.passing import may_pass
from atmc_search.search.sampler import START_TRIAL
from atmc_search.search.server import TrialServer
from atmc_search.tasks import TrialSpace

NO_ACTOR = SimpleNamespace(current_actor=None, get_actor_id=lambda: None)
MB = 2**20


class Clock:
    """Time that passes only while somebody sleeps."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(server_module.ray, "put", lambda value: value)
    monkeypatch.setattr(trainable_module.ray, "get", lambda value: value)
    monkeypatch.setattr(trainable_module.ray, "get_runtime_context", lambda: NO_ACTOR)
    for name in ("attempts", "loads"):
        monkeypatch.setattr(Toy, name, 0)
    made = RunFolder(tmp_path / "toys")
    made.create(toy_study())
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (server_module, trainable_module):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def server(folder: RunFolder) -> TrialServer:
    return TrialServer(str(folder.path), toy_study())


def report_of(server: TrialServer, number: int, **config: Any) -> dict[str, Any]:
    """The one report of a trial."""
    report: dict[str, Any] = worker(server, toy_study(), {**config_of(number), **config}).step()["report"]
    return report


def fails(monkeypatch: pytest.MonkeyPatch, *errors: BaseException | None) -> None:
    """Has the making of a start raise these, one a time; after the last it succeeds."""
    left = iter(errors)

    def make(attempt: int) -> None:
        if error := next(left, None):
            raise error

    monkeypatch.setattr(Toy, "make", staticmethod(make))


PASSING = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    OSError(5, "Input/output error"),
    MemoryError(),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    StorageError("the share is away"),
]
LASTING = [
    TrialFailed("diverged: dense loss is nan in epoch 1"),
    DataError("a folder is missing"),
    ValueError("boom"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    KeyError("w"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: f"{type(error).__name__}")
def test_one_passing_error_costs_a_start_no_more_than_another_try(
    server: TrialServer, clock: Clock, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    assert may_pass(error)
    fails(monkeypatch, error)
    report = report_of(server, 0)
    assert (report["state"], report["made_in"], report["first"]) == ("complete", 1, 0.0)
    assert report_of(server, 1)["state"] == "complete"
    assert Toy.attempts == 2
    assert 5 <= clock.now < 6  # nobody else came for it


@pytest.mark.parametrize("error", LASTING, ids=lambda error: f"{type(error).__name__}")
def test_another_error_fails_the_start_at_once_and_for_all(
    server: TrialServer, clock: Clock, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    assert not may_pass(error)
    fails(monkeypatch, error)
    first, second = report_of(server, 0), report_of(server, 1)
    assert (first["state"], second["state"]) == ("failed", "failed")
    said = str(error) if isinstance(error, AtmcError) else f"{type(error).__name__}: {error}"
    assert first["reason"] == said
    assert second["reason"] == f"its start failed: {said}"
    assert (Toy.attempts, clock.now) == (1, 0)


def test_errors_that_do_not_pass_by_are_given_up_after_three_tries(
    server: TrialServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, *[torch.OutOfMemoryError("CUDA out of memory")] * 9)
    for number in range(3):
        report = report_of(server, number)
        assert report["state"] == "failed"
        assert report["reason"] == "its start failed: OutOfMemoryError: CUDA out of memory (in 3 tries)"
    assert Toy.attempts == 3
    assert report_of(server, 3, **{"trial.toy.start": 1})["state"] == "failed"  # another start, tried three times too
    assert Toy.attempts == 6
    monkeypatch.setattr(Toy, "make", staticmethod(lambda attempt: None))
    assert report_of(server, 4, **{"trial.toy.start": 2})["state"] == "complete"


def test_a_start_that_failed_is_left_to_whoever_waits(
    server: TrialServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    other = worker(server, toy_study(), config_of(1))
    said: list[dict[str, Any]] = []

    def sleep(seconds: float) -> None:
        clock.now += seconds
        if not said:
            said.append(other.step()["report"])  # the other trial asks while the one whose try failed sleeps

    monkeypatch.setattr(clock, "sleep", sleep)
    first = report_of(server, 0)
    assert (first["state"], first["made_in"]) == ("complete", 1)
    assert said[0]["state"] == "complete"
    assert clock.now < 1  # it need not wait until it may try again itself
    assert Toy.attempts == 2


def test_the_maker_is_heard_however_long_its_work_takes(server: TrialServer, monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[tuple[str, int]] = []
    heard = server.renew_start

    def renew(key: str, owner: int, progress: Any = None) -> None:
        beats.append((key, owner))
        heard(key, owner, progress)

    monkeypatch.setattr(server, "renew_start", renew)
    monkeypatch.setattr(trainable_module, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(Toy, "make", staticmethod(lambda attempt: time.sleep(0.5)))  # one epoch that reports nothing
    assert report_of(server, 7)["state"] == "complete"
    assert set(beats) == {("start-0", 7)}
    assert len(beats) >= 10
    time.sleep(0.1)
    assert len(beats) == (count := len(beats))  # and falls silent with it
    fails(monkeypatch, ValueError("boom"))
    report_of(server, 8, **{"trial.toy.start": 1})
    time.sleep(0.1)
    assert len(beats) - count <= 1


def test_one_long_epoch_does_not_lose_the_lease(server: TrialServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is shorter than the epoch; the heartbeat renews it."""
    monkeypatch.setattr(trainable_module, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(server_module, "_LEASE_S", 0.2)
    claims: list[str] = []

    def make(attempt: int) -> None:
        for _ in range(10):
            time.sleep(0.05)
            claims.append(server.claim_start("start-0", 99).state)

    monkeypatch.setattr(Toy, "make", staticmethod(make))
    assert report_of(server, 0)["state"] == "complete"
    assert claims == ["wait"] * 10


def test_a_maker_that_was_lost_makes_at_once_when_it_is_back(server: TrialServer, clock: Clock) -> None:
    assert server.claim_start("start-0", 5).state == "make"  # and its worker is lost with it
    clock.now = 1.0
    assert report_of(server, 5)["state"] == "complete"
    assert clock.now == 1.0


def test_a_trial_starts_from_another_trial(server: TrialServer) -> None:
    first = report_of(server, 3)
    assert first["start"] == "trained"
    digest = hashlib.sha256(b"12.5").hexdigest()
    second = report_of(server, 4, **{START_TRIAL: 3})
    assert (second["state"], second["first"]) == ("complete", 12.5)
    assert second["start"] == f"trial 3 {digest}"
    assert "made_in" not in second
    assert Toy.attempts == 1  # only the first trial's own start was made


def test_a_trial_that_starts_from_a_trial_without_a_file_fails_with_that_reason(server: TrialServer) -> None:
    report = report_of(server, 4, **{START_TRIAL: 3})
    assert report["state"] == "failed"
    assert report["reason"].endswith("artifacts: holds no artifact of trial 3, so no trial can start from it")


def test_a_task_that_takes_no_other_trial_as_a_start_says_so(
    server: TrialServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Toy, "start_from")
    report_of(server, 3)
    report = report_of(server, 4, **{START_TRIAL: 3})
    assert report["state"] == "failed"
    assert report["reason"] == "Toy: its trials cannot start from another trial; remove the start"


def test_figures_of_another_trial_as_a_start_are_measured_once(
    server: TrialServer, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = itertools.count()

    def measure(spec: Any, data: Any, start: Any, *, device: str) -> dict[str, Any]:
        return {"made_in": 100 * next(measured) + int(start.tensors["w"][0])}

    monkeypatch.setattr(Toy, "start_figures_key", classmethod(lambda cls, spec, data: "figures"))
    monkeypatch.setattr(Toy, "measure_start", classmethod(lambda cls, *given, **how: measure(*given, **how)))
    assert report_of(server, 3)["made_in"] == 0
    for number in (4, 5):
        assert report_of(server, number, **{START_TRIAL: 3})["made_in"] == 112
    digest = hashlib.sha256(b"12.5").hexdigest()[:12]
    names = {path.stem for path in folder.starts.iterdir()}
    assert names == {"start-0", "start-0-figures", f"{digest}-figures"}


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Tables and starts of 4 MB."""
    monkeypatch.setattr(Toy, "floats", MB)
    yield 4 * MB
    gc.collect()


@pytest.mark.parametrize("what", ["start", "table"])
def test_a_long_sweep_over_many_starts_and_tables_does_not_grow(
    server: TrialServer, large: int, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker and one server in this process: 100 times 4 MB pass through them."""
    trial = worker(server, toy_study(), config_of(0))
    sizes = []
    for number in range(100):
        trial.config = config_of(number, **{what: number})
        trial.reset_config(trial.config)
        report = trial.step()["report"]
        assert report["state"] == "complete"
        assert len(trial._data) <= 2
        assert len(trial._starts) <= 4
        assert len(server._data) <= 4
        assert len(server._starts) <= 4
        sizes.append(resident_bytes())
    assert (Toy.attempts, Toy.loads) == ((100, 1) if what == "start" else (1, 100))
    grown = max(sizes[50:]) - max(sizes[10:50])
    assert grown <= 10 * large, f"grew by {grown / MB:.0f} MB"  # where all were kept: by 50 of them or more
    # What was pushed out is there again, and the same.
    trial.config = config_of(100, **{what: 3})
    trial.reset_config(trial.config)
    report = trial.step()["report"]
    assert (report["state"], report["first"]) == ("complete", 3.0 if what == "start" else 0.0)
    assert Toy.attempts == (100 if what == "start" else 1)  # read from disk, not made again


def test_without_a_cuda_device_a_trial_that_wants_one_fails_with_that_reason(
    server: TrialServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    made: list[str] = []
    monkeypatch.setattr(trainable_module, "make_repeatable", made.append)
    study = toy_study(resources={"gpu": 1})
    report = worker(server, study, config_of(0)).step()["report"]
    assert report["state"] == "failed"
    assert report["device"] == "cuda"
    assert report["reason"].startswith(f"resources.gpu = 1: torch {torch.__version__} on ")
    assert report["reason"].endswith(
        "finds no CUDA device; install a CUDA build and driver there, or set resources.gpu: 0"
    )
    assert "\n" not in report["reason"]
    assert (made, Toy.attempts, Toy.loads) == (["cuda"], 0, 0)


def test_every_distinct_table_reaches_its_trial(server: TrialServer) -> None:
    space = TrialSpace.of(toy_study())
    keys = {space.task.load_key(space.fill(config_of(0, table=number))) for number in range(9)}
    assert len(keys) == 9
    reports = [report_of(server, number, **{"trial.toy.table": number}) for number in range(9)]
    assert {report["state"] for report in reports} == {"complete"}
    assert Toy.loads == 9
