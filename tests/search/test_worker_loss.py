"""What Ray says of lost workers, and the losses that Ray Tune would not survive."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import ActorID
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
)

from atmc_search.search.worker_loss import every_loss_is_one_of_an_actor, failures, why_lost

DIED = """Failure # 1 (occurred at 2026-01-01_00-00-00)
The actor died because its node has died. Node Id: 12ab
Failure # 2 (occurred at 2026-01-01_00-01-00)
The actor died unexpectedly before finishing this task.
\tclass_name: with_resources.<locals>.ResourceTrainable
\tactor_id: 0d71
\tpid: 6457
\tnamespace: 2a49
\tip: 192.0.2.2
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed
"""
RAISED = """Failure # 1 (occurred at 2026-01-01_00-00-00)
\x1b[36mray::train()\x1b[39m
Traceback (most recent call last):
  File "a.py", line 1, in step
OSError: [Errno 28] No space left on device
"""
COLOURED = "Failure # 1 (occurred at now)\n\x1b[36mray::train()\x1b[39m (pid=7) cancelled\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            DIED,
            "The actor is dead because its worker process has died. Worker unexpectedly exits with a connection error "
            "code 2. End of file.",
        ),
        (
            DIED.split("Failure # 2")[0].replace("Node Id: 12ab", "Node Id: 12ab, node name: 192.0.2.2"),
            "The actor died because its node has died. Node Id: 12ab, node name: 192.0.2.2",
        ),
        (COLOURED, "ray::train() (pid=7) cancelled"),
        (RAISED, "OSError: [Errno 28] No space left on device"),
        ("", "its worker process died"),
        ("Failure # 1 (occurred at now)\n" + "x" * 999, "x" * 300),
    ],
)
def test_the_reason_is_one_informative_line(text: str, reason: str) -> None:
    assert why_lost(text) == reason


def test_a_trial_without_failures_has_no_text(tmp_path: Any) -> None:
    assert failures(SimpleNamespace(error_file=None)) == ""  # type: ignore[arg-type]
    assert failures(SimpleNamespace(error_file=str(tmp_path / "none.txt"))) == ""  # type: ignore[arg-type]
    (tmp_path / "error.txt").write_text(DIED)
    assert failures(SimpleNamespace(error_file=str(tmp_path / "error.txt"))) == DIED  # type: ignore[arg-type]


def told(error: Exception) -> list[Exception]:
    """What Tune is told when a task of a trial's worker ends in this error."""
    heard: list[Exception] = []
    actor = SimpleNamespace(actor_id=1, _on_error=lambda actor, error: heard.append(error))
    task = SimpleNamespace(_tracked_actor=actor, _on_error=lambda actor, error: heard.append(error))
    manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    RayActorManager._actor_task_failed(manager, task, error)  # type: ignore[arg-type]
    return heard


@pytest.mark.parametrize("error", [OutOfMemoryError("16 GB of 16 GB"), NodeDiedError("its node is gone")])
def test_losses_that_end_a_sweep_in_ray_do_not_end_it_here(error: Exception) -> None:
    with pytest.raises(RuntimeError, match="Caught unexpected exception"):
        told(error)  # once Ray does better, `every_loss_is_one_of_an_actor` can go
    with every_loss_is_one_of_an_actor():
        heard = told(error)
    assert [type(each) for each in heard] == [RayActorError, RayActorError]
    assert str(heard[0]) == str(error)
    assert not heard[0].preempted  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError):  # only within the context
        told(error)


@pytest.mark.parametrize("draining", [False, True])
def test_a_broken_connection_to_a_node_that_was_announced_to_go_is_a_preemption(
    monkeypatch: pytest.MonkeyPatch, draining: bool
) -> None:
    actor = ActorID.from_random()
    state = SimpleNamespace(
        actor_table=lambda asked: {"Address": {"NodeID": "12ab"}} if asked == actor.hex() else {},
        get_draining_nodes=lambda: {"12ab": 99} if draining else {"34cd": 99},
    )
    monkeypatch.setattr(ray._private.state, "state", state)
    with every_loss_is_one_of_an_actor():
        heard = told(ActorUnavailableError("socket closed", actor.binary()))
    assert [error.preempted for error in heard] == [draining] * 2  # type: ignore[attr-defined]
    assert "socket closed" in str(heard[0])


def test_other_errors_are_as_they_were() -> None:
    died = ActorDiedError()
    with every_loss_is_one_of_an_actor():
        assert told(died) == [died, died]
        raised = RayTaskError("train", "Traceback", ValueError("boom"))
        assert told(raised) == [raised]
        with pytest.raises(RuntimeError):  # a fault of ours is not a loss
            told(ZeroDivisionError())
