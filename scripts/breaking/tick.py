"""A task of short epochs whose figures follow from one another, so that a wrong resume shows in every later one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atmc_search.results import Column
from atmc_search.spec import Section, TrialSpec
from atmc_search.tasks import Report, Start, Task


def gain_after(epochs: int, lr: float) -> float:
    """The figure of an epoch: each one depends on all before it."""
    gain = 0.0
    for _ in range(epochs):
        gain = _next(gain, lr)
    return gain


def _next(gain: float, lr: float) -> float:
    return gain + lr * (1 - gain) ** 2


class TickSection(Section):
    """What a trial does.

    Attributes:
        log: a file that takes a line for every epoch.
        epochs: how many.
        epoch_s: how long one lasts, in seconds.
        lr: the rate.
    """

    log: str
    epochs: int
    epoch_s: float
    lr: float


class TickSpec(TrialSpec):
    """One trial."""

    tick: TickSection


class Tick(Task):
    """Sleeps, counts, and notes every epoch that it has done in the file `tick.log`."""

    Spec = TickSpec
    columns = (
        Column("cost", "float64", "", "the rate itself", low=0),
        Column("gain", "float64", "share", "grows with every epoch", low=0, high=1),
    )

    def __init__(self, spec: TickSpec, data: None, start: Start, *, device: str, meta: Mapping[str, Any]) -> None:
        self._spec, self._number, self._gain = spec.tick, meta["trial"], 0.0
        self.epochs, self.epoch = spec.tick.epochs, 0

    @classmethod
    def reference(cls, spec: TickSpec, data: None) -> Mapping[str, float]:
        return {"cost": 1.0}

    @classmethod
    def make_start(cls, spec: TickSpec, data: None, *, device: str, report: Report) -> Start:
        time.sleep(spec.tick.epoch_s)
        return Start({"zero": torch.zeros(1)})

    def step(self) -> dict[str, Any]:
        time.sleep(self._spec.epoch_s)
        self._gain = _next(self._gain, self._spec.lr)
        self.epoch += 1
        with Path(self._spec.log).open("a") as log:
            log.write(f"{self._number} {self.epoch} {os.getpid()}\n")
        return {"cost": self._spec.lr, "gain": self._gain}

    def artifact(self) -> bytes:
        return json.dumps([self._number, self.epoch, self._gain]).encode()

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"gain": torch.tensor(self._gain, dtype=torch.float64)}, {"epoch": self.epoch}

    def load_state_dict(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.epoch, self._gain = facts["epoch"], tensors["gain"].item()
