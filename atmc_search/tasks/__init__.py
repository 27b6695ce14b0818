"""What a trial does: the contract, the tasks by name, and a study's trials as its task reads them."""

from atmc_search.tasks.base import Report, Task, facts_of, start_of
from atmc_search.tasks.names import TASKS, task_named
from atmc_search.tasks.remeasured import Figure, Remeasured
from atmc_search.tasks.start import Start, parent_of
from atmc_search.tasks.trials import TrialSpace, checked
from atmc_search.training.state import State

__all__ = [
    "TASKS",
    "Figure",
    "Remeasured",
    "Report",
    "Start",
    "State",
    "Task",
    "TrialSpace",
    "checked",
    "facts_of",
    "parent_of",
    "start_of",
    "task_named",
]
