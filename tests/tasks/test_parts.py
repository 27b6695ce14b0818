"""Which parts a spec's training is made of, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from atmc_search.tasks.atmc import AtmcTask
from atmc_search.training import Guard

CUBIC = {"name": "cubic", "from": 0.1, "to": 0.6, "freeze": 0.9}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["projected", "admm"]),
        ({"compress": {"bits": 32}}, ["projected"]),
        ({"compress": {"bits": 32, "codebook_from": 0.0, "schedule": CUBIC}}, ["projected"]),
        ({"compress": {"codebook": "straight_through"}}, ["projected", "straight_through"]),
        ({"compress": {"schedule": {"name": "grow"}, "bits": 32}}, ["grown"]),
        ({"compress": {"pruning": "one_shot", "bits": 32}}, ["fixed"]),
        ({"compress": {"pruning": "none", "keep": 1.0, "bits": 32}}, ["fixed"]),
        ({"compress": {"pruning": "harp"}, "train": {"ema": 0.9}}, ["scored", "admm", "average"]),
        ({"compress": {"pruning": "hydra", "bits": 32}}, ["scored"]),
        (
            {"train": {"ema": 0.9, "distillation": {"weight": 0.5}}},
            ["projected", "admm", "average", "distillation"],
        ),
        ({"compress": {"keep": None, "bits": 32, "budget_bytes": 1000}}, ["projected", "admm", "bytes"]),
        ({"compress": {"keep": None, "target": {"clean_accuracy": 0.5}}}, ["projected", "admm", "target"]),
    ],
    ids=str,
)
def test_the_parts_of_a_spec(tiny_trial, tiny_splits, tiny_start, changes: dict[str, Any], names: list[str]):
    task = AtmcTask(tiny_trial(**changes), tiny_splits, tiny_start, device="cpu", meta={})
    assert [part.name for part in task._training.step.parts] == names


@pytest.mark.parametrize("compress", [{"pruning": "hydra"}, {"pruning": "harp"}], ids=str)
def test_going_back_past_the_end_of_a_search_keeps_the_budget(
    tiny_trial, tiny_splits, tiny_start, monkeypatch, compress
):
    """The search ends in the third of four epochs, which collapses: the state that comes back is still searching."""

    def collapsed(guard: Guard, model: object, epoch: int) -> bool:
        if epoch == 3:
            guard.collapsed_at = epoch
        return epoch == 3

    monkeypatch.setattr(Guard, "collapsed", collapsed)
    spec = tiny_trial(
        train={"epochs": 4, "batch_size": 64, "attack": {"name": "fgsm_rs"}, "guard": True},
        compress={"keep": 0.05, "bits": 32, "scores": {"share": 0.7}, **compress},
        evaluate={"masking_images": 0},
    )
    task, again = (AtmcTask(spec, tiny_splits, tiny_start, device="cpu", meta={}) for _ in range(2))
    support = task._training.parts.support
    budget = 0
    for epoch in range(1, 5):
        row = task.step()
        if epoch == 3:
            tensors, facts = task.state_dict()
            again.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, facts)
        budget = round(0.05 * row["dense_weights"])
        held = sum(int(weight.count_nonzero()) for weight in support.weights.values())
        assert row["nnz"] <= budget
        assert (held <= budget) == (epoch >= 3 or compress["pruning"] == "hydra")
        assert row["collapsed_epoch"] == (3 if epoch >= 3 else 0)
        assert support.searching == (epoch < 4)
    assert budget > 0
    again.step()
    assert again.artifact() == task.artifact()
