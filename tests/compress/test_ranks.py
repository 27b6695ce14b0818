from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from atmc_search.compress import factorise, layers_to_compress, ranks_by_budget, ranks_by_energy, spectra


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 4 * 4, 6), nn.ReLU(), nn.Linear(6, 3))


def parts() -> tuple[list, dict]:
    model = network()
    layers = layers_to_compress(model)
    return layers, dict(spectra(layers, dict(model.named_parameters())))


def test_spectra_are_the_singular_values_of_the_flattened_weights() -> None:
    model, (layers, values) = network(), parts()
    for layer in layers:
        matrix = model.get_parameter(layer.weight).detach().flatten(1).numpy()
        assert np.allclose(values[layer.weight], np.linalg.svd(matrix, compute_uv=False), atol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99, 1.0])
def test_energy_is_kept_with_one_threshold_and_no_more_than_needed(share: float) -> None:
    _, values = parts()
    ranks = ranks_by_energy(values, share)
    kept = np.concatenate([v[: ranks[name]] ** 2 for name, v in values.items()])
    lost = np.concatenate([v[ranks[name] :] ** 2 for name, v in values.items()])
    total = kept.sum() + lost.sum()
    assert kept.sum() >= share * total * (1 - 1e-9)
    forced = [name for name in values if ranks[name] == 1]  # rank 1 is the least
    free = np.concatenate([v[: ranks[name]] ** 2 for name, v in values.items() if name not in forced] or [[np.inf]])
    assert free.min() >= lost.max(initial=0)
    if free.min() < np.inf:
        assert kept.sum() - free.min() < share * total


def test_energy_of_equal_layers_is_shared_by_their_values() -> None:
    values = {"a": np.array([4.0, 1.0]), "b": np.array([3.0, 2.0])}
    assert ranks_by_energy(values, 25 / 30) == {"a": 1, "b": 1}  # 16 + 9
    assert ranks_by_energy(values, 26 / 30) == {"a": 1, "b": 2}
    assert ranks_by_energy(values, 1.0) == {"a": 2, "b": 2}


@given(st.integers(0, 600))
@settings(max_examples=60, deadline=None)
def test_budgeted_ranks_against_brute_force(budget: int) -> None:
    layers, values = parts()
    ranks = ranks_by_budget(layers, values, budget=budget, value_cost=1)

    def cost(chosen: dict[str, int]) -> int:
        sizes = [
            r * (layer.rows + layer.columns) if (r := chosen[layer.weight]) else layer.rows * layer.columns
            for layer in layers
        ]
        return sum(sizes)

    def lost(chosen: dict[str, int]) -> float:
        return sum(float((v[chosen[name] :] ** 2).sum()) if chosen[name] else 0.0 for name, v in values.items())

    every = [
        dict(zip(values, combination, strict=True))
        for combination in itertools.product(*(range(len(v)) for v in values.values()))
    ]
    allowed = [chosen for chosen in every if cost(chosen) <= budget]
    if ranks is None:
        assert not allowed
        return
    assert cost(ranks) <= budget
    best = min(lost(chosen) for chosen in allowed)
    assert best - 1e-9 <= lost(ranks) <= best + max(float((v**2).sum()) for v in values.values())


def test_a_layer_whose_factors_would_cost_more_stays_whole() -> None:
    layers, values = parts()
    assert ranks_by_budget(layers, values, budget=1e9, value_cost=1) == {layer.weight: 0 for layer in layers}
    assert ranks_by_budget(layers, values, budget=10, value_cost=1) is None


def test_costs_count_values_and_layers() -> None:
    layers, values = parts()
    least = sum(layer.rows + layer.columns for layer in layers)
    assert ranks_by_budget(layers, values, budget=2 * least + 2 * 3 * 5 - 1, value_cost=2, layer_cost=5) is None
    ranks = ranks_by_budget(layers, values, budget=2 * least + 2 * 3 * 5, value_cost=2, layer_cost=5)
    assert ranks is not None
    assert set(ranks.values()) <= {0, 1}
    factorise(network(), "low_rank", ranks)
