"""A trial behind Ray's interface, with the server's class in this process in place of its actor."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import OutOfMemoryError
from toys import worker as new_worker

from atmc_search.results import RunFolder
from atmc_search.search import server as server_module
from atmc_search.search import trainable as trainable_module
from atmc_search.search.checkpoints import Checkpoints
from atmc_search.search.sampler import TRIAL_NUMBER
from atmc_search.search.server import TrialServer
from atmc_search.search.trainable import TrialTrainable
from atmc_search.spec import StudySpec
from atmc_search.tasks import TrialSpace
from atmc_search.tasks.atmc import AtmcTask

EPOCHS = 3
NO_ACTOR = SimpleNamespace(current_actor=None, get_actor_id=lambda: None)
TIMES = re.compile(r".*_s$")
Worker = Callable[..., TrialTrainable]


@pytest.fixture
def folder(tmp_path: Path, make_trials: Callable[..., TrialSpace], monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(server_module.ray, "put", lambda value: value)
    monkeypatch.setattr(trainable_module.ray, "get", lambda value: value)
    monkeypatch.setattr(trainable_module.ray, "get_runtime_context", lambda: NO_ACTOR)
    made = RunFolder(tmp_path / "parts")
    made.create(study(make_trials))
    return made


def study(make_trials: Callable[..., TrialSpace]) -> StudySpec:
    return make_trials(
        threat={"eps": 0.05},
        dense={"epochs": 0},
        train={"epochs": EPOCHS, "batch_size": 60, "attack": {"name": "pgd", "steps": 1}},
        compress={"codebook_from": 0.3, "dual_every": 3},
        evaluate={"attack": {"name": "fgsm"}, "masking_images": 0},
    ).study


@pytest.fixture
def worker(folder: RunFolder, make_trials: Callable[..., TrialSpace]) -> Worker:
    """`worker(number)`: a fresh process's trainable for that trial."""

    def make(number: int = 5) -> TrialTrainable:
        config = {
            "trial.train.lr": 0.02,
            "trial.compress.keep": 0.3,
            "trial.compress.bits": 4,
            TRIAL_NUMBER: number,
        }
        spec = study(make_trials)
        return new_worker(TrialServer(str(folder.path), spec), spec, config)

    return make


def timeless(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if not TIMES.match(key)}


def test_a_trial_broken_off_after_any_epoch_gives_the_same_file(folder: RunFolder, worker: Worker) -> None:
    whole = worker()
    rows = [whole.step() for _ in range(EPOCHS)]
    assert [row["report"]["state"] for row in rows] == ["running"] * (EPOCHS - 1) + ["complete"]
    artifact = (folder.path / rows[-1]["report"]["artifact"]).read_bytes()
    checkpoints = Checkpoints(folder.path)
    for done in range(EPOCHS):
        checkpoints.drop(5)
        (folder.path / rows[-1]["report"]["artifact"]).unlink()
        first = worker()
        for _ in range(done):
            first.step()
        second = worker()
        again = [second.step() for _ in range(EPOCHS - max(done - 1, 0))]
        # What it begins with is the report of the checkpoint's own epoch, which may have been lost on its way.
        assert [row["report"]["epoch"] for row in again] == list(range(max(done, 1), EPOCHS + 1))
        assert [row["notes"] for row in again] == [[]] * len(again)
        assert [timeless(row["report"]) for row in again] == [timeless(row["report"]) for row in rows[-len(again) :]]
        assert (folder.path / rows[-1]["report"]["artifact"]).read_bytes() == artifact


def damage(data: bytes, kind: str) -> bytes:
    return {"cut": data[:-9], "empty": b"", "flipped": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]}[kind]


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("cut", "not readable"),
        ("empty", "not readable"),
        ("flipped", "checksum is wrong"),
        ("of another trial", "it is of another trial"),
        ("of another version", "KeyError"),
    ],
)
def test_a_damaged_checkpoint_is_one_line_and_the_trial_begins_again(
    folder: RunFolder, worker: Worker, monkeypatch: pytest.MonkeyPatch, kind: str, note: str
) -> None:
    checkpoints = Checkpoints(folder.path)
    first = worker(6 if kind == "of another trial" else 5)
    row = first.step()
    data = checkpoints.read(first.config[TRIAL_NUMBER])
    assert data is not None
    if kind == "of another trial":
        checkpoints.write(5, data)
    elif kind == "of another version":
        original = AtmcTask.load_state_dict
        calls: list[int] = []

        def half(self: AtmcTask, tensors: Any, facts: Any) -> None:
            calls.append(1)
            original(self, tensors, facts)
            raise KeyError("selection")

        monkeypatch.setattr(AtmcTask, "load_state_dict", half)
    else:
        checkpoints.write(5, damage(data, kind))
    second = worker()
    again = second.step()
    (said,) = again["notes"]
    assert said.startswith("begins again, as its checkpoint cannot be used: ")
    assert note in said
    assert again["report"]["epoch"] == 1
    if kind != "of another trial":
        assert timeless(again["report"]) == timeless(row["report"])
    assert second.step()["notes"] == []


def test_a_task_whose_state_does_not_say_its_epoch_begins_again(
    folder: RunFolder, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker().step()
    monkeypatch.setattr(AtmcTask, "load_state_dict", lambda self, tensors, facts: None)
    again = worker().step()
    assert again["report"]["epoch"] == 1
    assert "after it the task says epoch 0, not 1" in again["notes"][0]


def test_a_task_without_a_plain_state_goes_without_checkpoints(
    folder: RunFolder, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AtmcTask, "state_dict", lambda self: ({}, {"a set": {1}}))
    trial = worker()
    rows = [trial.step() for _ in range(EPOCHS)]
    assert rows[-1]["report"]["state"] == "complete"
    assert [len(row["notes"]) for row in rows] == [1, 0, 0]
    assert "has no checkpoints, as its state_dict cannot be written (TypeError" in rows[0]["notes"][0]
    assert Checkpoints(folder.path).read(5) is None


def test_what_goes_wrong_around_a_trial_is_no_failure_of_it(
    folder: RunFolder, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost servers and nodes are for Ray Tune to start the trial anew; a start that was being made stays makeable."""

    def lost(self: TrialServer, *arguments: Any) -> None:
        raise OutOfMemoryError("the node ran out of memory")

    for name in ("put_start", "put_checkpoint"):
        Checkpoints(folder.path).drop(5)
        with monkeypatch.context() as patch:
            patch.setattr(TrialServer, name, lost)
            with pytest.raises(OutOfMemoryError):
                worker().step()
        assert worker().step()["report"]["state"] == "running"
