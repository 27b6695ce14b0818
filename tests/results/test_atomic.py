"""Writes on disks that are full, forbidden, or lose their writer: the old file or the new one, never a part."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from faults import NOBODY, Child, fill, in_child, small_disk, until

from atmc_search.errors import StorageError
from atmc_search.results import atomic
from atmc_search.results.atomic import patiently, write_atomic, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_leaves_the_old_file_and_no_half_of_the_new(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        path = disk / "file"
        write_atomic(path, b"old")
        ballast = fill(disk)
        with pytest.raises(StorageError, match=rf"{path}: cannot be written \(No space left on device in \d tries"):
            patiently(lambda: write_atomic(path, bytes(50_000)), path, 0.25)
        assert names(disk) == ["ballast", "file"]
        assert path.read_bytes() == b"old"
        ballast.unlink()
        write_atomic(path, bytes(50_000))
        assert path.read_bytes() == bytes(50_000)


def test_room_that_is_made_in_time_is_used(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        ballast = fill(disk)
        helper = threading.Timer(0.2, ballast.unlink)
        helper.start()
        patiently(lambda: write_atomic(disk / "file", bytes(50_000)), disk / "file", 30)
        helper.join()
        assert names(disk) == ["file"]
        assert (disk / "file").stat().st_size == 50_000


def test_a_limit_on_file_sizes_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def too_much() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        patiently(lambda: write_atomic(path, bytes(50_000)), path, 0.0)

    with pytest.raises(StorageError, match="File too large"):
        in_child(too_much)
    assert names(tmp_path) == ["file"]
    assert path.read_bytes() == b"old"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_what_another_user_may_not_write_is_said(tmp_path: Path) -> None:
    path = Path("/var/lib") / "atmc-search-test-file"  # a folder that every user can enter and only root can write
    with pytest.raises(StorageError, match=r"\(Permission denied in 2 tries over 0\.05 s\); .*same command"):
        in_child(lambda: patiently(lambda: write_atomic(path, b"mine"), path, 0.05), uid=NOBODY)
    assert not path.exists()


def test_a_disk_that_turns_read_only_keeps_what_it_has(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        write_atomic(disk / "file", b"old")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StorageError, match="Read-only file system"):
            patiently(lambda: write_atomic(disk / "file", b"new"), disk / "file", 0.0)
        assert (disk / "file").read_bytes() == b"old"


def test_a_writer_that_is_killed_leaves_whole_files(tmp_path: Path) -> None:
    path, size = tmp_path / "file", 1 << 20

    def write_on() -> None:
        for number in range(1, 1_000_000):
            write_atomic(path, bytes([number % 256]) * (size + number))

    write_atomic(path, bytes(size))
    chance = random.Random(0)
    seen = set()
    for _ in range(20):
        child = Child(write_on)
        time.sleep(chance.uniform(0.001, 0.05))
        child.kill()
        data = path.read_bytes()
        assert data == bytes([(len(data) - size) % 256]) * len(data)
        seen.add(len(data))
        assert all(name == "file" or name.startswith(".") for name in names(tmp_path))
    assert len(seen) > 1, "no child got as far as to write"


def test_the_bytes_are_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    flush, replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        steps.append("folder" if target == str(tmp_path) else f"{os.fstat(descriptor).st_size} bytes")
        flush(descriptor)

    def rename(self: Path, target: Path) -> Path:
        steps.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    write_atomic(tmp_path / "file", bytes(77))
    assert steps == ["77 bytes", "name", "folder"]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited, without the waiting."""
    waited: list[float] = []
    monkeypatch.setattr(atomic.time, "sleep", waited.append)
    return waited


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EDQUOT, errno.ETIMEDOUT, errno.EACCES])
def test_what_may_pass_is_tried_again_and_ever_less_often(waits: list[float], code: int) -> None:
    def fail() -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(StorageError) as error:
        patiently(fail, Path("/runs/x"), 60)
    assert waits[:8] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10])
    assert sum(waits) == pytest.approx(60)
    assert max(waits) == 10
    text = str(error.value)
    assert f"/runs/x: cannot be written ({os.strerror(code)} in {len(waits) + 1} tries over 60 s); " in text
    assert "run the same command again" in text
    assert "\n" not in text


@pytest.mark.parametrize("code", [errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL])
def test_what_does_not_pass_is_said_at_once(waits: list[float], code: int) -> None:
    def fail() -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(StorageError, match=r"cannot be written \("):
        patiently(fail, Path("/runs/x"), 60)
    assert waits == []


def test_a_name_that_must_be_free_is_never_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    for links in (True, False):
        if not links:
            monkeypatch.setattr(os, "link", no_links)
        path = tmp_path / f"file-{links}"
        write_atomic(path, b"first", new=True)
        with pytest.raises(FileExistsError):
            write_atomic(path, b"second", new=True)
        assert path.read_bytes() == b"first"
    write_atomic(tmp_path / "file-True", b"first")
    monkeypatch.undo()
    write_atomic(tmp_path / "file-True", b"first", new=True)  # our own earlier try, whose answer was lost
    assert names(tmp_path) == ["file-False", "file-True"]


def test_of_many_who_want_a_name_one_gets_it(tmp_path: Path) -> None:
    path, go = tmp_path / "file", tmp_path / "go"

    def race(number: int) -> None:
        until(go.exists)
        try:
            write_atomic(path, b"%d" % number, new=True)
        except FileExistsError:
            os._exit(3)

    children = [Child(lambda number=number: race(number)) for number in range(8)]
    go.touch()
    codes = [child.wait() for child in children]
    assert sorted(codes) == [0] + [3] * 7
    assert path.read_bytes() == b"%d" % codes.index(0)


def test_what_a_user_asked_for_is_whole_or_as_it_was(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        (disk / "file").write_bytes(b"old")
        (disk / "link").symlink_to("file")
        write_whole(disk / "link", b"new")
        assert (disk / "link").is_symlink()
        fill(disk)
        for name in ("file", "link", "fresh"):
            with pytest.raises(OSError, match="No space"):
                write_whole(disk / name, bytes(50_000))
        assert (disk / "file").read_bytes() == b"new"
        assert names(disk) == ["ballast", "file", "link"]
    write_whole(Path("/dev/null"), b"gone")
    assert Path("/dev/null").is_char_device()
