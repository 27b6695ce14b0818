"""Shared by the whole tree: a trial of one short epoch on the digits, its images and its dense start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from stages import PAPER, PLAIN_SGD

from atmc_search.tasks import Start, start_of
from atmc_search.tasks.atmc import AtmcSpec, AtmcTask
from atmc_search.tasks.atmc.data import AtmcData

_TINY: dict[str, Any] = {
    "data": {"name": "digits", "train_size": 256, "validation_size": 100, "test_size": 50},
    "model": {"name": "small_cnn", "width": 4},
    "threat": {"norm": "linf", "eps": 0.05},
    # Eight epochs: after one the model still guesses, and figures of guesses show little.
    "dense": {**PLAIN_SGD, "epochs": 8, "lr": 0.1, "batch_size": 16, "attack": {"name": "fgsm"}},
    "train": {**PLAIN_SGD, "epochs": 1, "lr": 0.02, "batch_size": 32, "attack": {"name": "pgd", "steps": 2}},
    "compress": {**PAPER, "factors": "none", "keep": 0.2, "bits": 3, "dual_every": 3, "codebook_from": 0.5},
    "evaluate": {"attack": {"name": "pgd", "steps": 3}},
}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_trial() -> Callable[..., AtmcSpec]:
    """`tiny_trial(compress={"bits": 4}, seed=1)`: the tiny trial with these keys of its sections changed."""

    def make(**overrides: Any) -> AtmcSpec:
        document = dict(_TINY)
        for key, value in overrides.items():
            merge = isinstance(value, dict) and "name" not in value  # another component has settings of its own
            document[key] = _TINY.get(key, {}) | value if merge else value
        return AtmcSpec.model_validate(document)

    return make


@pytest.fixture(scope="session")
def tiny_splits(tiny_trial: Callable[..., AtmcSpec]) -> AtmcData:
    """The images of `tiny_trial()`."""
    return AtmcTask.load(tiny_trial())


@pytest.fixture(scope="session")
def tiny_start(tiny_trial: Callable[..., AtmcSpec], tiny_splits: AtmcData) -> Start:
    """The dense start of `tiny_trial()`, and of every trial that differs only in train, compress and seed."""
    return start_of(AtmcTask, tiny_trial(), tiny_splits, device="cpu", report=lambda figures: None)
