"""One driver a study, whatever becomes of the drivers: killed, suspended, on another host, many at once."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import Child, fill, small_disk, until

from atmc_search.errors import RunError, StorageError
from atmc_search.results import Column, RunFolder
from atmc_search.results import lock as lock_module
from atmc_search.results.lock import StudyLock
from atmc_search.spec import StudySpec

HOURS = 10_000.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "study" / "lock"


@pytest.fixture(autouse=True)
def released(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ends every lock's thread with its test."""
    acquired: list[StudyLock] = []
    acquire = StudyLock.acquire

    def noted(self: StudyLock) -> None:
        acquired.append(self)
        acquire(self)

    monkeypatch.setattr(StudyLock, "acquire", noted)
    yield
    for lock in acquired:
        lock.release()


def newest(folder: Path) -> Path:
    return max(folder.glob("*.json"))


def hold(folder: Path, lease_s: float) -> Child:
    """A child that holds the study until it is killed."""

    def forever() -> None:
        StudyLock(folder, lease_s).acquire()
        (folder.parent / "held").touch()
        signal.pause()

    child = Child(forever)
    until((folder.parent / "held").exists)
    return child


def foreign(folder: Path, **changes: Any) -> None:
    """Makes the newest lock another's."""
    document = json.loads(newest(folder).read_text())
    newest(folder).write_text(json.dumps(document | changes))


def silent_for(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(newest(folder), (then, then))


def test_the_second_is_refused_and_told_of_the_first(folder: Path) -> None:
    child = hold(folder, 60)
    try:
        with pytest.raises(RunError) as error:
            StudyLock(folder, 60).acquire()
    finally:
        child.kill()
    text = str(error.value)
    for part in (str(folder.parent), f"process {child.pid} on {socket.gethostname()} since 20", f"kill {child.pid}"):
        assert part in text
    assert "free 60 s after its last sign of life" in text
    assert "\n" not in text


@pytest.mark.parametrize("reap", [True, False], ids=["gone", "zombie"])
def test_who_was_killed_on_this_host_keeps_nobody_waiting(folder: Path, reap: bool) -> None:
    child = hold(folder, HOURS)
    child.kill(reap=reap)
    if not reap:
        until(lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    lock = StudyLock(folder, HOURS)
    lock.acquire()
    lock.check()
    lock.release()
    if not reap:
        child.wait()


def test_a_process_that_has_the_same_number_is_not_the_holder(folder: Path) -> None:
    lock = StudyLock(folder, HOURS)
    lock.acquire()
    with pytest.raises(RunError):  # this very process lives
        StudyLock(folder, HOURS).acquire()
    foreign(folder, began=1)
    StudyLock(folder, HOURS).acquire()


@pytest.mark.parametrize("elsewhere", [{"host": "another"}, {"machine": "another boot"}], ids=["host", "boot"])
def test_a_holder_elsewhere_is_waited_for_until_its_lease_is_over(folder: Path, elsewhere: dict[str, str]) -> None:
    StudyLock(folder, 60).acquire()
    foreign(folder, pid=2**22 + 1, **elsewhere)  # no such process here, which says nothing of there
    silent_for(folder, 50)
    with pytest.raises(RunError, match="is being run by process"):
        StudyLock(folder, 1).acquire()  # the holder's lease counts, not the taker's
    silent_for(folder, 61)
    StudyLock(folder, 1).acquire()


def test_what_is_released_is_free_and_only_the_last_lock_stays(folder: Path) -> None:
    for _ in range(3):
        lock = StudyLock(folder, HOURS)
        lock.acquire()
        lock.release()
    assert [path.name for path in folder.iterdir()] == ["00000003.json"]


def test_a_full_disk_does_not_keep_a_lock_from_being_released(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        lock = StudyLock(disk / "study" / "lock", HOURS)
        lock.acquire()
        ballast = fill(disk)
        lock.release()
        ballast.unlink()
        again = StudyLock(disk / "study" / "lock", HOURS)
        again.acquire()
        again.release()


def test_a_lock_that_cannot_be_read_holds_for_a_lease(folder: Path) -> None:
    StudyLock(folder, 60).acquire()
    newest(folder).write_text("{")
    with pytest.raises(RunError, match="another driver is taking this study; wait for it, or try again in 60 s"):
        StudyLock(folder, 60).acquire()
    silent_for(folder, 61)
    StudyLock(folder, 60).acquire()


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_of_many_takers_one_wins(folder: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    for round_ in range(4):
        go = folder.parent / f"go{round_}"

        def take(go: Path = go) -> None:
            lock = StudyLock(folder, HOURS)
            until(go.exists)
            try:
                lock.acquire()
            except RunError:
                go.with_name(f"{go.name}-lost-{os.getpid()}").touch()
                os._exit(2)
            until(lambda: len(list(go.parent.glob(f"{go.name}-lost-*"))) == 5, 60)  # all have looked while it holds
            lock.check()
            os._exit(0)  # as if killed: without release

        takers = [Child(take) for _ in range(6)]
        folder.parent.mkdir(exist_ok=True)
        go.touch()
        assert sorted(taker.wait() for taker in takers) == [0] + [2] * 5, round_  # the next round finds it stale


def test_a_taker_that_was_slow_to_take_does_not_follow_a_lock_long_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It found the first lock free; before it makes the second, two others come and the third lock stands alone."""
    lock = StudyLock(folder, HOURS)
    lock.acquire()
    lock.release()
    claim, others = lock_module._claim, [StudyLock(folder, HOURS), StudyLock(folder, HOURS)]

    def slow(partial: Path, path: Path) -> None:
        monkeypatch.setattr(lock_module, "_claim", claim)
        others[0].acquire()
        others[0].release()
        others[1].acquire()
        assert not path.exists()  # so that only a second look can tell
        claim(partial, path)

    monkeypatch.setattr(lock_module, "_claim", slow)
    with pytest.raises(RunError, match="is being run by process"):
        StudyLock(folder, HOURS).acquire()
    lock_module.check_token(folder, others[1].token)


def test_a_lease_is_renewed_while_nothing_is_written(folder: Path) -> None:
    child = hold(folder, 0.6)
    try:
        foreign(folder, machine="another boot")  # so that only the lease speaks for it
        for _ in range(6):
            time.sleep(0.2)
            with pytest.raises(RunError):
                StudyLock(folder, 0.6).acquire()
    finally:
        child.kill()


def driver(
    path: Path, spec: StudySpec, columns: tuple[Column, ...], row: Callable[..., dict[str, Any]], done: Path
) -> Callable[[], None]:
    """Writes a report, waits for its end to be asked for, writes another."""

    def drive() -> None:
        folder = RunFolder(path)
        with folder.locked(spec):
            folder.append(row(0), columns, folder.next_report())
            until(done.exists)
            try:
                folder.append(row(1), columns, folder.next_report())
            except StorageError as error:
                done.write_text(str(error))
                os._exit(2)

    return drive


@pytest.mark.parametrize("taken", [True, False], ids=["taken over", "left alone"])
def test_a_driver_that_was_suspended_for_longer_than_its_lease(
    tmp_path: Path,
    make_study: Callable[..., StudySpec],
    table: tuple[Column, ...],
    row: Callable[..., dict[str, Any]],
    taken: bool,
) -> None:
    path, done, spec = tmp_path / "kept", tmp_path / "done", make_study(storage={"lease_s": 1})
    child = Child(driver(path, spec, table, row, done))
    until(lambda: len(list((path / "reports").glob("0*.parquet"))) == 1)
    child.signal(signal.SIGSTOP)
    with pytest.raises(RunError, match="is being run"), RunFolder(path).locked(spec):
        pass
    time.sleep(1.2)
    second = RunFolder(path)
    if taken:
        with second.locked(spec):
            second.append(row(7), table, second.next_report())
            done.touch()
            child.signal(signal.SIGCONT)
            assert child.wait() == 2
        assert second.read_reports()["trial"].tolist() == [0, 7]
        assert f"process {os.getpid()} on" in done.read_text()
    else:
        done.touch()
        child.signal(signal.SIGCONT)
        assert child.wait() == 0
        assert second.read_reports()["trial"].tolist() == [0, 1]


def test_who_took_over_and_left_again_still_keeps_the_suspended_one_out(folder: Path) -> None:
    first = StudyLock(folder, 0.3)
    first.acquire()
    first._done.set()  # its thread is suspended with it
    time.sleep(0.4)
    second = StudyLock(folder, 0.3)
    second.acquire()
    second.release()
    with pytest.raises(StorageError, match="this driver lost the study while it was suspended, and stops"):
        first.check()


def test_another_study_s_spec_leaves_the_lock_alone(
    tmp_path: Path, study: StudySpec, make_study: Callable[..., StudySpec]
) -> None:
    folder = RunFolder(tmp_path / "kept")
    with folder.locked(study):
        pass
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="holds another study"), folder.locked(make_study(objectives={"nnz": "min"})):
        pass
    assert before == {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
