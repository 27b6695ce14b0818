"""A sweep that is to end before its time: asked for by a signal, or because too many trials fail.

The first signal ends it in order: no new trials, those that run end their epoch, which leaves a checkpoint. The second,
or the end of `search.stop_within_s`, ends it at once; so does the first while Ray starts, when nothing runs. What was
reported is on disk in any case.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_S = 0.2
"""Signals so close are one: timeout(1), for one, sends its to the program and then to its whole group."""


class StopNow(KeyboardInterrupt):
    """Ends the sweep where it stands. No `Exception`, so that nothing on the way out takes it for a fault."""


class StopRequest:
    """Whether the sweep is to stop, since when, and why.

    Attributes:
        signal: the number of the signal that asked for it; None if none did.
        reason: why, where it was no signal.
    """

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._since: float | None = None
        self._signalled = -math.inf
        self.signal: int | None = None
        self.reason = ""

    @property
    def requested(self) -> bool:
        return self._since is not None

    def request(self, reason: str, *, at_once: bool = False) -> None:
        """Asks for a stop in order, or without waiting for trials that run."""
        self._since = -math.inf if at_once else self._since or time.monotonic()
        self.reason = self.reason or reason

    def enforce(self) -> None:
        """Raises StopNow once the time for a stop in order is over."""
        if self._since is not None and time.monotonic() - self._since > self._within_s:
            raise StopNow

    @contextmanager
    def on_signals(self, *, at_once: bool = False) -> Iterator[None]:
        """Ctrl-C and SIGTERM make the request, a second of them raises StopNow. Nothing outside the main thread.

        Args:
            at_once: the first raises StopNow already.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def take(number: int, frame: FrameType | None) -> None:
            self.take(number, at_once=at_once)

        before = {number: signal.signal(number, take) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def take(self, number: int, *, at_once: bool) -> None:
        """A signal came.

        Raises:
            StopNow: it is the second, or the stop is to be at once.
        """
        again = self.signal is not None
        if again and time.monotonic() - self._signalled < _ONE_S:
            return
        self._signalled = time.monotonic()
        self.signal = self.signal or number
        self.request("", at_once=at_once)
        if again or at_once:
            raise StopNow
