"""The ℓ0 budget over effective weights, on a network small enough to try every support."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from atmc_search.channels import EffectiveEntries
from atmc_search.compress import GlobalL0, LiveBudget


def network(widths: tuple[int, ...], seed: int) -> tuple[EffectiveEntries, dict[str, Tensor]]:
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (left, right) in enumerate(pairwise(widths)):
        layers += [nn.Linear(left, right), *([nn.ReLU()] if i < len(widths) - 2 else [])]
    model = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(seed)
    weights = {n: torch.randn(p.shape, generator=generator) for n, p in model.named_parameters() if p.dim() == 2}
    return EffectiveEntries.of(model, (1, 1, widths[0])), weights


def support(weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([weight.flatten() != 0 for weight in weights.values()])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [6, 12, 20, 40])
def test_every_non_zero_lives_and_none_that_lived_is_lost(k: int, seed: int) -> None:
    effective, weights = network((6, 10, 8, 3), seed)
    plain, _ = GlobalL0(k).project(weights, None)
    found, _ = LiveBudget(GlobalL0(k), effective).project(weights, None)
    lived = {name: plain[name] * effective(plain)[name] for name in plain}
    if not support(lived).any():
        assert all(torch.equal(found[name], plain[name]) for name in plain)
        return
    assert (support(found) <= support(effective(found))).all()
    assert (support(lived) <= support(found)).all()
    # The places of the dead are taken as long as effective channels have room for them, by the largest there.
    room = {name: torch.where(mask, weights[name], 0) for name, mask in effective(plain).items()}
    best, _ = GlobalL0(k).project(room, None)
    assert all(torch.equal(found[name], best[name]) for name in best)
    assert int(support(found).sum()) == min(k, int(support(room).sum()))


def test_where_nothing_is_dead_it_is_the_plain_projection_to_the_bit() -> None:
    effective, weights = network((4, 5, 3), 0)
    plain, _ = GlobalL0(33).project(weights, None)
    found, _ = LiveBudget(GlobalL0(33), effective).project(weights, None)
    assert all(torch.equal(found[name], plain[name]) for name in plain)
