"""Pruning by learned scores: the first ones, the choice of each layer, and both phases against autograd and SGD."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from atmc_search.compress import GlobalL0
from atmc_search.training import ScoreSearch, first_scores, largest_of_all, largest_of_each
from atmc_search.training.parts import Moment, Scored


def test_first_scores_are_the_weights_on_the_scale_of_the_fan_in() -> None:
    weight = torch.tensor([[[3.0, -6.0, 0.0]], [[1.5, 2.0, 0.5]]])  # fan-in 3: the largest becomes the root of 2
    assert torch.allclose(first_scores(weight), weight / 6 * 2**0.5)
    assert first_scores(torch.zeros(2, 3)).eq(0).all()


@pytest.mark.parametrize(("k", "counts"), [(3, [1, 1, 1]), (10, [5, 3, 2]), (13, [7, 4, 2]), (99, [20, 10, 2])])
def test_layers_keep_equal_shares_and_at_least_one_of_exactly_k(k: int, counts: list[int]) -> None:
    """One each, and k - 3 by 20 : 10 : 2; 7 as 4.375, 2.19 and 0.44, the last unit to the largest remainder."""
    generator = torch.Generator().manual_seed(0)
    scores = {str(n): torch.randn(n, generator=generator) for n in (20, 10, 2)}
    found = largest_of_each(scores, k)
    assert [int(tensor.count_nonzero()) for tensor in found.values()] == counts
    for name, tensor in found.items():
        kept = tensor != 0
        assert kept.all() or scores[name][kept].abs().min() >= scores[name][~kept].abs().max()
        assert torch.equal(tensor[kept], scores[name][kept])


def test_scores_move_as_sgd_moves_a_mask_of_the_frozen_weights_and_then_the_weights_on_it() -> None:
    """In the reference autograd hands the mask's gradient to |scores|, of torch's own SGD, and so to their signs."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=False)
    start = layer.weight.detach().clone()
    weights = {"weight": layer.weight}
    search = ScoreSearch.of(weights, largest_of_all(GlobalL0(6)), share=0.5, lr=0.3, momentum=0.9)
    support = Scored(weights, search, GlobalL0(6))
    support.begin()
    optimizer = torch.optim.SGD([layer.weight], lr=0.1, momentum=0.9, weight_decay=0.1)
    scores = nn.Parameter(first_scores(start))
    reference = torch.optim.SGD([scores], lr=0.3, momentum=0.9)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(reference, 10)
    supports = []
    for step in range(20):
        x, y = torch.randn(8, 6), torch.randn(8, 4)
        if step < 10:
            kept = GlobalL0(6).project({"s": scores.detach()}, None)[0]["s"] != 0
            mask = kept.float().requires_grad_()
            nn.functional.mse_loss(x @ (start * mask).T, y).backward()
            assert torch.equal(layer.weight, start * kept)
        optimizer.zero_grad()
        nn.functional.mse_loss(layer(x), y).backward()
        support.before_step(Moment(step, 20))
        optimizer.step()
        support.after_step(Moment(step, 20))
        if step < 10:
            reference.zero_grad()
            scores.abs().backward(mask.grad)
            reference.step()
            falling.step()
            assert torch.allclose(search.scores["weight"], scores, atol=1e-6)
        supports.append(layer.weight != 0)
        assert int(supports[-1].sum()) == 6
    assert scores.min() < 0 < scores.max()
    assert len({tuple(support.flatten().tolist()) for support in supports[:10]}) > 1  # the choice did move
    assert all(torch.equal(support, supports[9]) for support in supports[10:])
    assert not torch.equal(layer.weight[supports[9]], start[supports[9]])
