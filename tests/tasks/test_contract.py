"""A class that is no whole task is refused before anything runs: one line that says what it lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from atmc_search.errors import SpecError
from atmc_search.results import Column
from atmc_search.spec import TrialSpec
from atmc_search.tasks import Task
from atmc_search.tasks.contract import check_task


def whole(**changes: Any) -> type[Task]:
    """A task class with nothing to say against it, but for these changes; None removes an attribute."""
    body = {
        "Spec": TrialSpec,
        "columns": (Column("cost", "float64", "", "what it costs"),),
        "objectives": {"cost": "min"},
        **{name: lambda self, *args, **settings: None for name in Task.__abstractmethods__},
        **changes,
    }
    return type("Mine", (Task,), {name: value for name, value in body.items() if value is not None})


def test_a_whole_task_passes() -> None:
    check_task(whole())
    check_task(whole(columns=[Column("cost", "int64", "", "a list will do", better="max")], objectives={}))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: whole(step=None, artifact=None),
            "lacks artifact, step; implement what atmc_search.tasks.Task requires",
        ),
        (lambda: whole(Spec=None), "Spec is None; set Spec to a subclass of atmc_search.spec.TrialSpec"),
        (lambda: whole(Spec=dict), "Spec is <class 'dict'>; set Spec to a subclass"),
        (lambda: whole(columns=None), "columns is None; set columns to a tuple of atmc_search.results.Column"),
        (lambda: whole(columns=("cost",)), "columns is ('cost',); set columns to a tuple"),
        (lambda: whole(columns=(Column("a cost", "float64", "", ""),)), "column 'a cost': a name has letters, digits"),
        (lambda: whole(columns=(Column("2nd", "float64", "", ""),)), "column '2nd': a name has letters, digits and"),
        (
            lambda: whole(columns=(Column("cost", "float64", "", "", better="low"),)),  # type: ignore[arg-type]
            "column 'cost': better = 'low': must be min, max or empty",
        ),
        (lambda: whole(objectives={"cost": "least"}), "objectives.cost = 'least': must be min or max"),
    ],
)
def test_what_it_lacks_is_one_line(make: Callable[[], type[Task]], words: str) -> None:
    with pytest.raises(SpecError) as error:
        check_task(make())
    assert f"task Mine: {words}" in str(error.value)
    assert "\n" not in str(error.value)
