"""Tasks by name. To add a task: a package with a `Task` subclass, and a line in `TASKS`."""

from __future__ import annotations

from atmc_search.errors import SpecError, shown
from atmc_search.registry import resolve
from atmc_search.tasks.base import Task
from atmc_search.tasks.contract import check_task

TASKS: dict[str, str] = {"atmc": "atmc_search.tasks.atmc:AtmcTask"}
"""Where each task lives. It is imported when a study names it: a user's own task needs nothing of ATMC."""


def task_named(name: str) -> type[Task]:
    """The task class that a study names.

    Raises:
        SpecError: unknown name, or what it names is no task, or not a whole one.
    """
    found = resolve(name, TASKS, path="task")
    kind = resolve(found, {}, path="task") if isinstance(found, str) else found
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise SpecError(f"task = {name!r}: {shown(kind)} is no task; name a subclass of atmc_search.tasks.Task")
    check_task(kind)
    return kind
