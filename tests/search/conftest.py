"""Studies on the digits that nothing trains: what the search's parts are built from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from atmc_search.spec import StudySpec, parse_study
from atmc_search.tasks import TrialSpace


@pytest.fixture(scope="session")
def make_study() -> Callable[..., StudySpec]:
    """`make_study(compress={"keep": 0.2}, objectives={...})`: sections of the trial, or keys of the study, changed."""

    def make(**changes: Any) -> StudySpec:
        trial: dict[str, Any] = {
            "data": {"name": "digits", "train_size": 256, "validation_size": 100, "test_size": 50},
            "model": {"name": "small_cnn", "width": 4},
            "threat": {"norm": "linf", "eps": 0.1},
            "dense": {"epochs": 1},
            "train": {"epochs": 9, "lr": {"uniform": [0.01, 1.0]}},
            "compress": {"keep": {"uniform": [0.1, 1.0]}, "bits": {"choice": [2, 4, 8]}},
            "evaluate": {"every": 1},
        }
        study: dict[str, Any] = {"name": "parts", "search": {"trials": 40}}
        for key, value in changes.items():
            if key in trial:
                trial[key] = {**trial[key], **value}
            else:
                study[key] = value
        return parse_study({**study, "trial": trial})

    return make


@pytest.fixture(scope="session")
def make_trials(make_study: Callable[..., StudySpec]) -> Callable[..., TrialSpace]:
    """The same study as its task reads it: with the task's objectives where it names none."""
    return lambda **changes: TrialSpace.of(make_study(**changes))
