"""One Ray of two cores for all of these tests, and a task of the user's own on its workers' path."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

from atmc_search.spec import StudySpec, parse_study

# Finished in milliseconds and misbehaving by its trial's number, as `toy.modes` says: "fine,kill" kills trial 1, and
# "kill once" kills its worker in its third epoch the first time it gets there.
_TASK = """
import json, os, signal, time
from pathlib import Path
from typing import Literal
import torch
from pydantic import Field, model_validator
from atmc_search.errors import TrialFailed
from atmc_search.results import Column
from atmc_search.spec import Section, TrialSpec
from atmc_search.tasks import Start, Task


class ToySection(Section):
    modes: str = "fine"
    log: str
    epochs: int = Field(2, ge=1)
    lr: float
    shape: Literal["plain", "round"] = "plain"
    radius: float | None = None

    @model_validator(mode="after")
    def _round(self):
        if self.radius is not None and self.shape == "plain":
            raise ValueError("radius is of round toys and shape is plain; leave it out")
        return self


class ToySpec(TrialSpec):
    toy: ToySection


class Toy(Task):
    Spec = ToySpec
    columns = (
        Column("cost", "float64", "", "what it costs", low=0),
        Column("gain", "float64", "share", "what it brings", low=0, high=1),
        Column("steps", "int64", "", "a count"),
    )

    def __init__(self, spec, data, start, *, device, meta):
        self.spec, self.epochs, self.epoch, self.number = spec, spec.toy.epochs, 0, meta["trial"]
        assert start.tensors["w"].tolist() == [1.0, 2.0]
        modes = spec.toy.modes.split(",")
        self.mode = modes[self.number] if self.number < len(modes) else "fine"
        note(spec, f"trial {self.number} {spec.toy.lr!r} {spec.seed}")

    @classmethod
    def reference(cls, spec, data):
        return {"cost": 10.0}

    @classmethod
    def start_key(cls, spec, data):
        return "toy"

    @classmethod
    def make_start(cls, spec, data, *, device, report):
        note(spec, "start")
        report({"epoch": 1})
        if "bad start" in spec.toy.modes:
            raise RuntimeError("no start today")
        if "short start" in spec.toy.modes and not Path(spec.toy.log + ".room").exists():
            Path(spec.toy.log + ".room").touch()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return Start({"w": torch.tensor([1.0, 2.0])}, {})

    def step(self):
        self.epoch += 1
        metrics = {"cost": 1 + self.spec.toy.lr, "gain": 1 - self.spec.toy.lr / 2, "steps": self.epoch}
        if self.mode == "slow" and not Path(self.spec.toy.log + ".fast").exists():
            time.sleep(1)
        note(self.spec, f"epoch {self.number} {self.epoch} {os.getpid()}")
        if self.mode.endswith("once") and self.epoch == 3 and not Path(self.spec.toy.log + ".once").exists():
            Path(self.spec.toy.log + ".once").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mode == "server gone" and self.epoch == 3:
            siblings = [path for path in Path("/proc").glob("[0-9]*") if child_of(path, os.getppid())]
            (server,) = [path for path in siblings if "TrialServe" in (path / "comm").read_text()]
            os.kill(int(server.name), signal.SIGKILL)
        if self.mode == "hang" and self.epoch == 2 and not Path(self.spec.toy.log + ".fast").exists():
            time.sleep(1000)
        if self.epoch < 2:  # what goes wrong goes wrong in the second epoch, after a first good measurement
            return metrics
        if self.mode == "raise":
            raise ValueError("boom\\nin two lines")
        if self.mode == "raise till mended" and not Path(self.spec.toy.log + ".mended").exists():
            raise OSError(28, "No space left on device")
        if self.mode == "diverge":
            raise TrialFailed("diverged: lower the rate")
        if self.mode == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        if self.mode == "exit":
            os._exit(3)
        if self.mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        odd = {"nan": {"cost": float("nan")}, "inf": {"gain": float("inf")}, "none": {"cost": None}}
        odd |= {"word": {"cost": "cheap"}, "tensor": {"gain": torch.tensor(0.5)}, "half": {"steps": 0.5}}
        return metrics | odd.get(self.mode, {})

    def artifact(self):
        return json.dumps([self.number, self.epoch]).encode()

    def state_dict(self):
        return {"w": torch.full((2,), float(self.epoch))}, {"epoch": self.epoch}

    def load_state_dict(self, tensors, facts):
        self.epoch = facts["epoch"]
        assert tensors["w"].tolist() == [self.epoch, self.epoch]


def child_of(path, parent):
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[1]) == parent
    except OSError:  # gone meanwhile
        return False


def note(spec, text):
    with Path(spec.toy.log).open("a") as file:
        file.write(text + "\\n")
"""


@pytest.fixture(scope="session")
def user_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module `users_own_task`, for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "users_own_task.py").write_text(_TASK)
    return folder


@pytest.fixture(scope="session")
def ray_here(user_modules: Path) -> Iterator[None]:
    path, before = str(user_modules), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = path if before is None else f"{path}{os.pathsep}{before}"
    sys.path.insert(0, path)
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=80 * 2**20,
    )
    yield
    ray.shutdown()
    sys.path.remove(path)
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def toy_study(tmp_path: Path) -> Callable[..., StudySpec]:
    """`toy_study(trials=3, modes="fine,kill")`: a study of the user's own task that takes milliseconds a trial.

    With two cores a trial they run one after the other, and one worker has to start.
    """

    def make(
        *,
        trials: int,
        modes: str = "fine",
        epochs: int = 2,
        cpu: int = 2,
        toy: dict[str, Any] | None = None,
        **search: Any,
    ) -> StudySpec:
        return parse_study(
            {
                "name": "toys",
                "task": "users_own_task:Toy",
                "trial": {
                    "toy": {
                        "modes": modes,
                        "log": str(tmp_path / "log"),
                        "epochs": epochs,
                        "lr": {"uniform": [0.1, 1.0]},
                        **(toy or {}),
                    }
                },
                "objectives": {"cost": "min", "gain": "max"},
                "search": {"trials": trials, **search},
                "resources": {"cpu": cpu},
            }
        )

    return make


@pytest.fixture
def log(tmp_path: Path) -> Callable[[], list[str]]:
    """What that task noted: a line for every start and every trial that was begun."""
    return lambda: (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []


@pytest.fixture
def quiet() -> Console:
    return Console(file=StringIO())
