"""What a trial does, as far as the search knows. To add a task: a file with a `Task` subclass and a line in `TASKS`."""

from atmc_search.registry import resolve
from atmc_search.tasks.atmc import AtmcTask
from atmc_search.tasks.base import Start, Task

TASKS: dict[str, type[Task]] = {"atmc": AtmcTask}

__all__ = ["TASKS", "AtmcTask", "Start", "Task", "task_named"]


def task_named(name: str) -> type[Task]:
    """The task class that a study names.

    Raises:
        SpecError: unknown name.
    """
    kind: type[Task] = resolve(name, TASKS, path="task")
    return kind
