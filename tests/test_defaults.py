"""What a spec takes where it is silent: what the ablation kept, or, with a `method` of the paper, the paper's own."""

from __future__ import annotations

from typing import Any

import pytest

from atmc_search.spec import parse_study
from atmc_search.tasks import TrialSpace
from atmc_search.tasks.atmc.methods import METHODS
from atmc_search.tasks.atmc.spec import AtmcSpec, CompressSpec, TrainSpec
from atmc_search.training.stage import StageSpec

CUBIC = {"name": "cubic", "from": 0.05, "to": 0.55, "freeze": 0.85, "every": 100, "share": 0.3}


SILENT: dict[str, Any] = {
    "data": {"name": "digits"},
    "model": {"name": "small_cnn"},
    "threat": {"eps": 0.1},
    "dense": {"epochs": 2},
    "train": {"epochs": 3},
    "compress": {"keep": 0.1, "bits": 4},
}
"""A trial that says no more than it must."""


STUDY: dict[str, Any] = {"name": "x", "objectives": {"size_bytes": "min"}, "search": {"trials": 1}}


def trial(**parts: Any) -> AtmcSpec:
    return AtmcSpec.model_validate(SILENT | parts)


@pytest.mark.parametrize(
    ("given", "schedule", "count"),
    [
        ({"keep": 0.1}, CUBIC, "live"),
        ({"budget_bytes": 900}, CUBIC, "live"),
        ({"keep": 0.1, "schedule": None}, None, "live"),
        ({"keep": 0.1, "count": "all"}, CUBIC, "all"),
        ({"keep": 0.1, "factors": "uvc"}, CUBIC, "all"),
        ({"keep": 0.1, "schedule": {"name": "grow"}}, CUBIC | {"name": "grow", "freeze": 1.0}, "all"),
        ({"target": {"robust_accuracy": 0.5}}, None, "live"),
        ({"keep": 0.1, "pruning": "one_shot"}, None, "all"),
        ({"keep": 0.1, "pruning": "hydra"}, None, "all"),
        ({"keep": 0.1, "pruning": "harp"}, None, "all"),
        ({"keep": 1.0, "pruning": "none"}, None, "all"),
        ({"keep": 0.5, "factors": "low_rank", "pruning": "none"}, None, "all"),
    ],
)
def test_the_budget_shrinks_over_living_weights_wherever_it_can(given, schedule, count):
    found = CompressSpec.model_validate(given)
    assert (found.schedule and found.schedule.model_dump(mode="json"), found.count) == (schedule, count)
    assert CompressSpec.model_validate(found.model_dump(mode="json")) == found


def test_codebooks_set_in_after_the_schedule_and_the_support_is_fixed_last():
    assert CompressSpec(keep=0.1).codebook_from == 0.65
    assert CompressSpec(keep=0.1, schedule=None).codebook_from == 0.5
    later = CompressSpec.model_validate({"keep": 0.1, "schedule": {"to": 0.9}})
    assert later.schedule is not None
    assert (later.schedule.name, later.schedule.freeze, later.codebook_from) == ("cubic", 0.9, 0.9)
    sooner = CompressSpec.model_validate({"keep": 0.1, "schedule": {"name": "cubic", "to": 0.4}})
    assert sooner.schedule is not None
    assert (sooner.schedule.freeze, sooner.codebook_from) == (0.85, 0.5)


def test_sections_made_in_python_take_a_method_s_defaults_too():
    plain = trial(method="atmc", compress={"keep": 0.1, "factors": "uvc", "bits": 4})
    parts = {"train": TrainSpec(epochs=3), "compress": CompressSpec(keep=0.1, factors="uvc", bits=4)}
    assert trial(method="atmc", **parts) == plain
    assert trial(method="atmc", **parts | {"train": TrainSpec(epochs=3, clip_norm=2.0)}).train.clip_norm == 2


def test_a_stage_is_clipped_sgd_with_nesterov_s_momentum_on_a_line():
    found = StageSpec(epochs=3)
    assert (found.lr, found.lr_schedule, found.warmup, found.nesterov, found.clip_norm) == (0.1, "linear", 0.5, True, 1)
    assert StageSpec(epochs=3, lr_schedule="cyclic").warmup == 0
    assert not StageSpec(epochs=3, momentum=0).nesterov
    assert StageSpec(epochs=3, clip_norm=None).clip_norm is None


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"continuous"}))
def test_a_method_of_the_paper_has_the_paper_s_defaults_and_a_spec_the_last_word(method):
    def made(**parts: dict[str, Any]) -> AtmcSpec:
        changed = {section: SILENT[section] | values for section, values in parts.items()}
        study = parse_study(STUDY | {"trial": {**SILENT, **changed, "method": method}})
        spec: AtmcSpec = TrialSpace.of(study).fill({})
        return spec

    found = made()
    assert (found.train.lr, found.train.lr_schedule, found.train.warmup) == (0.05, "cosine", 0)
    assert (found.train.nesterov, found.train.clip_norm) == (False, None)
    assert (found.dense.lr, found.dense.lr_schedule, found.dense.clip_norm) == (0.1, "linear", 1)  # as all others'
    assert (found.compress.schedule, found.compress.count, found.compress.codebook) == (None, "all", "admm")
    other = made(train={"clip_norm": 1.0, "lr_schedule": "linear"})
    assert (other.train.clip_norm, other.train.lr_schedule, other.train.lr) == (1, "linear", 0.05)


def test_without_a_method_a_trial_is_what_continuous_fixes():
    plain = trial()
    assert trial(method="continuous").model_copy(update={"method": None}) == plain
    assert trial(method="atmc", compress={"factors": "uvc", "keep": 0.1, "bits": 4}).compress.codebook == "admm"
    sparse = {"keep": 0.1, "factors": "uvc", "bits": 4}
    trial(method="atmc", compress=sparse)
    assert sparse == {"keep": 0.1, "factors": "uvc", "bits": 4}  # the caller's own document is left alone
