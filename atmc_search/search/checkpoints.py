"""What a trial in training leaves on disk after every epoch, so that another process goes on from there.

A checkpoint is a safetensors file: the tensors of `Task.state_dict`, and as JSON the task's facts, the report of the
epoch and a checksum over all of it. Nothing is unpickled. The report travels along because a process can die after its
checkpoint and before its report was recorded: it is sent again, and no finished epoch is done twice.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atmc_search.errors import RunError
from atmc_search.results import RunFolder
from atmc_search.training import tensors_from_bytes, tensors_to_bytes


@dataclass(frozen=True)
class Checkpoint:
    """A trial after an epoch.

    Attributes:
        tensors, facts: the task's `state_dict`.
        report: of that epoch; its keys `epoch` and `trial_fingerprint` say whose it is.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    report: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """The file.

        Raises:
            TypeError, ValueError: the task's facts are not what JSON can say, or its tensors not what a file can hold.
        """
        plain = {name: value.item() if hasattr(value, "item") else value for name, value in self.report.items()}
        body = json.dumps([self.facts, plain])
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        return tensors_to_bytes(tensors, {"body": body, "crc32": _checksum(tensors, body)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        """What `to_bytes` wrote.

        Raises:
            RunError: damaged, or no file of ours.
        """
        try:
            tensors, outer = tensors_from_bytes(data)
            intact = outer["crc32"] == _checksum(tensors, outer["body"])
            facts, report = json.loads(outer["body"])
        except Exception as error:  # safetensors, JSON and torch each complain in their own way
            raise RunError(f"not readable ({' '.join(str(error).split())[:100]})") from None
        if not intact:
            raise RunError("its checksum is wrong")
        return cls(tensors, facts, report)


class Checkpoints:
    """The folder `checkpoints/` of a run: the newest checkpoint of each trial that has not ended."""

    def __init__(self, run: str | Path, token: str | None = None) -> None:
        self._run = RunFolder(run, token=token)
        self._folder = self._run.path / "checkpoints"

    def write(self, trial: int, data: bytes) -> None:
        """Replaces the trial's checkpoint, whole or not at all."""
        self._run.write(self._path(trial), data)

    def read(self, trial: int) -> bytes | None:
        """The trial's newest checkpoint; None where there is none."""
        path = self._path(trial)
        return self._run.read(path) if path.exists() else None

    def drop(self, trial: int) -> None:
        """The trial has ended."""
        self._path(trial).unlink(missing_ok=True)

    def keep_only(self, trials: set[int]) -> None:
        """Drops what is of no other trial's use, halves of files that a killed process left included.

        For a folder that no process writes to: before a sweep and after it.
        """
        if self._folder.is_dir():
            wanted = {self._path(trial).name for trial in trials}
            for path in self._folder.iterdir():
                if path.name not in wanted and (path.suffix in (".safetensors", ".partial")):
                    path.unlink(missing_ok=True)

    def _path(self, trial: int) -> Path:
        return self._folder / f"{trial:05d}.safetensors"


def _checksum(tensors: Mapping[str, Tensor], body: str) -> int:
    # safetensors checks the shape of a file, not its content.
    total = zlib.crc32(body.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), total)
        flat = tensor.reshape(-1)
        if flat.numel():
            total = zlib.crc32(flat.view(torch.uint8).numpy().data, total)
    return total
