"""A Ray actor beside the driver that serves trials: what they share, and where what they make is kept.

Data and starts (dense weights) go through the object store. A start is made by the first trial that needs it, on the
resources which that trial holds anyway (a separate Ray task could wait for ever for resources that trials hold while
they wait for it); the others wait. While it makes a start, the maker sends a heartbeat; when none has come for a lease,
the next trial that asks takes over. A start that fails by what may pass (memory, storage) is tried again, on another
worker if one waits for it. Artifacts and checkpoints are on the driver's disk before their report is sent. What is
kept in memory is bounded: more is read from disk again. All methods may be called twice with the same arguments: Ray
restarts a lost server and repeats calls.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ray

from atmc_search.errors import RunError, printable
from atmc_search.results import RunFolder
from atmc_search.search.checkpoints import Checkpoints
from atmc_search.search.recent import Recent
from atmc_search.spec import StudySpec
from atmc_search.tasks import Start, TrialSpace, task_named

HEARTBEAT_S = 15.0
"""How often the maker of a start says that it is alive."""

KEPT_DATA = 4
"""Sets of data that the driver and the server hold at a time."""

_KEPT_STARTS = 4
_KEPT_FIGURES = 16
"""Starts whose figures are still told; the display says each once."""
_LEASE_S = 120.0
_TRIES = 3
"""Times that a start may fail by what may pass."""
_ELSEWHERE_S = 5.0
"""For how long a start that failed is left to other workers."""


@dataclass
class _Making:
    owner: int
    heard: float
    progress: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _GivenUp:
    """A start that failed by what may pass: how often, by whom last, when, and why."""

    tries: int
    owner: int
    at: float
    reason: str


@dataclass(frozen=True)
class Claim:
    """The answer to a trial that needs a start: here it is, make it, wait, or it failed for this reason."""

    state: Literal["ready", "make", "wait", "failed"]
    start: ray.ObjectRef[Any] | None = None
    reason: str = ""


@dataclass(frozen=True)
class StartProgress:
    """A start in the making, with the figures of its last epoch; or one that is there, with its own."""

    key: str
    ready: bool
    figures: Mapping[str, Any]


class TrialServer:
    """See the module. Used as a Ray actor; methods return quickly, so that one thread serves all trials."""

    def __init__(self, run: str, study: StudySpec, token: str | None = None) -> None:
        """`token`: of the driver's lock, see `RunFolder`."""
        self._folder = RunFolder(run, token=token)
        self._trials = TrialSpace(study, task_named(study.task))
        self._checkpoints = Checkpoints(run, token)
        self._data: Recent[str, list[ray.ObjectRef[Any]]] = Recent(KEPT_DATA)
        self._starts: Recent[str, ray.ObjectRef[Any]] = Recent(_KEPT_STARTS)
        self._ready: Recent[str, Mapping[str, Any]] = Recent(_KEPT_FIGURES)
        self._failed: dict[str, str] = {}
        self._given_up: dict[str, _GivenUp] = {}
        self._making: dict[str, _Making] = {}
        self._training_since: dict[int, float] = {}
        self._waiting: set[int] = set()
        # Set where this server follows one that was lost: since when trials it has not heard of must be training.
        self._restarted_at = time.monotonic() if _restarted() else None
        self._workers: list[Any] = []

    def enroll(self, worker: Any) -> None:
        """Takes in the handle of an actor that runs trials."""
        self._workers.append(worker)

    def workers(self) -> list[Any]:
        """The handles of all of them, of which some may have ended."""
        return self._workers

    def put_data(self, data: Mapping[str, list[ray.ObjectRef[Any]]]) -> None:
        """Takes in what the driver has loaded, by `Task.load_key`. A restarted server loads it itself."""
        for key, reference in data.items():
            self._data[key] = reference

    def data(self, key: str, config: Mapping[str, Any]) -> list[ray.ObjectRef[Any]]:
        """A reference (in a list, or Ray would fetch it here) to what `Task.load` gives for a trial's config."""
        if key not in self._data:
            self._data[key] = [ray.put(self._trials.task.load(self._trials.fill(config)))]
        return self._data[key]

    def claim_start(self, key: str, owner: int, earlier: Iterable[str] = ()) -> Claim:
        """Asks for the start of this key on behalf of trial number `owner`.

        Args:
            key: names the start.
            owner: the trial that asks.
            earlier: names under which earlier releases kept it.
        """
        self._waiting.add(owner)
        if key in self._failed:
            return Claim("failed", reason=self._failed[key])
        if key not in self._starts:
            self._load(key, earlier)
        if key in self._starts:
            return Claim("ready", self._starts[key])
        now = time.monotonic()
        making, given_up = self._making.get(key), self._given_up.get(key)
        if making is not None and making.owner != owner and now - making.heard <= _LEASE_S:
            return Claim("wait")
        if given_up is not None and given_up.owner == owner and now - given_up.at < _ELSEWHERE_S:
            return Claim("wait")
        self._making[key] = _Making(owner, now)  # also where the maker itself was lost and asks anew
        return Claim("make")

    def renew_start(self, key: str, owner: int, progress: Mapping[str, Any] | None = None) -> None:
        """The maker is alive, and perhaps this far."""
        self._waiting.add(owner)
        making = self._making.get(key)
        if making is not None and making.owner == owner:
            making.heard = time.monotonic()
            making.progress = making.progress if progress is None else progress

    def put_start(self, key: str, data: bytes) -> None:
        """Takes in a start; it is on disk, for runs that continue later, before anyone gets it."""
        self._folder.write(self._path(key), data)
        self._making.pop(key, None)
        self._given_up.pop(key, None)
        self._load(key)

    def give_up_start(self, key: str, owner: int, reason: str) -> None:
        """The maker could not make it for now: it is tried again, and after some tries fails for all."""
        making = self._making.get(key)
        if making is None or making.owner != owner:
            return  # said before, or another one makes it now
        before = self._given_up.get(key)
        tries = 1 + (before.tries if before else 0)
        self._given_up[key] = _GivenUp(tries, owner, time.monotonic(), reason)
        del self._making[key]
        if tries >= _TRIES:
            self.fail_start(key, f"{reason} (in {tries} tries)")

    def fail_start(self, key: str, reason: str) -> None:
        """No trial of this run can have this start: every one that asks fails with the reason."""
        self._making.pop(key, None)
        self._failed[key] = reason

    def starts(self) -> list[StartProgress]:
        """The starts in the making, and those that are there."""
        found = [StartProgress(key, False, making.progress) for key, making in self._making.items()]
        return found + [StartProgress(key, True, facts) for key, facts in self._ready.items()]

    def artifact(self, trial: int) -> tuple[bytes, str]:
        """A trial's artifact and its SHA-256, for a trial that starts from it.

        Raises:
            RunError: there is none.
        """
        path = self._folder.artifact_paths().get(trial)
        if path is None:
            raise RunError(
                f"{self._folder.artifacts}: holds no artifact of trial {trial}, so no trial can start from it"
            )
        data = self._folder.read(path)
        return data, hashlib.sha256(data).hexdigest()

    def put_artifact(self, trial: int, data: bytes) -> tuple[str, str]:
        """Writes a trial's artifact; its path relative to the run folder, and its SHA-256."""
        return self._folder.write_artifact(trial, data, self._trials.task.suffix)

    def put_checkpoint(self, trial: int, data: bytes) -> None:
        """Takes in a trial's newest checkpoint."""
        self._checkpoints.write(trial, data)

    def begin(self, trial: int) -> bytes | None:
        """A worker is ready to train this trial: the checkpoint to continue from, None to begin."""
        self._waiting.discard(trial)
        self._training_since[trial] = time.monotonic()
        return self._checkpoints.read(trial)

    def prepare(self, trial: int) -> None:
        """A worker took on this trial; what it waits for now, a start, does not count as training."""
        self._training_since.pop(trial, None)
        self._waiting.add(trial)

    def training_s(self, running: Iterable[int]) -> dict[int, float]:
        """For how long the workers of these trials have trained them; not those that wait, or are only coming up.

        A server that follows a lost one counts from its own beginning for trials that have said nothing to it yet.
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

    def _load(self, key: str, earlier: Iterable[str] = ()) -> None:
        path = next((path for path in map(self._path, (key, *earlier)) if path.exists()), None)
        if path is None:
            return
        data = self._folder.read(path)
        try:
            start = Start.from_bytes(data)
        except Exception:  # whatever is in the file: a start that cannot be read is moved away and made again
            self._folder.quarantine({path: "no start"}, move=True)
            return
        self._starts[key] = ray.put(data)
        self._ready[key] = start.facts


def data_references(data: Mapping[str, Any]) -> dict[str, list[ray.ObjectRef[Any]]]:
    """Puts all that was loaded into the object store."""
    return {key: [ray.put(loaded)] for key, loaded in data.items()}


def _restarted() -> bool:
    """Whether Ray has started this actor anew after a loss."""
    context = ray.get_runtime_context() if ray.is_initialized() else None
    return bool(context and context.get_actor_id() and context.was_current_actor_reconstructed)
