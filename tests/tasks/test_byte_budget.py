from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atmc_search.artifact import unpack
from atmc_search.errors import SpecError, TrialFailed
from atmc_search.spec import parse_study
from atmc_search.tasks import TrialSpace
from atmc_search.tasks.atmc import AtmcTask
from atmc_search.tasks.atmc.byte_budget import ByteBudget
from atmc_search.tasks.atmc.fitting import largest_within
from atmc_search.tasks.atmc.spec import AtmcSpec

CUBIC = {"name": "cubic", "from": 0.1, "to": 0.6, "freeze": 0.9}
BYTES = {"keep": None, "bits": 32}


@given(
    steps=st.lists(st.integers(1, 9), min_size=1, max_size=200),
    base=st.integers(0, 300),
    budget=st.integers(1, 1500),
    guess=st.integers(1, 300),
)
@settings(max_examples=150, deadline=None)
def test_without_slack_the_largest_that_fits_is_found(steps, base, budget, guess):
    """Sizes that rise by 1 to 9 a step, at most 200 of them, against looking at them all."""
    sizes = base + np.cumsum(steps)
    found = largest_within(lambda k: int(sizes[k - 1]), budget, guess=guess, most=len(sizes), base=base, slack=0.0)
    fitting = int(np.searchsorted(sizes, budget, side="right"))
    assert (found.k if found else 0) == fitting


def test_with_slack_few_measurements_are_enough():
    asked = []

    def size(k: int) -> int:
        asked.append(k)
        return 500 + round(1.7 * k**0.93)

    found = largest_within(size, 8_000, guess=300, most=400_000, base=500, slack=0.01)
    assert found is not None
    assert 0.99 * 8_000 <= found.size == size(found.k) <= 8_000
    assert len(asked) <= 7


def brief(tiny_trial: Any, **changes: Any) -> AtmcSpec:
    """The tiny trial with cheap attacks and no checks, sized in bytes."""
    parts: dict[str, Any] = {"train": {"attack": {"name": "fgsm"}}, "compress": BYTES}
    parts["evaluate"] = {"attack": {"name": "fgsm"}, "masking_images": 0}
    return tiny_trial(**{name: parts.get(name, {}) | changes.get(name, {}) for name in parts | changes})


def budget_of(task: AtmcTask) -> ByteBudget:
    packer = task._training.parts.packer
    assert isinstance(packer, ByteBudget)
    return packer


def trained(spec: AtmcSpec, data: Any, start: Any) -> tuple[AtmcTask, list[dict[str, Any]]]:
    task = AtmcTask(spec, data, start, device="cpu", meta={"study": "tests", "trial": 7})
    rows = []
    while not task.done:
        rows.append(task.step())
    return task, rows


@pytest.mark.parametrize(
    ("budget", "compress"),
    [
        (700, {}),
        (1600, {"schedule": CUBIC, "codebook": "straight_through", "bits": 3}),
        (1100, {"bit_allocation": "mixed"}),
        (900, {"factors": "uvc"}),
        (1300, {"factors": "uvc_plain", "importance": "magnitude"}),
        (800, {"count": "live", "price": "bytes"}),
    ],
)
def test_every_measured_file_is_within_three_percent_below_the_budget(
    tiny_trial, tiny_splits, tiny_start, budget, compress
):
    epochs = 2 if budget < 900 else 1
    spec = brief(tiny_trial, train={"epochs": epochs}, compress={"budget_bytes": budget} | compress)
    AtmcTask.check(spec, tiny_splits)
    task, rows = trained(spec, tiny_splits, tiny_start)
    for row in rows:
        assert 0.97 * budget <= row["size_bytes"] <= budget
    assert len(task.artifact()) == rows[-1]["size_bytes"]
    bits = [width for width in json.loads(rows[-1]["bits_per_tensor"]).values() if width]
    assert all(1 <= width <= 8 for width in bits)
    assert all(width == compress["bits"] for width in bits if "bits" in compress)
    held = sum(int(w.count_nonzero()) for w in task._training.parts.support.weights.values())
    assert rows[-1]["nnz"] < held  # training is over the budget, so that the last step trims


def test_a_larger_budget_lets_more_weights_in(tiny_trial, tiny_splits, tiny_start):
    counts = []
    for budget in (700, 1000):
        spec = brief(tiny_trial, compress={"budget_bytes": budget, "bits": 2})
        task = AtmcTask(spec, tiny_splits, tiny_start, device="cpu", meta={})
        counts.append(budget_of(task).pack(0.0).sizes.nnz)
    assert counts[0] < counts[1]


def test_layers_of_small_weights_do_not_die_of_a_sharp_budget(tiny_trial, tiny_splits, tiny_start):
    """As MobileNetV2's depthwise convolutions: a layer's weights a thousand times as small as its neighbours'."""
    small = {"net.2.weight": 1e-3 * tiny_start.tensors["net.2.weight"]}
    start = replace(tiny_start, tensors={**tiny_start.tensors, **small})
    kept = {}
    for importance in ("magnitude", "lamp"):
        spec = brief(tiny_trial, compress={"budget_bytes": 600, "bits": 2, "importance": importance})
        task = AtmcTask(spec, tiny_splits, start, device="cpu", meta={})
        size = budget_of(task)
        kept[importance] = size.files.chosen(size.k)["net.2.weight"].count_nonzero()
    assert kept["magnitude"] == 0
    assert kept["lamp"] > 0
    assert brief(tiny_trial, compress={"budget_bytes": 600}).compress.by_lamp  # unless told otherwise
    assert not tiny_trial().compress.by_lamp
    deployed = size.pack(1.0)
    assert set(deployed.sizes.bits_per_tensor.values()) == {2}
    assert 0.97 * 600 <= len(deployed.artifact) <= 600


def test_files_are_made_where_one_is_measured_and_few(tiny_trial, tiny_splits, tiny_start):
    spec = brief(tiny_trial, train={"epochs": 2}, compress={"budget_bytes": 1000, "bits": 3}, evaluate={"every": 2})
    task = AtmcTask(spec, tiny_splits, tiny_start, device="cpu", meta={})
    size = budget_of(task)
    assert size.files.packed == 2
    k = size.k
    task.step()
    assert size.files.packed == 2
    assert size.k == pytest.approx(k, rel=0.1)  # k follows by the estimate
    task.step()
    assert size.files.packed <= 6


def test_a_resumed_trial_goes_on_to_the_bit(tiny_trial, tiny_splits, tiny_start):
    spec = brief(
        tiny_trial,
        train={"epochs": 3},
        evaluate={"every": 3},
        compress={"budget_bytes": 1000, "schedule": CUBIC, "codebook": "straight_through"},
    )  # the first two epochs only follow the budget
    whole, _ = trained(spec, tiny_splits, tiny_start)
    first = AtmcTask(spec, tiny_splits, tiny_start, device="cpu", meta={"study": "tests", "trial": 7})
    first.step()
    first.step()
    tensors, facts = first.state_dict()
    again = AtmcTask(spec, tiny_splits, tiny_start, device="cpu", meta={"study": "tests", "trial": 7})
    again.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, json.loads(json.dumps(facts)))
    again.step()
    assert again.artifact() == whole.artifact()
    assert unpack(again.artifact()) is not None


@pytest.mark.parametrize(
    ("compress", "words"),
    [
        ({"budget_bytes": 300}, "impossible, with every weight zero the artifact has"),
        ({"budget_bytes": 10**6}, "pays for all 3588 weights at 8 bits"),
        ({"budget_bytes": 3000, "bits": 2}, "pays for all 3588 weights at 2 bits"),
    ],
)
def test_a_budget_that_pays_for_nothing_or_everything_is_refused(tiny_trial, tiny_splits, compress, words):
    least = int(AtmcTask.least(tiny_trial(), tiny_splits)["size_bytes"])
    compress = compress if compress["budget_bytes"] != 300 else {"budget_bytes": least}
    with pytest.raises(SpecError) as caught:
        AtmcTask.check(tiny_trial(compress=BYTES | compress), tiny_splits)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_budget_that_all_trained_weights_fit_is_refused_before_training(tiny_trial, tiny_splits, tiny_start):
    """Codes take fewer bits than the preflight, which knows no weights, allows for."""
    with pytest.raises(SpecError) as caught:
        AtmcTask.check(brief(tiny_trial, compress={"budget_bytes": 10**6, "bits": 2}), tiny_splits)
    most = int(str(caught.value).split("about ")[1].split(" ")[0])
    spec = brief(tiny_trial, compress={"budget_bytes": most - 1, "bits": 2})
    AtmcTask.check(spec, tiny_splits)
    with pytest.raises(TrialFailed, match=rf"^budget_bytes = {most - 1}: all 3588 weights take \d+ bytes .* lower it$"):
        AtmcTask(spec, tiny_splits, tiny_start, device="cpu", meta={"study": "tests"})


def test_a_budget_that_the_header_alone_takes_fails_the_trial(tiny_trial, tiny_splits, tiny_start):
    least = int(AtmcTask.least(tiny_trial(), tiny_splits)["size_bytes"])
    spec = tiny_trial(compress=BYTES | {"budget_bytes": least + 1})
    with pytest.raises(TrialFailed, match=rf"^budget_bytes = {least + 1}: .* without a weight; raise it$"):
        AtmcTask(spec, tiny_splits, tiny_start, device="cpu", meta={"study": "tests"})


@pytest.mark.parametrize(
    ("compress", "words"),
    [
        ({}, "keep is missing; it must be given"),
        ({"bits": 4}, "keep is missing; it must be given"),
        ({"budget_bytes": 900, "pruning": "one_shot"}, "keep is missing; it must be given"),
        ({"budget_bytes": 900, "keep": 0.1}, "budget_bytes needs something to set; use factors low_rank"),
        ({"budget_bytes": 900, "factors": "low_rank"}, "keep is missing"),
        (
            {"budget_bytes": 900, "importance": "lamp", "price": "bytes"},
            "importance lamp chooses among magnitudes and",
        ),
        ({"keep": 0.1, "importance": "lamp", "pruning": "hydra"}, "and pruning is hydra; remove importance"),
    ],
)
def test_a_size_is_set_in_exactly_one_way(compress, words):
    trial = {
        "data": {"name": "digits"}, "model": {"name": "mlp"}, "threat": {"eps": 0.1}, "dense": {"epochs": 1},
        "train": {"epochs": 1}, "compress": compress,
    }  # fmt: skip
    with pytest.raises(SpecError) as caught:
        TrialSpace.of(parse_study({"name": "x", "trial": trial, "search": {"trials": 1}}))
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_budgets_can_be_searched():
    trial = {
        "data": {"name": "digits"}, "model": {"name": "mlp"}, "threat": {"eps": 0.1}, "dense": {"epochs": 1},
        "train": {"epochs": 1}, "compress": {"budget_bytes": {"choice": [2500, 6500, 26000]}},
    }  # fmt: skip
    space = TrialSpace.of(parse_study({"name": "x", "trial": trial, "search": {"trials": 1}}))
    assert space.fill({"trial.compress.budget_bytes": 6500}).compress.sized_in_bytes
    ranged = {**trial, "compress": {"budget_bytes": {"int_uniform": [2500, 26000]}}}
    assert TrialSpace.of(parse_study({"name": "x", "trial": ranged, "search": {"trials": 1}})).distributions


def test_a_budget_that_no_file_comes_close_to_fails_the_trial_at_its_end_and_not_before(
    tiny_trial, tiny_splits, tiny_start
):
    spec = brief(tiny_trial, compress={"budget_bytes": 900, "bits": 2})
    task = AtmcTask(spec, tiny_splits, tiny_start, device="cpu", meta={})
    with torch.no_grad():
        list(task._training.parts.support.weights.values())[-1].zero_()  # nothing reaches an output any more
    assert len(budget_of(task).pack(0.5).artifact) < 500
    with pytest.raises(TrialFailed, match=r"^budget_bytes = 900: the nearest file below has \d+ bytes, .* choose"):
        budget_of(task).pack(1.0)
