from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from stages import small_model

from atmc_search.compress import GlobalL0, GrowSchedule, constrained_weights, factorise
from atmc_search.training.parts import Grown, Moment


def grown(factors: Any, schedule: GrowSchedule) -> Grown:
    model = small_model()
    layers = factorise(model, factors)
    k = round(0.2 * sum(layer.rows * layer.columns for layer in layers))
    return Grown(constrained_weights(model, layers), GlobalL0(k), schedule)


def non_zeros(support: Grown) -> torch.Tensor:
    return torch.cat([w.detach().reshape(-1) != 0 for w in support.weights.values()])


@pytest.mark.parametrize("factors", ["none", "uvc_plain"])
def test_a_support_that_grows_and_drops_keeps_its_size_and_changes_on_time_alone(factors):
    support = grown(factors, GrowSchedule(every=3, share=0.5, begin=0.0, end=0.7))
    support.begin()
    supports = []
    generator = torch.Generator().manual_seed(0)
    for step in range(16):
        for weight in support.weights.values():
            weight.grad = torch.randn(weight.shape, generator=generator)
        support.before_step(Moment(step, 16))
        with torch.no_grad():
            for weight in support.weights.values():
                weight.sub_(weight.grad, alpha=0.01)
        support.after_step(Moment(step, 16))
        supports.append(non_zeros(support))
    assert {int(each.sum()) for each in supports} == {support.allowed.k}
    moved = [step + 1 for step, (old, new) in enumerate(pairwise(supports)) if not torch.equal(old, new)]
    assert moved == [3, 6, 9]  # 12 of 16 is past the end


def test_an_average_of_moving_supports_is_cut_to_the_budget():
    support = grown("none", GrowSchedule(every=1, share=0.5, begin=0.0, end=1.0))
    assert int(non_zeros(support).sum()) > support.allowed.k  # the dense weights, as an average would be
    assert support.chosen() is support.weights
    chosen = support.chosen(averaged=True)
    assert sum(int(weight.count_nonzero()) for weight in chosen.values()) == support.allowed.k
