"""The law of every part: one that loads a state goes on to the bit, through JSON and copies of tensors."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from stages import plain_stage, small_model, step_of
from torch import nn

from atmc_search.attacks import FGSM
from atmc_search.compress import (
    Codebook,
    CubicSchedule,
    FixedSupport,
    GlobalL0,
    GrowSchedule,
    constrained_weights,
    factorise,
)
from atmc_search.data import DeviceData
from atmc_search.training import Quotas, ScoreSearch, largest_of_all, parts, train_epoch
from atmc_search.training.parts import (
    Admm,
    Average,
    Codes,
    Distillation,
    Fixed,
    Grown,
    Part,
    Projected,
    Scored,
    StraightThrough,
    Support,
)

K = 300
Weights = dict[str, nn.Parameter]


def scored(weights: Weights, share: float, *, harp: bool) -> Scored:
    quotas = Quotas.of(weights, K, start=0.2, gamma=0.1, lr=0.1, momentum=0.9) if harp else None
    search = ScoreSearch.of(weights, largest_of_all(GlobalL0(K)), share=share, lr=0.3, momentum=0.9, quotas=quotas)
    return Scored(weights, search, GlobalL0(K))


def coded(kind: type[Codes], begin: float, price: float, weights: Weights, model: nn.Module) -> list[Part]:
    support = Projected(weights, K)
    rest: dict[str, Any] = {"rho": 0.3} if kind is Admm else {}
    bits = {name: 2 + i for i, name in enumerate(weights)}
    return [support, kind(support, lambda w: Codebook(bits, 3, price), sets_in=begin, every=3, **rest)]


def teacher() -> nn.Module:
    return small_model(width=5).eval()


CUBIC = CubicSchedule(entries=3588, k=K, begin=0.1, end=0.4, freeze=0.45)
MAKERS: dict[str, Callable[[Weights, nn.Module], list[Part]]] = {
    "fixed, none": lambda w, m: [Fixed(w, None)],
    "fixed": lambda w, m: [Fixed(w, FixedSupport.of(GlobalL0(K).project(w, None)[0]))],
    "projected": lambda w, m: [Projected(w, K)],
    "projected, frozen": lambda w, m: [Projected(w, K, GlobalL0, CUBIC)],
    "grown": lambda w, m: [Grown(w, GlobalL0(K), GrowSchedule(3, 0.4, 0.0, 0.9))],
    "hydra, searching": lambda w, m: [scored(w, 0.7, harp=False)],
    "hydra, over": lambda w, m: [scored(w, 0.3, harp=False)],
    "harp, searching": lambda w, m: [scored(w, 0.7, harp=True)],
    "harp, over": lambda w, m: [scored(w, 0.5, harp=True)],
    "admm": partial(coded, Admm, 0.2, 0.0),
    "admm, priced": partial(coded, Admm, 0.2, 0.05),
    "admm, later": partial(coded, Admm, 0.7, 0.0),
    "straight_through": partial(coded, StraightThrough, 0.2, 0.0),
    "straight_through, priced": partial(coded, StraightThrough, 0.2, 0.05),
    "straight_through, later": partial(coded, StraightThrough, 0.7, 0.0),
    "average": lambda w, m: [Average(m, 0.9)],
    "distillation": lambda w, m: [Distillation(teacher(), 0.5, 2.0)],
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_part_that_loads_a_state_goes_on_to_the_bit(name, tiny_splits):
    data = DeviceData(tiny_splits.train, "cpu")

    def made() -> Any:
        model = small_model()
        found = MAKERS[name](constrained_weights(model, factorise(model, "none")), model)
        for part in found:
            part.begin()
        return step_of(model, plain_stage(epochs=2, lr=0.05, batch_size=50), FGSM(), parts=found)

    whole, again = made(), made()
    train_epoch(whole, data, epoch=0, seed=0, label="t")
    tensors, facts = whole.state()
    state = {name: tensor.detach().clone() for name, tensor in tensors.items()}, json.loads(json.dumps(facts))
    train_epoch(again, data, epoch=0, seed=1, label="other")  # all of which is to go
    again.load(*copy.deepcopy(state))
    for name_, tensor in again.state()[0].items():
        assert torch.equal(tensor, state[0][name_]), name_
    assert json.loads(json.dumps(again.state()[1])) == state[1]
    figures = [train_epoch(step, data, epoch=1, seed=0, label="t") for step in (whole, again)]
    assert figures[0] == figures[1]
    ends = whole.state()[0], again.state()[0]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[1][path], tensor) for path, tensor in ends[0].items())


def test_every_part_stands_in_the_table_of_laws():
    model = small_model()
    weights = constrained_weights(model, factorise(model, "none"))
    tried = {type(part) for maker in MAKERS.values() for part in maker(weights, model)}
    kinds = {kind for kind in vars(parts).values() if isinstance(kind, type) and issubclass(kind, Part)}
    assert tried == kinds - {Part, Support, Codes}
    assert len({kind.name for kind in tried}) == len(tried)
