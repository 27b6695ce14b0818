"""The program as a shell sees it: what the tests of the command line share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from atmc_search import cli


@dataclass
class Outcome:
    """How a call of the program ended, and what it wrote."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]
"""`atmc("front", run)`."""


def program(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The program in this process."""

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["atmc-search", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        code = end.value.code
        assert isinstance(code, int)
        return Outcome(code, captured.out, captured.err)

    return run


def one_line(outcome: Outcome) -> str:
    """The message of a user's mistake: one line on standard error, exit code 2, nothing else."""
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert outcome.err.endswith("\n")
    return outcome.err
