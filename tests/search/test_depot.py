"""Who makes a start, who waits, and what happens when the maker falls silent. The class alone, without its actor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from atmc_search.results import RunFolder
from atmc_search.search import depot as depot_module
from atmc_search.search.depot import Depot
from atmc_search.spec import StudySpec
from atmc_search.training import tensors_from_bytes, tensors_to_bytes

START = tensors_to_bytes({"w": torch.arange(3.0)}, {"dense_s": 1.5})


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(depot_module.time, "monotonic", made.monotonic)
    return made


@pytest.fixture
def run(tmp_path: Path, make_study: Callable[..., StudySpec], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(depot_module.ray, "put", lambda value: value)
    folder = RunFolder(tmp_path / "parts")
    folder.create(make_study())
    return folder.path


@pytest.fixture
def depot(run: Path, clock: Clock) -> Depot:
    return Depot(str(run))


def test_the_first_makes_and_the_others_wait(depot: Depot) -> None:
    assert depot.claim_start("a", 0).state == "make"
    assert [depot.claim_start("a", owner).state for owner in (1, 2, 1)] == ["wait", "wait", "wait"]
    assert depot.claim_start("b", 3).state == "make"  # another key is another start


def test_once_made_everyone_gets_it(depot: Depot, run: Path) -> None:
    depot.claim_start("a", 0)
    depot.put_start("a", START)
    for owner in (0, 1, 5):
        claim = depot.claim_start("a", owner)
        assert claim.state == "ready"
        tensors, facts = tensors_from_bytes(claim.start)  # type: ignore[arg-type]
        assert tensors["w"].tolist() == [0, 1, 2]
        assert facts == {"dense_s": 1.5}
    assert depot.starts_in_making() == []
    assert [path.name for path in (run / "starts").iterdir()] == ["a.safetensors"]


def test_a_failure_reaches_all(depot: Depot) -> None:
    depot.claim_start("a", 0)
    assert depot.claim_start("a", 1).state == "wait"
    depot.fail_start("a", "diverged")
    for owner in (0, 1, 2):
        claim = depot.claim_start("a", owner)
        assert (claim.state, claim.reason) == ("failed", "diverged")
    assert depot.claim_start("b", 2).state == "make"
    assert len(depot.starts_in_making()) == 1


def test_a_silent_maker_is_replaced(depot: Depot, clock: Clock) -> None:
    depot.claim_start("a", 0)
    clock.now = 119
    assert depot.claim_start("a", 1).state == "wait"
    clock.now = 121
    assert depot.claim_start("a", 1).state == "make"
    assert depot.claim_start("a", 2).state == "wait"
    clock.now = 240  # the second maker's lease counts from its own claim
    assert depot.claim_start("a", 2).state == "wait"
    depot.renew_start("a", 0, {"epoch": 9})  # the first one wakes: the lease is no longer its own
    clock.now = 242
    assert depot.claim_start("a", 2).state == "make"


def test_a_maker_that_reports_keeps_its_lease(depot: Depot, clock: Clock) -> None:
    depot.claim_start("a", 0)
    for epoch in range(1, 6):
        clock.now += 100
        depot.renew_start("a", 0, {"epoch": epoch})
        assert depot.claim_start("a", 1).state == "wait"
    assert depot.starts_in_making() == [{"epoch": 5}]
    # epochs of 100 s: it may be silent for a lease and three of them
    clock.now += 419
    assert depot.claim_start("a", 1).state == "wait"
    clock.now += 2
    assert depot.claim_start("a", 1).state == "make"


def test_whoever_is_late_is_still_taken_in(depot: Depot, clock: Clock) -> None:
    depot.claim_start("a", 0)
    clock.now = 200
    assert depot.claim_start("a", 1).state == "make"
    depot.put_start("a", START)  # the first one after all
    assert depot.claim_start("a", 1).state == "ready"


def test_a_later_run_finds_the_start_on_disk(depot: Depot, run: Path) -> None:
    depot.claim_start("a", 0)
    depot.put_start("a", START)
    again = Depot(str(run))
    claim = again.claim_start("a", 7)
    assert claim.state == "ready"
    assert claim.start == START  # type: ignore[comparison-overlap]  # ray.put is the identity here


@pytest.mark.parametrize("damage", [b"", b"not safetensors", START[:-3]], ids=["empty", "text", "cut"])
def test_a_damaged_start_is_set_aside_and_made_again(run: Path, clock: Clock, damage: bytes) -> None:
    path = run / "starts" / "a.safetensors"
    path.write_bytes(damage)
    depot = Depot(str(run))
    assert depot.claim_start("a", 0).state == "make"
    assert not path.exists()
    assert (run / "damaged" / "starts" / "a.safetensors").read_bytes() == damage
    depot.put_start("a", START)
    assert depot.claim_start("a", 1).state == "ready"


def test_artifacts_are_on_disk_before_the_answer(depot: Depot, run: Path) -> None:
    path, digest = depot.put_artifact(3, b"bytes")
    assert (run / path).read_bytes() == b"bytes"
    assert digest == hashlib.sha256(b"bytes").hexdigest()


def test_tracebacks_are_kept(depot: Depot, run: Path) -> None:
    depot.put_traceback(3, "Traceback ...\nKeyError: 'ä'")
    depot.put_traceback(4, "another")
    assert (run / "errors" / "00003.txt").read_text(encoding="utf-8") == "Traceback ...\nKeyError: 'ä'"
    assert len(list((run / "errors").iterdir())) == 2


def test_splits_are_loaded_once(depot: Depot, make_study: Callable[..., StudySpec]) -> None:
    spec = make_study(train={"lr": 0.1}, compress={"keep": 0.5, "bits": 2}).fill({}).data
    (first,) = depot.data(spec)
    assert len(first.train) == 256  # type: ignore[attr-defined]  # ray.put is the identity here
    assert depot.data(spec)[0] is first


def test_training_counts_from_when_it_began(depot: Depot, clock: Clock) -> None:
    depot.prepare(0)
    depot.prepare(1)
    depot.begin(1)
    clock.now += 5
    assert depot.training_s([0, 1, 2]) == {1: 5}  # 0 waits for a start, 2 is only coming up
    depot.prepare(1)  # by the next worker
    assert depot.training_s([0, 1, 2]) == {}


def test_after_a_loss_whoever_says_nothing_is_training(
    run: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depot_module, "_restarted", lambda: True)
    depot = Depot(str(run))
    clock.now += 3
    depot.claim_start("a", 0)
    depot.renew_start("b", 1, {})
    depot.prepare(2)
    depot.begin(3)
    clock.now += 4
    assert depot.training_s([0, 1, 2, 3, 4]) == {3: 4, 4: 7}


def test_a_traceback_controls_no_terminal(depot: Depot, run: Path) -> None:
    depot.put_traceback(3, "line 1\n\tline 2 \x1b[2J \u202e")
    assert (run / "errors" / "00003.txt").read_text() == "line 1\n\tline 2 \\x1b[2J \\u202e"
