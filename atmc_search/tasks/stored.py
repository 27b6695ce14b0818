"""A run's artifacts as they lie in its folder, each with its trial's spec and data: to be measured again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from atmc_search.errors import AtmcError, RunError
from atmc_search.registry import refuse_imports
from atmc_search.results import RunFolder
from atmc_search.tasks.base import Task
from atmc_search.tasks.start import Start, parent_of
from atmc_search.tasks.trials import TrialSpace, checked

_REMEDY = "if you trust the run folder, add --trust (trust=True)"


@dataclass(frozen=True)
class Stored:
    """A trial's artifact, and all that measuring it takes.

    Attributes:
        row: of the trial, plain values; missing ones are None.
        task: of the study.
        spec: of the trial.
        data: what the task loaded for it.
        artifact: the file's bytes.
        path: what to call it in a message.
        folder: of the run.
    """

    row: Mapping[str, Any]
    task: type[Task]
    spec: Any
    data: Any
    artifact: bytes
    path: str
    folder: RunFolder

    def start(self) -> Start | None:
        """The start of the trial, if it is one that trials share and the run still holds it."""
        if parent_of(self.row.get("start")) is not None:
            return None
        names = (self.task.start_key(self.spec, self.data), *self.task.earlier_start_keys(self.spec))
        for name in names:
            if (found := _start(self.folder.starts / f"{name}.safetensors")) is not None:
                return found
        if not str(self.row.get("start")).startswith("file "):
            return None
        # Its key needs the file of weights, which may be gone or changed: its origin tells it as well.
        for path in sorted(self.folder.starts.glob("*.safetensors")):
            if (found := _start(path)) is not None and found.tensors and found.origin == self.row["start"]:
                return found
        return None


def _start(path: Path) -> Start | None:
    """The start in a file; None where there is no such file, or no start of ours in it."""
    try:
        return Start.from_bytes(path.read_bytes())
    except Exception:  # safetensors, JSON and torch each complain in their own way
        return None


def trial_space(folder: RunFolder, *, trust: bool) -> TrialSpace:
    """The study of a run, as its task reads it.

    Args:
        folder: the run.
        trust: whether to import a task that the folder's spec names as "module:attribute", which runs that code.

    Raises:
        SpecError: the task does not take the folder's spec.
        RunError: code would be imported without `trust`.
    """
    study = folder.spec()
    if not trust:
        refuse_imports({"task": study.task}, str(folder.spec_path), _REMEDY)
    return TrialSpace.of(checked(study, str(folder.spec_path)))


def stored_artifacts(folder: RunFolder, space: TrialSpace, trials: pd.DataFrame, *, trust: bool) -> Iterator[Stored]:
    """Reads the artifacts of some trials, one after the other.

    Args:
        folder: the run.
        space: of its study (`trial_space`).
        trials: rows of it.
        trust: whether to import what their specs name as "module:attribute", which runs that code.

    Raises:
        RunError: an artifact is missing, or not the one that was measured; its trial failed; or code would be imported
            without `trust`.
    """
    study = space.study
    torch.set_num_threads(max(1, int(study.resources.cpu)))  # as in the sweep: sums in the same order
    loaded: dict[str, Any] = {}
    for row in _records(trials, list(space.distributions)):
        spec = space.fill({path: row[path] for path in space.distributions})
        if not trust:
            refuse_imports({"trial": spec.model_dump(mode="json")}, str(folder.spec_path), _REMEDY)
        path = f"{folder.path}: the artifact of trial {row['trial']}"
        data = _artifact(folder, row, path, front_only=study.storage.keep_artifacts == "front")
        key = space.task.load_key(spec)
        if key not in loaded:
            loaded = {key: space.task.load_to_measure(spec)}  # one at a time
        yield Stored(row, space.task, spec, loaded[key], data, path, folder)


def _artifact(folder: RunFolder, row: Mapping[str, Any], path: str, *, front_only: bool) -> bytes:
    if row["artifact"] is None and row["state"] == "failed":
        raise RunError(f"{path} is missing because the trial failed: {row['reason']}; name a trial that did not")
    if row["artifact"] is None and front_only:
        raise RunError(f"{path} is gone, as no front needs it (storage.keep_artifacts: front); name one on a front")
    try:
        data: bytes = (folder.path / row["artifact"]).read_bytes()
    except (OSError, TypeError):
        raise RunError(f"{path} is missing; run the study again") from None
    digest = row["artifact_sha256"]
    if digest is not None and digest != hashlib.sha256(data).hexdigest():
        raise RunError(f"{path} is not the file that was measured (another SHA-256); restore it, or see evaluate")
    return data


def _records(trials: pd.DataFrame, parameters: list[str]) -> list[dict[str, Any]]:
    wanted = ["trial", "state", "reason", "artifact", "artifact_sha256", *parameters]
    if absent := [name for name in wanted if name not in trials]:
        raise RunError(f"the reports have no column {absent[0]!r}, so there is nothing to repeat; run the study again")
    plain = trials.astype(object).where(trials.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]


def recorded(stored: Stored, name: str) -> float | int | None:
    """The metric that the sweep recorded for a stored artifact; None where it recorded none."""
    value = stored.row.get(name)
    try:
        return value if isinstance(value, int) or value is None else float(value)
    except (TypeError, ValueError):
        raise AtmcError(f"{stored.path}: its {name} is no number in the reports; run the study again") from None
