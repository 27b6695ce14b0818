from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from atmc_search.artifact import encoded_bytes, mixed_bits
from atmc_search.artifact.coding import Margins, Meter, best_plan, code_tensor, margins
from atmc_search.compress import Codebook, FactorisedLayer, requantised


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


def layers_of(given: Mapping[str, Tensor]) -> list[FactorisedLayer]:
    return [FactorisedLayer(name, tuple(tensor.shape)) for name, tensor in given.items()]


def as_weights(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the names of the layers' weights."""
    return {f"{name}.weight": tensor for name, tensor in given.items()}


def mixed(given: Mapping[str, Tensor], **settings: Any) -> dict[str, int] | None:
    """`mixed_bits` by tensor."""
    centres = settings.pop("centres", None)
    if centres is not None:
        settings["centres"] = as_weights(centres)
    found = mixed_bits(as_weights(given), layers_of(given), floats="fp16", seed=0, **settings)
    return None if found is None else {name.removesuffix(".weight"): bits for name, bits in found.items()}


def coded_bytes(tensors: list[Tensor]) -> float:
    """What tensors take that are coded one after the other, each by its best plan."""
    meter, earlier = Meter(), list[Margins]()
    for tensor in tensors:
        matrix = tensor.numpy()
        shape = (matrix.shape[0], matrix.shape[1])
        code_tensor(meter, shape, (1, 1), earlier, best_plan(matrix, (1, 1), earlier), matrix)
        earlier.append(margins(matrix))
    return meter.total / 8


def paid_and_lost(
    given: dict[str, Tensor], bits: dict[str, int], centres: Mapping[str, Tensor] | None = None
) -> tuple[float, float]:
    quantised, lost = {}, 0.0
    for name, tensor in given.items():
        warm = None if centres is None else centres[name].numpy()
        near = requantised(tensor.numpy(), bits[name], warm=warm, floats="fp16")
        quantised[name] = torch.from_numpy(near)
        lost += float(((near.astype(float) - tensor.numpy()) ** 2).sum())
    return encoded_bytes(as_weights(quantised), layers_of(quantised)), lost


@pytest.mark.parametrize("uniform", range(2, 8))
def test_the_bytes_of_uniform_bits_are_spent_better(uniform: int) -> None:
    given = weights()
    found = mixed(given, uniform=uniform)
    assert found is not None
    paid, lost = paid_and_lost(given, found)
    uniform_paid, uniform_lost = paid_and_lost(given, dict.fromkeys(given, uniform))
    assert paid <= uniform_paid
    assert lost < uniform_lost
    assert found["wide"] > found["narrow"]


@pytest.mark.parametrize("seed", [0, 1, 2, 23, 53])  # in the last two the greedy choice alone distorts more
@pytest.mark.parametrize("uniform", [1, 3, 5])
def test_mixed_is_never_worse_than_uniform(seed: int, uniform: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scales = 10 ** (4 * torch.rand(4, generator=generator) - 3)
    given = {
        str(i): scale * torch.randn(20, 30, generator=generator) * (torch.rand(20, 30, generator=generator) < 0.4)
        for i, scale in enumerate(scales)
    }
    found = mixed(given, uniform=uniform)
    assert found is not None
    paid, lost = paid_and_lost(given, found)
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
    assert mixed(given, budget_bytes=budget, centres=centres) == {"a": 8}
    assert mixed(given, budget_bytes=budget) != {"a": 8}


@pytest.mark.parametrize("budget", [900, 1200, 1500, 2000])
def test_against_every_combination(budget: int) -> None:
    given = {name: tensor for name, tensor in weights().items() if name in ("wide", "narrow", "small")}
    found = mixed(given, budget_bytes=budget)
    table = {name: [paid_and_lost({name: t}, {name: b}) for b in range(1, 9)] for name, t in given.items()}
    every = [[table[name][b - 1] for name, b in zip(given, bits, strict=True)] for bits in combinations(len(given))]
    allowed = [sum(lost for _, lost in row) for row in every if sum(paid for paid, _ in row) <= budget]
    if found is None:
        assert not allowed
        return
    paid, lost = paid_and_lost(given, found)
    assert paid <= budget
    # Greedy on the hull: the best for the bytes it spends less one step, which is at most a quarter more distortion
    # than the best of all here.
    assert min(allowed) <= lost * (1 + 1e-9)
    cheaper = [sum(d for _, d in row) for row in every if sum(p for p, _ in row) <= paid - 130]
    assert lost <= min(cheaper, default=float("inf"))


def combinations(tensors: int) -> list[tuple[int, ...]]:
    return list(itertools.product(range(1, 9), repeat=tensors))


def test_no_bits_are_bought_where_nothing_is_left_to_gain() -> None:
    found = mixed(weights(), uniform=8)
    assert found is not None
    assert (found["few"], found["empty"]) == (1, 1)


def test_a_budget_below_the_cheapest_codebooks_is_none() -> None:
    given = weights()
    least, _ = paid_and_lost(given, dict.fromkeys(given, 1))
    assert mixed(given, budget_bytes=least - 1) is None
    assert mixed(given, budget_bytes=least) == dict.fromkeys(given, 1)


def test_encoded_bytes_are_those_of_the_coder() -> None:
    """The plan, of which a bound is counted, apart."""
    given = weights()
    counted = encoded_bytes(as_weights(given), layers_of(given))
    assert counted - 8 * len(given) <= coded_bytes(list(given.values())) <= counted
