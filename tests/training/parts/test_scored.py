from __future__ import annotations

import pytest
import torch
from torch import nn

from atmc_search.compress import Codebook, GlobalL0
from atmc_search.training import Quotas, ScoreSearch, largest_of_all
from atmc_search.training.parts import Admm, Moment, Scored, StraightThrough

K = 30


def scored(*, harp: bool, share: float = 0.5) -> Scored:
    """A search over two layers of 144 weights; harp starts with many more than the budget."""
    torch.manual_seed(0)
    weights = {"first": nn.Parameter(torch.randn(12, 8)), "second": nn.Parameter(torch.randn(4, 12))}
    quotas = Quotas.of(weights, K, start=0.6, gamma=0.1, lr=0.01, momentum=0.9) if harp else None
    search = ScoreSearch.of(weights, largest_of_all(GlobalL0(K)), share=share, lr=0.3, momentum=0.9, quotas=quotas)
    return Scored(weights, search, GlobalL0(K))


def non_zeros(weights: dict[str, torch.Tensor]) -> int:
    return sum(int(weight.count_nonzero()) for weight in weights.values())


def step(support: Scored, at: Moment) -> None:
    with support.seen(at):
        for weight in support.weights.values():
            weight.grad = torch.randn_like(weight)
    support.before_step(at)
    with torch.no_grad():
        for weight in support.weights.values():
            if weight.grad is not None:
                weight.sub_(0.1 * weight.grad)
    support.after_step(at)


@pytest.mark.parametrize("harp", [False, True], ids=["hydra", "harp"])
def test_a_state_from_within_the_search_ends_the_search_where_training_is_past_it(harp):
    """The guard brings back an earlier state: the support that is fixed next is within the budget all the same."""
    support = scored(harp=harp)
    support.begin()
    step(support, Moment(0, 10))
    early = {name: tensor.clone() for name, tensor in support.state()[0].items()}, support.state()[1]
    weights = {name: weight.detach().clone() for name, weight in support.weights.items()}
    assert non_zeros(weights) > K if harp else non_zeros(weights) == K
    for i in range(1, 8):
        step(support, Moment(i, 10))
    assert not support.searching
    assert support.state() == ({}, {})
    with torch.no_grad():
        for name, weight in support.weights.items():
            weight.copy_(weights[name])
    support.load(*early)
    support.catch_up(0.8)
    assert support.searching  # until the next step
    assert non_zeros(support.weights) == K
    chosen = support.chosen()
    assert all(torch.equal(chosen[name], weight) for name, weight in support.weights.items())
    kept = {name: weight != 0 for name, weight in support.weights.items()}
    for i in (8, 9):
        step(support, Moment(i, 10))
        assert not support.searching
        assert all(torch.equal(kept[name], weight != 0) for name, weight in support.weights.items())


def test_within_the_search_an_earlier_state_goes_on_searching():
    support = scored(harp=True)
    support.begin()
    before = non_zeros(support.weights)
    support.load(*support.state())
    support.catch_up(0.3)
    assert support.searching
    assert non_zeros(support.weights) == before > K
    step(support, Moment(3, 10))
    assert support.searching


@pytest.mark.parametrize("kind", [Admm, StraightThrough])
def test_no_codebook_sets_in_before_the_search_is_over(kind):
    support = scored(harp=False)
    support.begin()
    rest = {"rho": 0.1} if kind is Admm else {}
    codes = kind(support, lambda weights: Codebook(2), sets_in=0.0, every=1, **rest)
    set_in = []
    for i in range(8):
        at = Moment(i, 8)
        with codes.seen(at):
            for weight in support.weights.values():
                weight.grad = torch.randn_like(weight)
        for part in (support, codes):
            part.before_step(at)
        for part in (support, codes):
            part.after_step(at)
        set_in.append(codes.codebook is not None)
    first = 4 if kind is Admm else 5  # the step that ends the search has been seen by then
    assert set_in == [i >= first for i in range(8)]


def test_an_average_is_cut_to_the_budget_even_while_the_search_lasts():
    support = scored(harp=True)
    assert non_zeros(support.weights) == 144  # dense, as no step of the search is
    assert non_zeros(support.chosen(averaged=True)) == K
