"""Requests to stop, and the signals that make them."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from atmc_search.search import stopping
from atmc_search.search.stopping import StopNow, StopRequest


class Clock:
    now = 5.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stopping.time, "monotonic", made.monotonic)
    return made


def test_a_request_has_its_time(clock: Clock) -> None:
    stop = StopRequest(20)
    clock.now += 100
    stop.enforce()
    assert not stop.requested
    stop.request("too many failed")
    clock.now += 15
    stop.request("another reason")  # neither asks for more time nor takes the first one's reason
    stop.enforce()
    assert (stop.requested, stop.signal, stop.reason) == (True, None, "too many failed")
    clock.now += 5.1
    with pytest.raises(StopNow):
        stop.enforce()


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_asks_and_the_second_ends(first: signal.Signals, second: signal.Signals, clock: Clock) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stop = StopRequest(20)
    with stop.on_signals():
        os.kill(os.getpid(), first)
        assert (stop.requested, stop.signal, stop.reason) == (True, first, "")
        clock.now += 0.3
        with pytest.raises(StopNow):
            os.kill(os.getpid(), second)
        assert stop.signal == first
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_comes_twice_at_once_is_one(clock: Clock) -> None:
    """As from timeout(1), which signals its child and then the group that holds it."""
    stop = StopRequest(20)
    with stop.on_signals():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            clock.now += 0.1
        stop.enforce()
        assert stop.signal == signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_where_nothing_runs_yet_the_first_ends(number: signal.Signals) -> None:
    stop = StopRequest(20)
    with stop.on_signals(at_once=True), pytest.raises(StopNow):
        os.kill(os.getpid(), number)
    assert (stop.requested, stop.signal) == (True, number)
    with pytest.raises(StopNow):
        stop.enforce()


def test_a_signal_during_a_stop_for_another_reason_still_asks_in_order() -> None:
    stop = StopRequest(20)
    with stop.on_signals():
        stop.request("too many failed")
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.signal, stop.reason) == (signal.SIGTERM, "too many failed")


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    before, inside = signal.getsignal(signal.SIGINT), []

    def run() -> None:
        with StopRequest(20).on_signals():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert inside == [before]


def test_no_fault_handler_takes_it_for_a_fault() -> None:
    assert not issubclass(StopNow, Exception)
