"""The command `atmc-search`, also as `python -m atmc_search`: there before anything heavy is imported."""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """Entry point. A signal during the imports, when nothing is held yet, ends it with one line."""
    before = {number: signal.signal(number, _end) for number in (signal.SIGINT, signal.SIGTERM)}
    from atmc_search import cli

    for number, handler in before.items():
        signal.signal(number, handler)
    cli.main()


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
