from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from atmc_search.errors import SpecError
from atmc_search.spec import parse_study
from atmc_search.tasks import TrialSpace
from atmc_search.tasks.atmc import AtmcTask
from atmc_search.tasks.atmc.spec import TargetSpec
from atmc_search.tasks.atmc.target import TargetControl
from atmc_search.training.parts import Projected


def control(target: float = 0.5, entries: int = 100_000) -> TargetControl:
    support = Projected({"w": torch.nn.Parameter(torch.zeros(entries))}, 1)
    made = TargetControl(TargetSpec(robust_accuracy=target), support, entries, least=2)
    made.start()
    return made


@pytest.mark.parametrize("target", [0.3, 0.5, 0.7])
def test_on_a_known_curve_of_accuracy_over_weights_k_settles_where_the_target_holds(target):
    """Accuracy 0.08·ln k − 0.2, training 0.1 above validation, measured every other epoch."""
    steered = control(target)
    for epoch in range(60):
        accuracy = 0.08 * math.log(steered.support.k) - 0.2
        steered.follow(accuracy + 0.1, {"robust_accuracy": accuracy} if epoch % 2 == 0 else None)
    assert math.exp((target + 0.2) / 0.08) == pytest.approx(steered.support.k, rel=0.02)


def test_what_no_size_holds_ends_at_all_weights_and_what_any_holds_at_the_fewest():
    for accuracy, k in ((0.1, 100_000), (0.9, 2)):
        steered = control()
        for _ in range(30):
            steered.follow(accuracy, {"robust_accuracy": accuracy})
        assert steered.support.k == k


def test_the_smallest_file_that_holds_the_target_is_remembered_else_the_most_accurate():
    steered = control()
    best = []
    for size, robust in ((900, 0.3), (800, 0.4), (700, 0.35), (950, 0.55), (920, 0.9), (930, 0.5), (100, 0.49)):
        figures = steered.noted(b"%d" % size, {"size_bytes": size, "robust_accuracy": robust})
        assert figures["target_shortfall"] == max(0.0, 0.5 - robust)
        best.append(int(steered.artifact))
    assert best == [900, 800, 800, 950, 920, 920, 920]


def test_a_trial_ends_with_its_best_file_and_resumes_to_the_bit(tiny_trial, tiny_splits, tiny_start):
    compress = {"keep": None, "target": {"clean_accuracy": 0.6}, "codebook": "straight_through"}
    spec = tiny_trial(train={"epochs": 4}, evaluate={"masking_images": 0}, compress=compress)
    AtmcTask.check(spec, tiny_splits)

    def made() -> AtmcTask:
        return AtmcTask(spec, tiny_splits, tiny_start, device="cpu", meta={})

    task, rows, state = made(), [], None
    while not task.done:
        rows.append(task.step())
        if task.epoch == 2:
            tensors, facts = task.state_dict()
            state = {name: tensor.clone() for name, tensor in tensors.items()}, json.loads(json.dumps(facts))
    assert len(task.artifact()) == rows[-1]["size_bytes"]
    assert rows[-1]["target_shortfall"] == max(0.0, 0.6 - rows[-1]["clean_accuracy"])
    key = [(row["target_shortfall"], row["size_bytes"]) for row in rows]
    assert key[-1] == min(key)
    assert len({row["nnz"] for row in rows[:3]}) > 1  # the budget moved
    again = made()
    assert state is not None
    again.load_state_dict(*state)
    while not again.done:
        again.step()
    assert again.artifact() == task.artifact()


@pytest.mark.parametrize(
    ("compress", "words"),
    [
        ({"target": {"robust_accuracy": 0.5}, "keep": 0.1}, "target and keep both set the size"),
        ({"target": {"robust_accuracy": 0.5}, "budget_bytes": 900}, "target and budget_bytes both set the size"),
        ({"target": {"robust_accuracy": 0.5, "clean_accuracy": 0.5}}, "a target is one accuracy"),
        ({"target": {}}, "a target is one accuracy"),
        ({"target": {"robust_accuracy": 1.0}}, "less than 1"),
        ({"target": {"clean_accuracy": 0}}, "greater than 0"),
        ({"target": {"clean_accuracy": 0.5}, "pruning": "one_shot"}, "keep is missing"),
    ],
)
def test_impossible_targets_are_refused_in_one_line(compress: dict[str, Any], words: str):
    trial = {
        "data": {"name": "digits"}, "model": {"name": "mlp"}, "threat": {"eps": 0.1}, "dense": {"epochs": 1},
        "train": {"epochs": 1}, "compress": compress,
    }  # fmt: skip
    with pytest.raises(SpecError) as caught:
        TrialSpace.of(parse_study({"name": "x", "trial": trial, "search": {"trials": 1}}))
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
