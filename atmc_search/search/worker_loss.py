"""Workers that are lost: Ray's word for why, on one line; and losses that Ray Tune would not survive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from click import unstyle
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError
from ray.tune.experiment import Trial

_NOISE = re.compile(r"The actor died unexpectedly|(class_name|actor_id|pid|name|namespace|ip): ")


@contextmanager
def every_loss_is_one_of_an_actor() -> Iterator[None]:
    """Within this context Tune takes any loss of a worker for one that a trial can go on from.

    Ray Tune 2.60 knows errors of actors and of tasks. Others end the sweep with "Caught unexpected exception": among
    them that Ray killed a worker because its node ran out of memory, and that a node died with a result on it.
    That a node was preempted, which Tune does not count as a failure, is said only by errors that come after Ray knows
    the node dead; that a connection broke is known earlier.
    """
    original = RayActorManager._actor_task_failed

    def failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, ActorUnavailableError) and _on_draining_node(str(exception.actor_id)):
            exception = RayActorError(exception.actor_id, str(exception), preempted=True)
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=str(exception))
        original(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = failed  # type: ignore[method-assign]
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = original  # type: ignore[method-assign]


def _on_draining_node(actor: str) -> bool:
    """Whether it was announced that the node of this actor would go."""
    state = ray._private.state.state
    node = state.actor_table(actor).get("Address", {}).get("NodeID")
    return node in state.get_draining_nodes()


def failures(trial: Trial) -> str:
    """Ray's messages on every loss of a worker of this trial."""
    # Not `Trial.get_error`: it looks where Tune would have uploaded them to.
    path = trial.error_file
    return Path(path).read_text() if path and Path(path).exists() else ""


def why_lost(text: str) -> str:
    """The informative line of what Tune keeps of a trial's failures: the last failure's."""
    last = text.rsplit("Failure # ", 1)[-1]
    lines = [line for line in map(str.strip, unstyle(last).splitlines()[1:]) if line and not _NOISE.match(line)]
    if "Traceback" in last:  # an exception inside a worker: what it says stands at the end
        lines = lines[-1:]
    reason, *_ = " ".join(lines[:1] or ["its worker process died"]).split(" Some common causes")
    return re.sub(r"Worker exit type: \w+ Worker exit detail: ", "", reason)[:300]
