"""A study with a distribution of every kind, and rows of it that name only what a test cares about."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from atmc_search.results import STUDY_COLUMNS, Column, parameter_columns
from atmc_search.spec import StudySpec, parse_study
from atmc_search.tasks import checked
from atmc_search.tasks.atmc.columns import ATMC_COLUMNS


@pytest.fixture(scope="session")
def make_study() -> Callable[..., StudySpec]:
    """`make_study(search={"trials": 9})`: the study with these top-level keys changed."""

    def make(**changes: Any) -> StudySpec:
        document = {
            "name": "kept",
            "trial": {
                "data": {"name": "digits"},
                "model": {"name": "small_cnn", "width": 4},
                "threat": {"norm": "linf", "eps": 0.1},
                "dense": {"epochs": 1},
                "train": {"epochs": {"int_uniform": [1, 4]}, "lr": {"log_uniform": [0.001, 0.1]}},
                "compress": {
                    "factors": {"choice": ["none", "uvc"]},
                    "keep": {"uniform": [0.1, 0.9]},
                    "bits": {"choice": [2, 4]},
                },
            },
            "search": {"trials": 4},
        }
        return checked(parse_study({**document, **changes}), "spec")

    return make


@pytest.fixture(scope="session")
def study(make_study: Callable[..., StudySpec]) -> StudySpec:
    return make_study()


@pytest.fixture(scope="session")
def table(study: StudySpec) -> tuple[Column, ...]:
    """The columns of that study's reports."""
    return (*STUDY_COLUMNS, *ATMC_COLUMNS, *parameter_columns(study.distributions))


@pytest.fixture(scope="session")
def row() -> Callable[..., dict[str, Any]]:
    """`row(3, size_bytes=900)`: a report of trial 3."""

    def make(trial: int, state: str = "complete", **values: Any) -> dict[str, Any]:
        return {
            "trial": trial,
            "state": state,
            "reason": "",
            "epoch": 1,
            "reported_at": datetime(2026, 1, 1, tzinfo=UTC),
            "trial.train.lr": 0.01,
            "trial.train.epochs": 2,
            "trial.compress.factors": "uvc",
            "trial.compress.keep": 0.5,
            "trial.compress.bits": 4,
            **values,
        }

    return make
