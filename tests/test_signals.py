"""Ctrl-C and SIGTERM before a sweep began: one line, the right exit code, nothing left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

SPEC = (Path(__file__).parents[1] / "search_spaces" / "digits_quickstart.yaml").read_text()
INTERRUPTED_AT = """
import os, signal, sys
from atmc_search.__main__ import main

class Finder:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            os.kill(os.getpid(), {number})

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
sys.meta_path.insert(0, Finder())
sys.argv = ["atmc-search", "run", "spec.yaml"]
main()
"""


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("atmc_search.cli", signal.SIGINT),
        ("atmc_search.cli", signal.SIGTERM),
        ("atmc_search.results.lock", signal.SIGTERM),
        ("sklearn.datasets", signal.SIGINT),
        ("sklearn.datasets", signal.SIGTERM),
    ],
)
def test_a_signal_before_the_sweep(module: str, number: signal.Signals, tmp_path: Path) -> None:
    """While the program is imported, while a command imports what it needs, while data is read."""
    (tmp_path / "spec.yaml").write_text(SPEC)
    code = INTERRUPTED_AT.format(module=module, number=int(number))
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr.strip()) == (128 + number, "stopped")
    reading = module == "sklearn.datasets"
    assert ended.stdout == ("continue with the same command: atmc-search run spec.yaml\n" if reading else "")
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


def test_help_needs_nothing_heavy() -> None:
    code = "import sys; from atmc_search.cli import cli; print({'torch', 'pandas', 'ray'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
