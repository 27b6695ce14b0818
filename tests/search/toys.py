"""A user's task of no work at all, and a worker and server in this process in place of Ray's actors."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from atmc_search.errors import SpecError
from atmc_search.results import Column
from atmc_search.search.sampler import TRIAL_NUMBER
from atmc_search.search.server import TrialServer
from atmc_search.search.trainable import TrialTrainable
from atmc_search.spec import Section, StudySpec, TrialSpec, parse_study
from atmc_search.tasks import Report, Start, State, Task


class ToySection(Section):
    """Which data and start a trial has."""

    table: int = 0
    start: int = 0


class ToySpec(TrialSpec):
    """A trial."""

    toy: ToySection = ToySection()


class Toy(Task):
    """Reports where it started from."""

    Spec = ToySpec
    columns = (
        Column("cost", "float64", "", "what it costs"),
        Column("first", "float64", "", "first number of the start"),
        Column("made_in", "int64", "", "which attempt made the start"),
    )
    objectives: ClassVar[Mapping[str, Any]] = {"cost": "min"}
    floats: ClassVar[int] = 1
    """Size of the table and of the start."""
    make: ClassVar[Callable[[int], None]] = staticmethod(lambda attempt: None)
    """Called while a start is made, with how many were begun before."""
    attempts: ClassVar[int] = 0
    loads: ClassVar[int] = 0

    @classmethod
    def load_key(cls, spec: ToySpec) -> str:
        return f"table {spec.toy.table}"

    @classmethod
    def load(cls, spec: ToySpec) -> np.ndarray[Any, Any]:
        cls.loads += 1
        return np.full(cls.floats, float(spec.toy.table), dtype=np.float32)

    @classmethod
    def check(cls, spec: ToySpec, data: np.ndarray[Any, Any]) -> None:
        if data[0] != spec.toy.table:
            raise SpecError("trial.toy.table: got another's table")

    @classmethod
    def start_key(cls, spec: ToySpec, data: Any) -> str:
        return f"start-{spec.toy.start}"

    @classmethod
    def make_start(cls, spec: ToySpec, data: Any, *, device: str, report: Report) -> Start:
        cls.attempts += 1
        cls.make(cls.attempts - 1)
        return Start({"w": torch.full((cls.floats,), float(spec.toy.start))}, {"made_in": cls.attempts - 1})

    @classmethod
    def start_from(cls, spec: ToySpec, data: Any, artifact: bytes) -> Start:
        return Start({"w": torch.tensor([float(artifact)])})

    def __init__(self, spec: ToySpec, data: Any, start: Start, *, device: str, meta: Mapping[str, Any]) -> None:
        assert data[0] == spec.toy.table
        self._start, self.epochs, self.epoch = start, 1, 0

    def step(self) -> dict[str, Any]:
        self.epoch += 1
        return {"cost": 1.0, "first": self._start.tensors["w"][0].item(), **self._start.facts}

    def artifact(self) -> bytes:
        return b"12.5"

    def state_dict(self) -> State:
        return {}, {"epoch": self.epoch}

    def load_state_dict(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.epoch = facts["epoch"]


def toy_study(**changes: Any) -> StudySpec:
    """A study of `toys:Toy` over many tables and starts."""
    many = {"int_uniform": [0, 999]}
    return parse_study(
        {
            "name": "toys",
            "task": "toys:Toy",
            "trial": {"toy": {"table": many, "start": many}},
            "objectives": {"cost": "min"},
            "search": {"trials": 4},
            **changes,
        }
    )


class Here:
    """The server as its handle looks: `server.method.remote(...)`."""

    def __init__(self, server: TrialServer) -> None:
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._server, name))


def worker(server: TrialServer, study: StudySpec, config: Mapping[str, Any]) -> TrialTrainable:
    """A fresh process's trainable for a trial."""
    made = object.__new__(TrialTrainable)  # without the log folders that Ray's constructor makes
    made.config = dict(config)
    made.setup(made.config, spec=study, server=Here(server))
    return made


def config_of(number: int, *, table: int = 0, start: int = 0) -> dict[str, Any]:
    """A trial of `toy_study`."""
    return {"trial.toy.table": table, "trial.toy.start": start, TRIAL_NUMBER: number}


def resident_bytes() -> int:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
