from __future__ import annotations

import pytest

from atmc_search.errors import SpecError
from atmc_search.registry import resolve
from atmc_search.tasks import TASKS, task_named
from atmc_search.tasks.atmc import AtmcTask


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_found_by_name(name):
    assert task_named(name) is resolve(TASKS[name], {}, path="task")


def test_a_users_task_is_found_and_an_unknown_one_is_one_line():
    assert task_named("atmc_search.tasks.atmc:AtmcTask") is task_named("atmc") is AtmcTask
    with pytest.raises(SpecError, match=r"task = 'atcm': unknown name; did you mean 'atmc'\?"):
        task_named("atcm")
