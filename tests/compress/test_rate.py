"""The ℓ0 budget by bits: against every support of the same prices, and by the bytes of a file."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from atmc_search.artifact import encoded_bytes
from atmc_search.compress import FactorisedLayer, GlobalL0, RateBudget, place_bits


def test_places_cost_what_the_densities_of_row_and_column_say() -> None:
    """To a thousandth, as of 512 places the prior is none: rows of density 1 and 1/4, columns alike."""
    support = torch.ones(512, 512, dtype=torch.bool)
    support[256:].view(256, 128, 4)[..., 1:] = False
    bits = place_bits(support)
    column = torch.tensor([1.0, *[0.5] * 3]).repeat(128)
    row = torch.tensor([1.0, 0.25]).repeat_interleave(256)
    expected = -(row[:, None] * column / 0.625).log2().clamp(max=0)
    assert torch.allclose(bits, expected, atol=5e-3)


@pytest.mark.parametrize("shape", [(6,), (2, 3), (4, 2, 3, 3)])
def test_an_even_density_costs_its_logarithm_everywhere(shape: tuple[int, ...]) -> None:
    assert place_bits(torch.ones(shape, dtype=torch.bool)).max() < 0.2
    empty = place_bits(torch.zeros(shape, dtype=torch.bool))
    assert empty.shape == shape
    assert empty.min() == empty.max() > 2


@pytest.mark.parametrize("seed", range(5))
def test_no_support_has_less_distortion_and_rate_at_the_prices_of_its_own(seed: int) -> None:
    """Σ w² of what goes + λ Σ bits of what stays, over all supports of 10 entries, λ that of the last to stay."""
    generator = torch.Generator().manual_seed(seed)
    weights = {"a": torch.randn(2, 3, generator=generator), "b": torch.randn(4, 1, generator=generator)}
    found, _ = RateBudget(4, code_bits=2).project(weights, None)
    bits = torch.cat([(place_bits(tensor != 0) + 2).flatten() for tensor in found.values()])
    squares = torch.cat([weight.flatten() for weight in weights.values()]).square()
    stays = torch.cat([tensor.flatten() != 0 for tensor in found.values()])
    rate = float((squares / bits)[stays].min())

    def cost(support: list[int]) -> float:
        chosen = torch.zeros(10, dtype=torch.bool)
        chosen[support] = True
        return float(squares[~chosen].sum() + rate * bits[chosen].sum())

    best = min(cost(list(support)) for n in range(11) for support in combinations(range(10), n))
    assert cost(stays.nonzero().flatten().tolist()) == pytest.approx(best, rel=1e-6)


def test_as_many_non_zeros_take_fewer_bytes_at_little_more_distortion() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.rand(60, 1, generator=generator).pow(2) * torch.rand(80, generator=generator).pow(2)
    weights = {"a.weight": torch.randn(60, 80, generator=generator) * scales}
    layers = [FactorisedLayer("a", (60, 80))]

    def figures(budget: GlobalL0 | RateBudget) -> tuple[int, float, int]:
        found, _ = budget.project(weights, None)
        left = weights["a.weight"] - found["a.weight"]
        signs: dict[str, Tensor] = {name: tensor.sign() for name, tensor in found.items()}
        return encoded_bytes(signs, layers), float(left.norm()), int(found["a.weight"].count_nonzero())

    plain, priced = figures(GlobalL0(300)), figures(RateBudget(300, code_bits=1))
    assert plain[2] == priced[2] == 300
    assert priced[0] < 0.95 * plain[0]
    assert plain[1] < priced[1] < 1.05 * plain[1]


def test_where_values_cost_all_it_is_the_plain_budget() -> None:
    weights = {"a": torch.randn(9, 7, generator=torch.Generator().manual_seed(1)), "b": torch.arange(5.0)}
    found, _ = RateBudget(20, code_bits=1e9).project(weights, None)
    plain, _ = GlobalL0(20).project(weights, None)
    assert all(torch.equal(found[name], plain[name]) for name in plain)
