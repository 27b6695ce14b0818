"""The program in this process, in a folder of the case's own, with nothing to download from or into."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell import Run, program


@pytest.fixture
def atmc(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`atmc("front", "runs/x")`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATMC_SEARCH_DATA", str(tmp_path / "cache"))
    return program(capsys, monkeypatch)
