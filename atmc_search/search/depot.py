"""A Ray actor beside the driver that keeps what trials share and takes in what they make.

Data and starts (dense weights) go through the object store once. A start is made by the first trial that needs it,
on the resources which that trial holds anyway (a separate Ray task could wait for ever for resources that trials
hold while they wait for it); the others wait. The maker renews its lease after every epoch; when it falls silent for
longer than a lease, the next who asks takes over. Artifacts and checkpoints are on the driver's disk before their
report is sent. All methods may be called twice with the same arguments: Ray restarts a lost depot and repeats calls.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ray

from atmc_search.data import Splits, load_splits
from atmc_search.errors import printable
from atmc_search.results import RunFolder
from atmc_search.search.checkpoints import Checkpoints
from atmc_search.spec import DataSpec
from atmc_search.training import tensors_from_bytes

_LEASE_S = 120.0


@dataclass
class _Making:
    owner: int
    renewed: float
    longest: float = 0.0
    progress: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """The answer to a trial that needs a start: here it is, make it, wait, or it failed for this reason."""

    state: Literal["ready", "make", "wait", "failed"]
    start: ray.ObjectRef[Any] | None = None
    reason: str = ""


class Depot:
    """See the module. Used as a Ray actor; methods return quickly, so that one thread serves all trials."""

    def __init__(self, run: str, token: str | None = None) -> None:
        """`token`: of the driver's lock, see `RunFolder`."""
        self._folder = RunFolder(run, token=token)
        self._checkpoints = Checkpoints(run, token)
        self._data: dict[DataSpec, list[ray.ObjectRef[Any]]] = {}
        self._starts: dict[str, ray.ObjectRef[Any]] = {}
        self._failed: dict[str, str] = {}
        self._making: dict[str, _Making] = {}
        self._training_since: dict[int, float] = {}
        self._waiting: set[int] = set()
        # Set where this depot follows one that was lost: since when trials it has not heard of must be training.
        self._restarted_at = time.monotonic() if _restarted() else None
        self._workers: list[Any] = []

    def enroll(self, worker: Any) -> None:
        """Takes in the handle of an actor that runs trials."""
        self._workers.append(worker)

    def workers(self) -> list[Any]:
        """The handles of all of them, of which some may have ended."""
        return self._workers

    def put_data(self, data: Mapping[DataSpec, list[ray.ObjectRef[Any]]]) -> None:
        """Takes in what the driver has loaded. A restarted depot loads it itself."""
        self._data.update(data)

    def data(self, spec: DataSpec) -> list[ray.ObjectRef[Any]]:
        """A reference (in a list, or Ray would fetch it here) to the splits of a data spec."""
        if spec not in self._data:
            self._data[spec] = [ray.put(load_splits(spec))]
        return self._data[spec]

    def claim_start(self, key: str, owner: int) -> Claim:
        """Asks for the start of this key on behalf of trial number `owner`."""
        self._waiting.add(owner)
        if key in self._failed:
            return Claim("failed", reason=self._failed[key])
        if key not in self._starts:
            self._load(key)
        if key in self._starts:
            return Claim("ready", self._starts[key])
        making = self._making.get(key)
        now = time.monotonic()
        if making is None or now - making.renewed > _LEASE_S + 3 * making.longest:
            self._making[key] = _Making(owner, now)
            return Claim("make")
        return Claim("wait")

    def renew_start(self, key: str, owner: int, progress: Mapping[str, Any]) -> None:
        """The maker is alive and this far."""
        self._waiting.add(owner)
        making = self._making.get(key)
        if making is not None and making.owner == owner:
            now = time.monotonic()
            making.longest = max(making.longest, now - making.renewed)
            making.renewed, making.progress = now, progress

    def put_start(self, key: str, data: bytes) -> None:
        """Takes in a start (safetensors); it is on disk, for runs that go on later, before anyone gets it."""
        self._folder.write(self._path(key), data)
        self._making.pop(key, None)
        self._load(key)

    def fail_start(self, key: str, reason: str) -> None:
        """No trial can have this start: every one that asks fails with the reason."""
        self._making.pop(key, None)
        self._failed[key] = reason

    def starts_in_making(self) -> list[Mapping[str, Any]]:
        """Progress of the starts that are being made."""
        return [making.progress for making in self._making.values()]

    def put_artifact(self, trial: int, data: bytes) -> tuple[str, str]:
        """Writes a trial's artifact; its path relative to the run folder, and its SHA-256."""
        return self._folder.write_artifact(trial, data)

    def put_checkpoint(self, trial: int, data: bytes) -> None:
        """Takes in a trial's newest checkpoint."""
        self._checkpoints.write(trial, data)

    def begin(self, trial: int) -> bytes | None:
        """A worker is ready to train this trial: the checkpoint to go on from, None to begin."""
        self._waiting.discard(trial)
        self._training_since[trial] = time.monotonic()
        return self._checkpoints.read(trial)

    def prepare(self, trial: int) -> None:
        """A worker took on this trial; what it waits for now, a start, does not count as training."""
        self._training_since.pop(trial, None)
        self._waiting.add(trial)

    def training_s(self, running: Iterable[int]) -> dict[int, float]:
        """For how long the workers of these trials have trained them; not those that wait, or are only coming up.

        A depot that follows a lost one counts from its own beginning for trials that have said nothing to it yet.
        """
        since = dict(self._training_since)
        if self._restarted_at is not None:
            since |= {n: self._restarted_at for n in running if n not in since and n not in self._waiting}
        now = time.monotonic()
        return {trial: now - since[trial] for trial in running if trial in since}

    def put_traceback(self, trial: int, text: str) -> None:
        """Keeps the traceback of a failed trial as errors/<trial>.txt."""
        path = self._folder.path / "errors" / f"{trial:05d}.txt"
        self._folder.write(path, printable(text, keep="\n\t").encode())

    def _path(self, key: str) -> Path:
        return self._folder.starts / f"{key}.safetensors"

    def _load(self, key: str) -> None:
        path = self._path(key)
        if path.exists():
            data = self._folder.read(path)
            try:
                tensors_from_bytes(data)
            except Exception:  # whatever is in the file: a start that cannot be read is set aside and made again
                self._folder.set_aside({path: "no dense start"}, move=True)
                return
            self._starts[key] = ray.put(data)


def data_references(data: Mapping[DataSpec, Splits]) -> dict[DataSpec, list[ray.ObjectRef[Any]]]:
    """Puts every set of splits into the object store."""
    return {spec: [ray.put(splits)] for spec, splits in data.items()}


def _restarted() -> bool:
    """Whether Ray has started this actor anew after a loss."""
    context = ray.get_runtime_context() if ray.is_initialized() else None
    return bool(context and context.get_actor_id() and context.was_current_actor_reconstructed)
