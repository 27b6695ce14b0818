"""Who only reads tables waits for neither torch nor matplotlib, and imports nothing of the study's task."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from atmc_search.results import STUDY_COLUMNS, Column, RunFolder, parameter_columns
from atmc_search.spec import StudySpec, parse_study
from atmc_search.tasks.atmc.columns import ATMC_COLUMNS

HEAVY = ("torch", "matplotlib", "ray", "sklearn", "onnx", "atmc_search.tasks", "atmc_search.search", "their_module")
STUDIES = {
    "atmc": {"data": {"name": "digits"}, "compress": {"keep": {"uniform": [0.1, 0.9]}}},
    "their_module:Task": {"depth": {"int_uniform": [1, 9]}},
}
COLUMNS = {
    "atmc": ATMC_COLUMNS,
    "their_module:Task": (
        Column("size_bytes", "int64", "bytes", "of the file", log=True, better="min"),
        Column("robust_accuracy", "float64", "share", "of theirs", better="max"),
    ),
}
PROGRAM = """
import atexit, json, sys
from atmc_search.__main__ import main
atexit.register(lambda: print("\\n" + json.dumps(sorted(sys.modules))))
sys.argv = ["atmc-search", *sys.argv[1:]]
main()
"""
DATA = """
import json, sys
import atmc_search
from atmc_search.report import curve_data, front_data
trials = atmc_search.load_trials(sys.argv[1])
found = front_data(trials, trials.attrs["objectives"])
assert len(found.panels[0].points) == 3 and found.x.log, found
print("\\n" + json.dumps(sorted(sys.modules)))
"""


def study(task: str) -> StudySpec:
    objectives = {"size_bytes": "min", "robust_accuracy": "max"}
    document = {"name": "read", "task": task, "trial": STUDIES[task], "objectives": objectives}
    return parse_study({**document, "search": {"trials": 3}})


@pytest.fixture(scope="module", params=STUDIES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = study(request.param)
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "read")
    folder.create(spec)
    columns = (*STUDY_COLUMNS, *COLUMNS[request.param], *parameter_columns(spec.distributions))
    for number in range(3):
        sampled = {path: [1, 0.5]["keep" in path] for path in spec.distributions}
        figures = {"size_bytes": 900 + number, "robust_accuracy": 0.3 + number / 10}
        folder.append({"trial": number, "state": "complete", **sampled, **figures}, columns, number)
    return folder.path


def imported(code: str, *words: object) -> list[str]:
    """Which heavy packages a program imported, or parts of ours that it has no use for."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    modules = json.loads(done.stdout.splitlines()[-1])
    return [name for name in HEAVY if name in modules]


@pytest.mark.parametrize("words", ["front", "front --json", "choose --best robust_accuracy", "columns"])
def test_a_command_that_reads_tables_imports_nothing_heavy(run: Path, words: str) -> None:
    command, *more = words.split()
    assert imported(PROGRAM, command, run, *more) == []


def test_what_a_figure_shows_needs_no_drawing(run: Path) -> None:
    assert imported(DATA, run) == []
