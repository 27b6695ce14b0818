"""What a user's task returns that no search can use ends its trial with one line: what it returned, what it must."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toys import Toy, config_of, toy_study, worker

from atmc_search.errors import DataError
from atmc_search.results import RunFolder
from atmc_search.search import server as server_module
from atmc_search.search import trainable as trainable_module
from atmc_search.search.preflight import prepare
from atmc_search.search.server import TrialServer

NO_ACTOR = SimpleNamespace(current_actor=None, get_actor_id=lambda: None)
WELL = {"cost": 1.0, "first": 2.0, "made_in": 0}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(server_module.ray, "put", lambda value: value)
    monkeypatch.setattr(trainable_module.ray, "get", lambda value: value)
    monkeypatch.setattr(trainable_module.ray, "get_runtime_context", lambda: NO_ACTOR)
    made = RunFolder(tmp_path / "toys")
    made.create(toy_study())
    return made


def reported(folder: RunFolder) -> Any:
    return worker(TrialServer(str(folder.path), toy_study()), toy_study(), config_of(0)).step()["report"]


def returning(value: Any) -> Any:
    """A step that goes on, and returns this."""

    def step(self: Toy) -> Any:
        self.epoch += 1
        return value

    return step


@pytest.mark.parametrize(
    ("method", "faulty", "reason"),
    [
        ("artifact", lambda self: "12.5", "artifact returned '12.5'; it must return the bytes of a file"),
        ("step", returning(1.5), "step returned 1.5; it must return metrics by column name, e.g. {'error': 0.1}"),
        (
            "step",
            returning({**WELL, "costs": 2.0}),
            "step returned 'costs', which is no column of its task; declare it",
        ),
        (
            "step",
            returning({**WELL, "cost": "low"}),
            "cost = 'low': its column is float64; return a plain number, e.g.",
        ),
        (
            "step",
            returning({**WELL, "made_in": 0.5}),
            "made_in = 0.5: its column is int64; return a whole number, e.g.",
        ),
        ("step", lambda self: WELL, "after a step its task still says epoch 0; step must add to self.epoch"),
        (
            "make_start",
            lambda *args, **kwargs: {"w": 1},
            "make_start returned {'w': 1}; it must return an atmc_search.ta",
        ),
        (
            "__init__",
            lambda self, *args, **kwargs: None,
            "its task has no whole number in self.epochs; set it in __init",
        ),
    ],
)
def test_it_ends_the_trial(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, method: str, faulty: Any, reason: str
) -> None:
    assert reported(folder)["state"] == "complete"
    monkeypatch.setattr(Toy, method, faulty)
    server = TrialServer(str(folder.path), toy_study())
    report = worker(server, toy_study(), config_of(1, start=7)).step()["report"]
    assert report["state"] == "failed"
    assert reason in report["reason"]


def test_a_load_that_fails_is_one_line_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(spec: Any) -> Any:
        raise KeyError("no table")

    monkeypatch.setattr(Toy, "load", load)
    with pytest.raises(DataError, match=r"^task Toy: its load failed \(KeyError: 'no table'\); mend it, or what it re"):
        prepare(toy_study())
