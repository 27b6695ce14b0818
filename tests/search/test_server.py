"""Who makes a start, who waits, and what happens when the maker falls silent. The class alone, without its actor."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from atmc_search.errors import RunError
from atmc_search.results import RunFolder
from atmc_search.search import server as server_module
from atmc_search.search.server import KEPT_DATA, StartProgress, TrialServer
from atmc_search.spec import StudySpec
from atmc_search.tasks import TrialSpace
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
    monkeypatch.setattr(server_module.time, "monotonic", made.monotonic)
    return made


@pytest.fixture
def study(make_study: Callable[..., StudySpec]) -> StudySpec:
    return make_study(train={"lr": 0.1}, compress={"keep": 0.5, "bits": 2})


@pytest.fixture
def run(tmp_path: Path, study: StudySpec, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(server_module.ray, "put", lambda value: value)
    folder = RunFolder(tmp_path / "parts")
    folder.create(study)
    return folder.path


@pytest.fixture
def server(run: Path, study: StudySpec, clock: Clock) -> TrialServer:
    return TrialServer(str(run), study)


class Kept:
    """What stands for a reference into the object store: gone once nobody holds it."""

    def __init__(self, value: Any) -> None:
        self.value = value


def test_the_first_makes_and_the_others_wait(server: TrialServer) -> None:
    assert server.claim_start("a", 0).state == "make"
    assert [server.claim_start("a", owner).state for owner in (1, 2, 1)] == ["wait", "wait", "wait"]
    assert server.claim_start("b", 3).state == "make"  # another key is another start


def test_once_made_everyone_gets_it(server: TrialServer, run: Path) -> None:
    server.claim_start("a", 0)
    server.put_start("a", START)
    for owner in (0, 1, 5):
        claim = server.claim_start("a", owner)
        assert claim.state == "ready"
        tensors, facts = tensors_from_bytes(claim.start)  # type: ignore[arg-type]
        assert tensors["w"].tolist() == [0, 1, 2]
        assert facts == {"dense_s": 1.5}
    assert server.starts() == [StartProgress("a", True, {"dense_s": 1.5})]
    assert [path.name for path in (run / "starts").iterdir()] == ["a.safetensors"]


def test_a_failure_reaches_all(server: TrialServer) -> None:
    server.claim_start("a", 0)
    assert server.claim_start("a", 1).state == "wait"
    server.fail_start("a", "diverged")
    for owner in (0, 1, 2):
        claim = server.claim_start("a", owner)
        assert (claim.state, claim.reason) == ("failed", "diverged")
    assert server.claim_start("b", 2).state == "make"
    assert server.starts() == [StartProgress("b", False, {})]


def test_a_silent_maker_is_replaced(server: TrialServer, clock: Clock) -> None:
    server.claim_start("a", 0)
    clock.now = 119
    assert server.claim_start("a", 1).state == "wait"
    clock.now = 121
    assert server.claim_start("a", 1).state == "make"
    assert server.claim_start("a", 2).state == "wait"
    clock.now = 240  # the second maker's lease counts from its own claim
    assert server.claim_start("a", 2).state == "wait"
    server.renew_start("a", 0, {"epoch": 9})  # the first one wakes: the lease is no longer its own
    clock.now = 242
    assert server.claim_start("a", 2).state == "make"


def test_a_maker_that_reports_keeps_its_lease(server: TrialServer, clock: Clock) -> None:
    server.claim_start("a", 0)
    for epoch in range(1, 6):
        clock.now += 100
        server.renew_start("a", 0, {"epoch": epoch})
        assert server.claim_start("a", 1).state == "wait"
    assert server.starts() == [StartProgress("a", False, {"epoch": 5})]
    server.renew_start("a", 0)  # only alive: how far it was stays
    assert server.starts() == [StartProgress("a", False, {"epoch": 5})]
    clock.now += 119  # however long its epochs were: the lease does not follow them
    assert server.claim_start("a", 1).state == "wait"
    clock.now += 2
    assert server.claim_start("a", 1).state == "make"


def test_a_maker_that_begins_anew_makes_at_once(server: TrialServer, clock: Clock) -> None:
    """Its worker was lost and Ray started the trial anew: it must not wait for the lease of its former self."""
    server.claim_start("a", 0)
    clock.now += 1
    assert server.claim_start("a", 1).state == "wait"
    assert server.claim_start("a", 0).state == "make"
    clock.now += 119.5  # the lease is that of the second claim
    assert server.claim_start("a", 1).state == "wait"
    clock.now += 1
    assert server.claim_start("a", 1).state == "make"


def test_what_may_pass_is_tried_elsewhere_and_three_times_at_most(server: TrialServer, clock: Clock) -> None:
    server.claim_start("a", 0)
    assert server.claim_start("a", 1).state == "wait"
    server.give_up_start("a", 0, "out of memory")
    assert server.claim_start("a", 0).state == "wait"  # left to another
    assert server.claim_start("a", 1).state == "make"
    assert server.claim_start("a", 0).state == "wait"
    server.give_up_start("a", 1, "out of memory")
    clock.now += 4.9
    assert server.claim_start("a", 1).state == "wait"
    clock.now += 0.2  # nobody else came
    assert server.claim_start("a", 1).state == "make"
    server.give_up_start("a", 1, "no room")
    for owner in (0, 1, 2):
        claim = server.claim_start("a", owner)
        assert (claim.state, claim.reason) == ("failed", "no room (in 3 tries)")
    assert server.starts() == []


def test_a_start_that_was_made_after_failures_has_none(server: TrialServer, clock: Clock) -> None:
    for _ in range(2):
        server.claim_start("a", 0)
        server.give_up_start("a", 0, "out of memory")
        clock.now += 6
    server.claim_start("a", 0)
    server.put_start("a", START)
    assert server.claim_start("a", 0).state == "ready"


def test_giving_up_twice_or_late_is_giving_up_once(server: TrialServer, clock: Clock) -> None:
    """Ray repeats calls, and a maker that lost its lease may still say that it failed."""
    server.claim_start("a", 0)
    for _ in range(5):
        server.give_up_start("a", 0, "out of memory")
    assert server.claim_start("a", 1).state == "make"
    server.give_up_start("a", 0, "out of memory")  # of the maker before
    assert server.claim_start("a", 2).state == "wait"  # 1 still makes it
    server.give_up_start("a", 1, "out of memory")
    assert server.claim_start("a", 2).state == "make"


def test_what_is_kept_in_memory_is_bounded_and_read_again(
    run: Path, study: StudySpec, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[weakref.ref[Kept]] = []

    def put(value: Any) -> Kept:
        kept.append(weakref.ref(held := Kept(value)))
        return held

    monkeypatch.setattr(server_module.ray, "put", put)
    server = TrialServer(str(run), study)
    for number in range(30):
        assert server.claim_start(f"start {number}", number).state == "make"
        server.put_start(f"start {number}", START)
        assert server.claim_start(f"start {number}", number).state == "ready"
        assert sum(each() is not None for each in kept) == min(number + 1, 4)
    assert len(kept) == 30  # none was read twice
    claim = server.claim_start("start 3", 31)
    assert claim.state == "ready"
    assert claim.start.value == START  # type: ignore[union-attr]
    assert len(kept) == 31
    assert len(server.starts()) <= 16
    kept.clear()
    for number in range(30):
        server.data(f"data {number}", {})
        assert sum(each() is not None for each in kept) == min(number + 1, KEPT_DATA)


def test_whoever_is_late_is_still_taken_in(server: TrialServer, clock: Clock) -> None:
    server.claim_start("a", 0)
    clock.now = 200
    assert server.claim_start("a", 1).state == "make"
    server.put_start("a", START)  # the first one after all
    assert server.claim_start("a", 1).state == "ready"


def test_a_later_run_finds_the_start_on_disk(server: TrialServer, run: Path, study: StudySpec) -> None:
    server.claim_start("a", 0)
    server.put_start("a", START)
    again = TrialServer(str(run), study)
    claim = again.claim_start("a", 7)
    assert claim.state == "ready"
    assert claim.start == START  # type: ignore[comparison-overlap]  # ray.put is the identity here


@pytest.mark.parametrize("damage", [b"", b"not safetensors", START[:-3]], ids=["empty", "text", "cut"])
def test_a_damaged_start_is_set_aside_and_made_again(run: Path, study: StudySpec, clock: Clock, damage: bytes) -> None:
    path = run / "starts" / "a.safetensors"
    path.write_bytes(damage)
    server = TrialServer(str(run), study)
    assert server.claim_start("a", 0).state == "make"
    assert not path.exists()
    assert (run / "damaged" / "starts" / "a.safetensors").read_bytes() == damage
    server.put_start("a", START)
    assert server.claim_start("a", 1).state == "ready"


def test_artifacts_are_on_disk_before_the_answer(server: TrialServer, run: Path) -> None:
    path, digest = server.put_artifact(3, b"bytes")
    assert (run / path).read_bytes() == b"bytes"
    assert digest == hashlib.sha256(b"bytes").hexdigest()


def test_tracebacks_are_kept(server: TrialServer, run: Path) -> None:
    server.put_traceback(3, "Traceback ...\nKeyError: 'ä'")
    server.put_traceback(4, "another")
    assert (run / "errors" / "00003.txt").read_text(encoding="utf-8") == "Traceback ...\nKeyError: 'ä'"
    assert len(list((run / "errors").iterdir())) == 2


def test_data_is_loaded_once(server: TrialServer, study: StudySpec) -> None:
    trials = TrialSpace.of(study)
    key = trials.task.load_key(trials.fill({}))
    (first,) = server.data(key, {})
    assert len(first.train) == 256  # type: ignore[attr-defined]  # ray.put is the identity here
    assert server.data(key, {})[0] is first
    assert server.data("another", {})[0] is not first


def test_data_that_the_driver_loaded_is_not_loaded_again(server: TrialServer) -> None:
    server.put_data({"a": ["reference"], "b": ["another"]})  # type: ignore[list-item]
    assert (server.data("a", {}), server.data("b", {})) == (["reference"], ["another"])


def test_an_artifact_is_read_for_trials_that_start_from_it(server: TrialServer, run: Path) -> None:
    server.put_artifact(3, b"bytes")
    assert server.artifact(3) == (b"bytes", hashlib.sha256(b"bytes").hexdigest())
    with pytest.raises(RunError, match="artifacts: holds no artifact of trial 4, so no trial can start from it"):
        server.artifact(4)


def test_training_counts_from_when_it_began(server: TrialServer, clock: Clock) -> None:
    server.prepare(0)
    server.prepare(1)
    server.begin(1)
    clock.now += 5
    assert server.training_s([0, 1, 2]) == {1: 5}  # 0 waits for a start, 2 is only coming up
    server.prepare(1)  # by the next worker
    assert server.training_s([0, 1, 2]) == {}


def test_after_a_loss_whoever_says_nothing_is_training(
    run: Path, study: StudySpec, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_restarted", lambda: True)
    server = TrialServer(str(run), study)
    clock.now += 3
    server.claim_start("a", 0)
    server.renew_start("b", 1, {})
    server.prepare(2)
    server.begin(3)
    clock.now += 4
    assert server.training_s([0, 1, 2, 3, 4]) == {3: 4, 4: 7}


def test_a_traceback_controls_no_terminal(server: TrialServer, run: Path) -> None:
    server.put_traceback(3, "line 1\n\tline 2 \x1b[2J \u202e")
    assert (run / "errors" / "00003.txt").read_text() == "line 1\n\tline 2 \\x1b[2J \\u202e"
