"""What breaks storage for real: a small disk of its own, another user, a child that is killed."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534


@contextmanager
def small_disk(path: Path, size: str = "512k") -> Iterator[Path]:
    """A disk of this size, mounted at `path`; skips the test where this user may not mount."""
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here: not root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk: Path) -> Path:
    """Takes what room is left; remove the file returned to give it back."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


def in_child(action: Callable[[], Any], *, uid: int | None = None) -> Any:
    """What `action` returns or raises in a process of its own, as the user `uid`."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            if uid is not None:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            answer: Any = action()
        except BaseException as error:
            answer = error
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pickle.load(pipe)
    os.waitpid(child, 0)
    if isinstance(answer, BaseException):
        raise answer
    return answer


class Child:
    """`action` in a process of its own, to be stopped, continued and killed."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self.pid = os.fork()
        if not self.pid:
            try:
                action()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self, *, reap: bool = True) -> None:
        os.kill(self.pid, signal.SIGKILL)
        if reap:
            self.wait()

    def wait(self) -> int:
        """Its exit status; negative: the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
