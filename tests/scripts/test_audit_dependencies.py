"""The audit of our packages turns CI red for what is known against them, and for nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import audit_dependencies

FOUND = {"id": "PYSEC-2023-1", "aliases": ["CVE-2023-1"], "fix_versions": ["14.0.1"], "description": "x"}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
GOOD = {"name": "click", "version": "8.5.1", "vulns": []}
BAD = {"name": "pyarrow", "version": "14.0.0", "vulns": [FOUND]}


@pytest.mark.parametrize(
    ("answers", "justified", "code", "said"),
    [
        ([[GOOD, UNKNOWN]], {}, 0, "audited 1 of 2 packages by pypi"),
        ([[GOOD, BAD]], {}, 1, "VULNERABLE pyarrow 14.0.0: PYSEC-2023-1 CVE-2023-1; mended in 14.0.1"),
        ([[GOOD, BAD]], {"CVE-2023-1": "no such file is read"}, 0, "justified  pyarrow 14.0.0"),
        ([[GOOD, BAD]], {"CVE-2024-9": "another one"}, 1, "VULNERABLE"),
        ([[UNKNOWN], [BAD]], {}, 1, "audited 1 of 1 packages by osv"),
        ([[UNKNOWN], []], {}, 0, "NOT AUDITED"),
        ([[], []], {}, 0, "osv: no route"),
    ],
)
def test_only_what_is_known_and_not_justified_turns_it_red(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: list[Any],
    justified: dict[str, str],
    code: int,
    said: str,
) -> None:
    left = iter(answers)
    monkeypatch.setattr(audit_dependencies, "ask", lambda service: (answer := next(left), "" if answer else "no route"))
    monkeypatch.setattr(audit_dependencies, "JUSTIFIED", justified)
    assert audit_dependencies.main() == code
    assert said in capsys.readouterr().out


def test_a_service_that_fails_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(audit_dependencies, "CONSTRAINTS", tmp_path / "none.txt")
    report, reason = audit_dependencies.ask("pypi")
    assert report == []
    assert reason
