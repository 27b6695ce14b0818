"""How every file of a run folder is written: whole or not at all, flushed to the disk, tried again while it fails.

Reads are tried again too: a file that cannot be read for now is not damaged.

The bytes go to a hidden name in the same folder, are flushed, and take their name in one step (rename, or link where
the name must be new); then the folder is flushed. If a process dies in between, a hidden file stays that nobody reads.
"""

from __future__ import annotations

import errno
import logging
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

from atmc_search.errors import StorageError

PATIENCE_S = 60.0
"""How long a write is tried again, unless told otherwise (`storage.patience_s` in a spec)."""

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 10.0

# What an administrator, a quota, a cable or a server that comes back can mend while we wait.
_MAY_PASS = frozenset(
    code
    for name in (
        *("ENOSPC", "EDQUOT", "EIO", "ESTALE", "ETIMEDOUT", "EACCES", "EPERM", "EROFS", "ENOENT", "EAGAIN", "EBUSY"),
        *("ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ECONNRESET", "EREMOTEIO", "ENOLCK"),
        *("ENFILE", "EMFILE", "ENOMEM", "EINTR", "EFBIG", "ENODEV", "ENXIO"),
    )
    if (code := getattr(errno, name, None)) is not None
)
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK})
_NO_FLUSH = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF})

_REMEDIES = {
    "written": "make room or mend its folder, then run the same command again: all that was reported is kept",
    "read": "mend its permissions or the storage, then run the same command again: nothing was changed",
}

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def write_atomic(path: Path, data: bytes, *, new: bool = False) -> None:
    """Puts `data` under `path`, in place of what was there; tries once.

    Args:
        path: the file; its folder exists.
        data: all that it is to hold.
        new: whether the name must be free.

    Raises:
        FileExistsError: `new`, and the name is taken by other bytes than these.
        OSError: it cannot be written; what was there is as it was.
    """
    partial = partial_name(path)
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if new:
            _link(partial, path, data)
        else:
            partial.replace(path)
    finally:
        with suppress(OSError):  # of a full disk every half-written file would take the more
            partial.unlink(missing_ok=True)
    flush_folder(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Puts `data` where a user asked for it: a file whole or not at all, a device or a pipe as it takes it.

    Raises:
        OSError: it cannot be written; a file that was there is as it was.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
    else:
        write_atomic(path.resolve(), data)


def patiently(
    action: Callable[[], _Result], path: Path, patience_s: float, done: Literal["written", "read"] = "written"
) -> _Result:
    """Does `action`, which touches `path`, again while it fails by what may pass.

    Args:
        action: what to do; doing it twice does no harm.
        path: to be named.
        patience_s: for how long it is tried again, with waits from 0.1 s that double up to 10 s.
        done: what the action does, for messages.

    Raises:
        FileExistsError: from `action`, at once.
        StorageError: the patience is over, or the failure is of a kind that waiting does not mend.
    """
    wait, waited, tries = _FIRST_WAIT_S, 0.0, 1
    while True:
        try:
            return action()
        except FileExistsError:
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            if done == "read":  # of a folder, this file; what is written has a hidden name until it is whole
                path = Path(error.filename or path)
            if error.errno not in _MAY_PASS or waited >= patience_s:
                often = f" in {tries} tries over {round(waited, 2):g} s" if tries > 1 else ""
                raise StorageError(f"{path}: cannot be {done} ({reason}{often}); {_REMEDIES[done]}") from error
            if tries == 1:
                _log.warning("%s: cannot be %s (%s); trying again for %g s", path, done, reason, patience_s)
        wait = min(wait, patience_s - waited)
        time.sleep(wait)
        waited, tries, wait = waited + wait, tries + 1, min(2 * wait, _LONGEST_WAIT_S)


def partial_name(path: Path) -> Path:
    """A hidden name beside `path` that no other process or host chooses; readers of Parquet folders skip such names."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")


def is_partial(path: Path) -> bool:
    """Whether a name is one of those, of this release or an earlier one."""
    return path.name.startswith(".") and path.name.endswith(".partial")


def flush_folder(folder: Path) -> None:
    """Brings a folder's names to the disk, where its filesystem can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
    finally:
        os.close(descriptor)


def _link(partial: Path, path: Path, data: bytes) -> None:
    """Gives `partial` its name only if no file has it: link(2) fails where rename(2) would replace, on NFS too."""
    try:
        os.link(partial, path)
    except FileExistsError:
        if path.read_bytes() != data:  # equal: an earlier try of ours whose answer was lost on the way
            raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():  # a filesystem without links: the check and the move are two steps
            raise FileExistsError(errno.EEXIST, "taken", str(path)) from None
        partial.replace(path)
