"""One driver a study: a lock with a lease, in the run folder, also where that is a share.

    lock/00000003.json     the third driver of this study: host, process, since when; touched while it lives

The highest number holds. Whoever wants the study makes the next number by link(2), which fails if somebody else was
faster, on NFS too: of two takers one wins. A holder may be followed once it released, once its process is gone (seen
from its own host: at once, however it died), or once it was not heard of for its lease. Ages are told by the clock of
the file server alone, so that hosts need not agree on the time.

A driver that was suspended for longer than its lease has lost it: it must win the next number like anyone else.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from atmc_search.errors import AtmcError, RunError, StorageError
from atmc_search.results.atomic import is_partial, partial_name, write_atomic

LEASE_S = 60.0
"""Unless told otherwise (`storage.lease_s` in a spec)."""

_BEATS = 6  # in a lease
_NAME = re.compile(r"(\d{8,})\.json")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds a study.

    Attributes:
        host: its name.
        machine: the boot and the process namespace in which `pid` means something, "" where that cannot be told.
        pid: process.
        began: when that process started, in ticks since the boot; 0 where that cannot be told.
        since: when it took the study, UTC.
        lease_s: after how long a silence others may take it.
        token: tells apart two locks of the same number.
        released: whether it is done.
    """

    host: str
    machine: str
    pid: int
    began: int
    since: str
    lease_s: float
    token: str
    released: bool = False


class StudyLock:
    """Held from `acquire` to `release`; `check` before every write."""

    def __init__(self, folder: Path, lease_s: float) -> None:
        self._folder = folder
        self._lease_s = lease_s
        self._number = -1
        self._holder = _this_process(lease_s)
        self._beaten = 0.0
        self._guard = threading.RLock()
        self._done = threading.Event()

    def acquire(self) -> None:
        """Takes the study.

        Raises:
            RunError: somebody else holds it.
            OSError: the folder cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._take()
        threading.Thread(target=self._beat_on, name="study-lock", daemon=True).start()

    @property
    def token(self) -> str:
        """For processes that help the driver: see `check_token`."""
        return self._holder.token

    def check(self) -> None:
        """Renews the lease if it is time to.

        Raises:
            StorageError: the study is somebody else's by now.
            OSError: the folder cannot be read or written.
        """
        with self._guard:
            silent = _clock() - self._beaten
            if silent < self._lease_s / _BEATS:
                return
            if silent >= self._lease_s:  # suspended, or the share was away: others may have judged us gone
                self._take(again=True)
                _log.warning("%s: silent for %.0f s, longer than the lease; renewed it", self._folder.parent, silent)
                return
            highest = max(_numbers(self._folder), default=-1)
            if not self._own(highest):
                raise _lost(self._folder)
            started = _clock()
            os.utime(self._path(self._number))
            self._beaten = started

    def release(self) -> None:
        """Gives the study free; never fails."""
        self._done.set()
        with self._guard, suppress(OSError):
            if self._own(max(_numbers(self._folder), default=-1)):
                try:
                    write_atomic(self._path(self._number), _dump(self._holder, released=True))
                except OSError:  # a full disk: then it is as if not heard of since long
                    os.utime(self._path(self._number), (0, 0))

    def _beat_on(self) -> None:
        while not self._done.wait(self._lease_s / _BEATS):
            with suppress(OSError, AtmcError):  # who writes next gets to know, or tries longer
                self.check()

    def _take(self, *, again: bool = False) -> None:
        with self._guard:
            before = max(_numbers(self._folder), default=0)
            number = before + 1
            started = _clock()
            partial = partial_name(self._path(number))
            partial.write_bytes(_dump(self._holder))
            try:
                now = partial.stat().st_mtime
                # Once followed, a suspended driver is out even if its successor is done: it has not seen what that did.
                may = self._own(before) if again else not before or _free(self._path(before), now)
                if not may:
                    raise _lost(self._folder) if again else RunError(_refusal(self._folder, before))
                _claim(partial, self._path(number))
            except FileExistsError:
                raise RunError(_refusal(self._folder, number)) from None
            finally:
                partial.unlink(missing_ok=True)
            if max(_numbers(self._folder)) > number:  # while we looked, others came, went, and tidied up our number
                raise RunError(_refusal(self._folder, max(_numbers(self._folder))))
            self._number, self._beaten = number, started
            self._tidy()

    def _own(self, number: int) -> bool:
        owner = _read(self._path(number)) if number == self._number else None
        return owner is not None and owner.token == self._holder.token

    def _tidy(self) -> None:
        for path in self._folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if (match and int(match[1]) < self._number) or (is_partial(path) and _age(path) > self._lease_s):
                path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.json"


def check_token(folder: Path, token: str) -> None:
    """For a process that writes on behalf of the driver with this token.

    Raises:
        StorageError: the study is somebody else's by now.
        OSError: the folder cannot be read.
    """
    owner = _read(folder / f"{max(_numbers(folder), default=0):08d}.json")
    if owner is None or owner.token != token:
        raise _lost(folder)


def _claim(partial: Path, path: Path) -> None:
    """Gives the lock its name if it is free."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # no links here: O_EXCL is as exclusive, but the file is empty for a moment
        with path.open("xb") as file:
            file.write(partial.read_bytes())


def _free(path: Path, now: float) -> bool:
    """Whether a lock may be followed at the time `now` of the file server."""
    try:
        silent = now - path.stat().st_mtime
    except FileNotFoundError:
        return False  # someone else follows it at this moment
    holder = _read(path)
    if holder is None:  # being written, or damaged
        return silent > LEASE_S
    here = _this_process(0.0)
    same = holder.host == here.host and holder.machine == here.machine != ""
    return holder.released or (same and _began(holder.pid) != holder.began) or silent > holder.lease_s


def _lost(folder: Path) -> StorageError:
    number = max(_numbers(folder), default=0)
    return StorageError(f"{_refusal(folder, number)}; this driver lost the study while it was suspended, and stops")


def _refusal(folder: Path, number: int) -> str:
    holder = _read(folder / f"{number:08d}.json")
    if holder is None:
        return f"{folder.parent}: another driver is taking this study; wait for it, or try again in {LEASE_S:.0f} s"
    return (
        f"{folder.parent}: is being run by process {holder.pid} on {holder.host} since {holder.since}; let it finish, "
        f"or stop it there (kill {holder.pid}); should it be gone, the study is free {holder.lease_s:g} s after its "
        "last sign of life"
    )


def _numbers(folder: Path) -> list[int]:
    return [int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]


def _read(path: Path) -> Holder | None:
    """None: no such file, or none of ours."""
    try:
        document = json.loads(path.read_bytes())
        return Holder(**{field.name: document[field.name] for field in fields(Holder)})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _dump(holder: Holder, *, released: bool = False) -> bytes:
    return json.dumps({**asdict(holder), "released": released}, indent=1).encode()


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _this_process(lease_s: float) -> Holder:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        machine = ""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return Holder(socket.gethostname(), machine, os.getpid(), _began(os.getpid()), since, lease_s, uuid.uuid4().hex)


def _began(pid: int) -> int:
    """When a process of this host started, in ticks since the boot; -1: there is none, or it is a zombie."""
    try:
        # The name, in brackets, may hold anything; state and start time are fields 3 and 22 (proc(5)).
        after = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return -1
    return -1 if after[0] in (b"Z", b"X") else int(after[19])


def _monotonic_with_sleep() -> Callable[[], float]:
    """A clock that counts while the machine is suspended, where there is one."""
    boot: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic if boot is None else lambda: time.clock_gettime(boot)


_clock = _monotonic_with_sleep()
