from __future__ import annotations

from typing import Any

import pytest
import torch
from stages import Counts, plain_stage, small_model, step_of, train
from torch import nn

from atmc_search.compress import Codebook, CubicSchedule, GlobalL0, constrained_weights, factorise
from atmc_search.data import DeviceData, Splits
from atmc_search.training.parts import Admm, Moment, Projected


@pytest.fixture(scope="module")
def digits(tiny_splits: Splits) -> DeviceData:
    return DeviceData(tiny_splits.train, "cpu")


def bound(model: nn.Module, factors: Any, keep: float = 0.2) -> Projected:
    """A budget of `keep` times the dense weights, over all factors together."""
    layers = factorise(model, factors)
    dense = sum(layer.rows * layer.columns for layer in layers)
    return Projected(constrained_weights(model, layers), round(keep * dense))


def scheduled(factors: Any, freeze: float = 0.75) -> Projected:
    plain = bound(small_model(), factors)
    entries = sum(w.numel() for w in plain.weights.values())
    schedule = CubicSchedule(entries=entries, k=plain.k, begin=0.25, end=0.625, freeze=freeze)
    return Projected(plain.weights, plain.k, GlobalL0, schedule)


def non_zeros(support: Projected) -> torch.Tensor:
    return torch.cat([w.detach().reshape(-1) != 0 for w in support.weights.values()])


@torch.no_grad()
def disturbed(support: Projected, seed: int = 0) -> None:
    """As if an optimizer had moved every weight."""
    for weight in support.weights.values():
        weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
@pytest.mark.parametrize("keep", [0.01, 0.3])
def test_after_every_step_all_factors_together_keep_the_budget(digits, factors, keep):
    model = small_model()
    dense = sum(m.weight.numel() for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    support = bound(model, factors, keep)
    counts = Counts(support.weights)
    codes = Admm(support, lambda weights: Codebook(2), sets_in=0.3, every=3, rho=0.1)
    train(step_of(model, plain_stage(epochs=2, lr=0.05, batch_size=64), parts=[support, codes, counts]), digits)
    assert len(counts.found) == 8
    assert counts.found == [round(keep * dense)] * 8  # full: dense gradients leave no weight at zero
    assert codes.admm is not None


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
def test_a_schedule_s_budget_is_kept_after_every_step(digits, factors):
    model = small_model()
    plain = bound(model, factors)
    entries, k = sum(w.numel() for w in plain.weights.values()), plain.k
    schedule = CubicSchedule(entries=entries, k=k, begin=0.25, end=0.625, freeze=0.75)
    support, counts = Projected(plain.weights, k, GlobalL0, schedule), Counts(plain.weights)
    train(step_of(model, plain_stage(epochs=2, lr=0.05, batch_size=64), parts=[support, counts]), digits)
    # Eight steps; after 3, 4 and 5 of them a third, two thirds and all of the way from 0.25 to 0.625.
    shares = [1, 1, (2 / 3) ** 3, (1 / 3) ** 3, 0, 0, 0, 0]
    budgets = [k + round((entries - k) * share) for share in shares]
    assert counts.found[2:] == budgets[2:]
    assert all(budgets[2] < count <= entries for count in counts.found[:2])  # of U some entries are 0 at first


@pytest.mark.parametrize("factors", ["none", "uvc"])
def test_once_frozen_the_support_stands_still_whatever_the_steps_do(factors):
    support = scheduled(factors)
    found = []
    for step in (70, 74, 75, 90):
        support.before_step(Moment(step, 100))
        disturbed(support, step)
        support.after_step(Moment(step, 100))
        found.append(non_zeros(support))
    assert [int(each.sum()) for each in found] == [support.k] * 4
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])
    assert torch.equal(found[2], found[3])


@pytest.mark.parametrize("progress", [0.4, 0.8])
def test_a_state_from_before_the_freeze_does_not_freeze_larger_than_the_budget(progress):
    """The guard brings back weights of a larger budget; only past the freeze are they cut at once."""
    support = scheduled("none")
    for weight in support.weights.values():
        assert weight.count_nonzero() == weight.numel()
    support.load(*support.state())
    support.catch_up(progress)
    assert int(non_zeros(support).sum()) == (support.k if progress > 0.75 else non_zeros(support).numel())
    at = Moment(round(100 * progress), 100)
    support.before_step(at)
    disturbed(support)
    support.after_step(at)
    assert int(non_zeros(support).sum()) <= support.schedule.k_at(at.after)


@pytest.mark.parametrize("schedule", [False, True])
def test_another_k_holds_from_the_next_step_and_in_what_is_chosen(schedule):
    support = scheduled("none") if schedule else bound(small_model(), "none")
    support.resize(33)
    disturbed(support)
    support.after_step(Moment(69, 100))
    assert int(non_zeros(support).sum()) == 33
    assert sum(int(w.count_nonzero()) for w in support.chosen().values()) == 33


def test_what_is_chosen_is_within_the_budget_where_the_weights_are_not_yet_or_are_an_average():
    def count(support: Projected, **how: bool) -> int:
        return sum(int(w.count_nonzero()) for w in support.chosen(**how).values())

    early = scheduled("none")
    early.begin()
    assert count(early) == count(early, averaged=True) == early.k < int(non_zeros(early).sum())
    plain = bound(small_model(), "none")
    plain.begin()
    assert plain.chosen() is plain.weights
    disturbed(plain)  # now as an average would be
    assert count(plain, averaged=True) == plain.k
