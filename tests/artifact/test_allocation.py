from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from atmc_search.artifact import encoded_bytes, mixed_bits
from atmc_search.artifact.coding import encode
from atmc_search.compress import Codebook, requantised


def weights() -> dict[str, Tensor]:
    """Three pruned tensors whose values differ in spread and number, one of few values, one that is empty."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "wide": 2 * torch.randn(40, 30, generator=generator),
        "narrow": 0.01 * torch.randn(60, 50, generator=generator),
        "small": torch.randn(20, 5, generator=generator),
    }
    pruned = {name: t * (torch.rand(t.shape, generator=generator) < 0.3) for name, t in tensors.items()}
    return pruned | {"few": torch.tensor([[0.5, 0.0, -0.5, 0.5]]), "empty": torch.zeros(4, 4)}


def paid_and_lost(
    given: dict[str, Tensor], bits: dict[str, int], centres: Mapping[str, Tensor] | None = None
) -> tuple[int, float]:
    paid, lost = 0, 0.0
    for name, tensor in given.items():
        warm = None if centres is None else centres[name].numpy()
        quantised = requantised(tensor.numpy(), bits[name], warm=warm, floats="fp16")
        paid += len(encode(quantised.reshape(-1)))
        lost += float(((quantised.astype(float) - tensor.numpy()) ** 2).sum())
    return paid, lost


@pytest.mark.parametrize("uniform", range(2, 8))
def test_the_bytes_of_uniform_bits_are_spent_better(uniform: int) -> None:
    given = weights()
    mixed = mixed_bits(given, uniform=uniform, floats="fp16", seed=0)
    assert mixed is not None
    paid, lost = paid_and_lost(given, mixed)
    uniform_paid, uniform_lost = paid_and_lost(given, dict.fromkeys(given, uniform))
    assert paid <= uniform_paid
    assert lost < uniform_lost
    assert mixed["wide"] > mixed["narrow"]


@pytest.mark.parametrize("seed", [0, 1, 2, 23, 53])  # in the last two the greedy choice alone distorts more
@pytest.mark.parametrize("uniform", [1, 3, 5])
def test_mixed_is_never_worse_than_uniform(seed: int, uniform: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scales = 10 ** (4 * torch.rand(4, generator=generator) - 3)
    given = {
        str(i): scale * torch.randn(20, 30, generator=generator) * (torch.rand(20, 30, generator=generator) < 0.4)
        for i, scale in enumerate(scales)
    }
    mixed = mixed_bits(given, uniform=uniform, floats="fp16", seed=0)
    assert mixed is not None
    paid, lost = paid_and_lost(given, mixed)
    uniform_paid, uniform_lost = paid_and_lost(given, dict.fromkeys(given, uniform))
    assert paid <= uniform_paid
    assert lost <= uniform_lost


def test_costs_are_those_of_the_last_projection_from_the_centres_that_training_found() -> None:
    """From them k-means ends elsewhere than from starts of its own; here in a file that is some bytes shorter."""
    generator = torch.Generator().manual_seed(4)
    given = {"a": torch.randn(60, 50, generator=generator)}
    _, centres = Codebook(8).project({"a": given["a"] + 0.05 * torch.randn(60, 50, generator=generator)}, {})
    budget, _ = paid_and_lost(given, {"a": 8}, centres)
    assert budget < paid_and_lost(given, {"a": 8})[0]
    assert mixed_bits(given, budget_bytes=budget, floats="fp16", seed=0, centres=centres) == {"a": 8}
    assert mixed_bits(given, budget_bytes=budget, floats="fp16", seed=0) != {"a": 8}


@pytest.mark.parametrize("budget", [900, 1200, 1500, 2000])
def test_against_every_combination(budget: int) -> None:
    given = {name: tensor for name, tensor in weights().items() if name in ("wide", "narrow", "small")}
    mixed = mixed_bits(given, budget_bytes=budget, floats="fp16", seed=0)
    table = {name: [paid_and_lost({name: t}, {name: b}) for b in range(1, 9)] for name, t in given.items()}
    every = [[table[name][b - 1] for name, b in zip(given, bits, strict=True)] for bits in combinations(len(given))]
    allowed = [sum(lost for _, lost in row) for row in every if sum(paid for paid, _ in row) <= budget]
    if mixed is None:
        assert not allowed
        return
    paid, lost = paid_and_lost(given, mixed)
    assert paid <= budget
    # Greedy on the hull: the best for the bytes it spends less one step, which is at most a quarter more distortion
    # than the best of all here.
    assert min(allowed) <= lost * (1 + 1e-9)
    cheaper = [sum(d for _, d in row) for row in every if sum(p for p, _ in row) <= paid - 130]
    assert lost <= min(cheaper, default=float("inf"))


def combinations(tensors: int) -> list[tuple[int, ...]]:
    return list(itertools.product(range(1, 9), repeat=tensors))


def test_no_bits_are_bought_where_nothing_is_left_to_gain() -> None:
    mixed = mixed_bits(weights(), uniform=8, floats="fp16", seed=0)
    assert mixed is not None
    assert (mixed["few"], mixed["empty"]) == (1, 1)


def test_a_budget_below_the_cheapest_codebooks_is_none() -> None:
    given = weights()
    least, _ = paid_and_lost(given, dict.fromkeys(given, 1))
    assert mixed_bits(given, budget_bytes=least - 1, floats="fp16", seed=0) is None
    assert mixed_bits(given, budget_bytes=least, floats="fp16", seed=0) == dict.fromkeys(given, 1)


def test_encoded_bytes_are_those_of_the_coder() -> None:
    arrays = {name: tensor.numpy() for name, tensor in weights().items()}
    assert encoded_bytes(arrays) == sum(len(encode(a.reshape(-1))) for a in arrays.values())
