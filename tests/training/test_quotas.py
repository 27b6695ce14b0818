"""HARP's quotas: their gradient against autograd through the layers of the paper, the step of gamma, exact budgets."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from atmc_search.compress import GlobalL0
from atmc_search.training import Quotas, ScoreSearch, first_scores
from atmc_search.training.parts import Moment, Scored


class Mask(torch.autograd.Function):
    """Of the largest scores, as the authors write it: gradients straight through, the share's summed over the layer."""

    @staticmethod
    def forward(ctx, scores: Tensor, share: Tensor) -> Tensor:  # type: ignore[override, no-untyped-def]
        count = max(1, round(float(share) * scores.numel()))
        return torch.zeros_like(scores).flatten().index_fill(0, scores.flatten().topk(count).indices, 1).view_as(scores)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override, no-untyped-def]
        return gradient, gradient.sum().double()


def quotas_of(sizes: list[int], k: int, start: float = 0.1, gamma: float = 0.1, lr: float = 0.1) -> Quotas:
    weights = {str(i): torch.zeros(size) for i, size in enumerate(sizes)}
    return Quotas.of(weights, k, start=start, gamma=gamma, lr=lr, momentum=0.9)


def test_scores_and_quotas_move_as_torch_moves_the_paper_s_parameters_of_its_loss() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12, bias=False), nn.Tanh(), nn.Linear(12, 4, bias=False))
    weights = dict(model.named_parameters())
    start = [weight.detach().clone() for weight in weights.values()]
    sizes, k = [96, 48], 30
    found = Quotas.of(weights, k, start=0.4, gamma=0.3, lr=0.7, momentum=0.9)
    search = ScoreSearch.of(weights, lambda scores: {}, share=0.5, lr=0.3, momentum=0.9, quotas=found)
    support = Scored(weights, search, GlobalL0(k))
    support.begin()

    least = 0.1 * k / 144
    inner = (0.4 - least) / (1 - least)
    quotas = nn.Parameter(torch.full((2,), np.log(inner / (1 - inner)), dtype=torch.float64))
    scores = nn.ParameterList([first_scores(weight) for weight in start])
    groups = [{"params": list(scores), "lr": 0.3}, {"params": [quotas], "lr": 0.7}]
    reference = torch.optim.SGD(groups, momentum=0.9)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(reference, 40)
    gamma, frozen, shares = 0.3, False, []
    for step in range(40):
        x, y = torch.randn(16, 8), torch.randn(16, 4)
        share = least + (1 - least) * torch.sigmoid(quotas)
        excess = (share @ torch.tensor(sizes, dtype=torch.float64) / k - 1).clamp(min=0)
        if step and step % 2 == 0 and not frozen:  # 40 steps, 20 of gamma
            frozen = float(excess) < 5e-5
            gamma += 0.0 if frozen else 0.3
        masks = [Mask.apply(s.abs(), a) for s, a in zip(scores, share, strict=True)]
        hidden = torch.tanh(x @ (start[0] * masks[0]).T)
        reference.zero_grad()
        (nn.functional.mse_loss(hidden @ (start[1] * masks[1]).T, y) + gamma * excess).backward()
        for weight, w, mask in zip(weights.values(), start, masks, strict=True):
            assert torch.equal(weight, w * mask)
        model.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        support.before_step(Moment(step, 80))
        support.after_step(Moment(step, 80))
        reference.step()
        falling.step()
        assert torch.allclose(found.quotas, quotas, atol=1e-5)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(search.scores.values(), scores, strict=True))
        assert found.gamma * found.steps == pytest.approx(gamma)
        assert found.met == frozen
        shares.append(share.tolist())
    assert frozen  # so that gamma was seen to stand still
    assert shares[0] == pytest.approx([0.4, 0.4])
    assert max(shares[-1]) > 1.5 * min(shares[-1])  # layers have parted
    assert sum(int(weight.count_nonzero()) for weight in weights.values()) == k  # and end on the budget
    counts = [int(weight.count_nonzero()) for weight in weights.values()]
    assert support.searching
    support.before_step(Moment(40, 80))
    assert not support.searching
    support.after_step(Moment(47, 80))
    assert [int(weight.count_nonzero()) for weight in weights.values()] == counts


@given(
    layers=st.lists(st.tuples(st.integers(1, 400), st.floats(-30, 30)), min_size=1, max_size=6),
    keep=st.floats(0, 1),
)
@settings(max_examples=150, deadline=None)
def test_final_counts_are_the_budget_s_to_the_weight_and_keep_the_order_of_the_quotas(layers, keep) -> None:
    sizes, logits = [size for size, _ in layers], [logit for _, logit in layers]
    k = max(len(sizes), round(keep * sum(sizes)))
    quotas = quotas_of(sizes, k)
    quotas.quotas = torch.tensor(logits, dtype=torch.float64)
    counts = list(quotas.final_counts().values())
    assert sum(counts) == k
    assert all(1 <= count <= size for count, size in zip(counts, sizes, strict=True))
    of_layers = sorted(zip(logits, sizes, counts, strict=True))
    exact = [((count - 1) / (size - 1), size) for _, size, count in of_layers if size > 1]
    for (low, few), (high, many) in pairwise(exact):
        assert low <= high + 1 / (few - 1) + 1 / (many - 1)


def test_shares_that_meet_the_budget_are_final_as_they_are() -> None:
    """1 + 0.1 · 1,000 and 1 + 0.3 · 500 weights of two layers, for a budget of as many."""
    quotas = quotas_of([1001, 501], 252)
    least = 0.1 * 252 / 1502
    inner = (torch.tensor([0.1, 0.3], dtype=torch.float64) - least) / (1 - least)
    quotas.quotas = torch.log(inner / (1 - inner))
    assert quotas.final_counts() == {"0": 101, "1": 151}
    assert quotas.counts() == {"0": 100, "1": 150}


@pytest.mark.parametrize(("start", "keep", "first"), [(0.1, 0.02, 0.1), (0.1, 0.3, 0.3), (0.5, 0.5, 0.5)])
def test_layers_start_at_one_share_and_never_below_the_budget_s(start: float, keep: float, first: float) -> None:
    quotas = quotas_of([600, 400], round(1000 * keep), start=start)
    assert quotas.shares().tolist() == pytest.approx([first, first])
    assert quotas.excess() == pytest.approx(first / keep - 1)
    quotas.quotas.fill_(-50)
    assert quotas.shares().tolist() == pytest.approx([keep / 10, keep / 10])
    assert quotas.excess() == 0
