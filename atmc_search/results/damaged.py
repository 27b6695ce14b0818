"""Files in a run folder that are not what they should be: named once, and moved to damaged/ by who may write there."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from atmc_search.errors import RunError, StorageError, printable

DAMAGED = "damaged"
"""The folder, within that of the run."""

_log = logging.getLogger(__name__)


def quarantine(run: Path, files: Mapping[Path, str], *, nothing_else: bool, move: bool) -> None:
    """Names files that are not what they should be, with reasons, and moves them to damaged/, under the same path.

    Args:
        run: the run folder.
        files: within it.
        nothing_else: whether there is no sound file of their kind.
        move: whether to move them.

    Raises:
        RunError: they are not to be moved, and nothing else is there.
        StorageError: they cannot be moved.
    """
    names = [printable(f"{path.relative_to(run)} ({reason})") for path, reason in files.items()]
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if not move and nothing_else:
        raise RunError(
            f"{run}: holds no report that can be read: {listed}; run the study, which moves it to {DAMAGED}/"
        )
    if not move:
        warn(f"{run}: left out what cannot be read: {listed}; the next run of the study moves it to {DAMAGED}/")
        return
    try:
        for path in files:
            place = run / DAMAGED / path.relative_to(run)
            place.parent.mkdir(parents=True, exist_ok=True)
            while os.path.lexists(place):
                place = place.with_name(f"{place.name}.again")
            path.rename(place)
    except OSError as error:
        raise StorageError(
            f"{run / DAMAGED}: {listed} cannot be moved there ({error.strerror}); it must be a folder that can be "
            "written, or not be there"
        ) from None
    warn(f"{run}: moved to {DAMAGED}/ what cannot be read: {listed}; the study continues without it")


@lru_cache(maxsize=1000)
def warn(message: str) -> None:
    """Once a process: several commands read a folder more than once."""
    _log.warning("%s", message)
