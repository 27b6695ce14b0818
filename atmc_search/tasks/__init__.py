"""What a trial does, as far as the search knows. To add a task: a file with a `Task` subclass and a line in `TASKS`."""

from atmc_search.errors import SpecError, shown
from atmc_search.registry import resolve
from atmc_search.tasks.atmc import AtmcTask
from atmc_search.tasks.base import Start, Task

TASKS: dict[str, type[Task]] = {"atmc": AtmcTask}

__all__ = ["TASKS", "AtmcTask", "Start", "Task", "task_named"]


def task_named(name: str) -> type[Task]:
    """The task class that a study names.

    Raises:
        SpecError: unknown name, or what it names is no task.
    """
    kind = resolve(name, TASKS, path="task")
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise SpecError(f"task = {name!r}: {shown(kind)} is no task; name a subclass of atmc_search.tasks.Task")
    return kind
