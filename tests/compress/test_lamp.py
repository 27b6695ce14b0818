from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atmc_search.compress import GlobalL0, LampBudget, lamp_scores

value = st.sampled_from([0.0, 1.0, -1.0, 2.0, 1e-3]) | st.floats(0.0625, 100, width=16)
tensors = st.lists(st.lists(value, min_size=1, max_size=8), min_size=1, max_size=4)


def by_the_definition(weights: dict[str, Tensor], k: int) -> set[tuple[str, int]]:
    """The paper's equation 3, entry by entry: the square over the sum of those that come no later in the layer."""
    scores = {}
    for place, (name, tensor) in enumerate(weights.items()):
        order = sorted(range(len(tensor)), key=lambda i: (-abs(float(tensor[i])), i))
        for rank, i in enumerate(order):
            total = sum(float(tensor[j]) ** 2 for j in order[: rank + 1])
            scores[name, i] = (float(tensor[i]) ** 2 / total if total else 0.0, -place, -rank)
    best = sorted(scores, key=lambda entry: scores[entry], reverse=True)[:k]
    return {(name, i) for name, i in best if float(weights[name][i]) != 0}


@given(tensors, st.integers(0, 20))
@settings(max_examples=200, deadline=None)
def test_the_largest_scores_of_all_stay(given_tensors: list[list[float]], k: int) -> None:
    weights = {str(i): torch.tensor(values) for i, values in enumerate(given_tensors)}
    kept, _ = LampBudget(k).project(weights, None)
    wanted = by_the_definition(weights, k)
    found = {(name, int(i)) for name, tensor in kept.items() for i in tensor.nonzero()}
    if found != wanted:  # scores that are equal but for rounding may go either way
        assert sorted(score_of(weights, found)) == pytest.approx(sorted(score_of(weights, wanted)), rel=1e-5)


def score_of(weights: dict[str, Tensor], entries: set[tuple[str, int]]) -> list[float]:
    scores = {}
    for name, tensor in weights.items():
        order = tensor.abs().sort(descending=True, stable=True)
        scores |= {(name, int(i)): float(s) for i, s in zip(order[1], lamp_scores(order[0]), strict=True)}
    return [scores[entry] for entry in entries]


def test_layers_of_any_scale_are_comparable_and_none_dies():
    generator = torch.Generator().manual_seed(0)
    weights = {str(i): 10.0**-i * torch.randn(300, generator=generator) for i in range(6)}
    for k in (6, 40, 900):
        counts = [int(w.count_nonzero()) for w in LampBudget(k).project(weights, None)[0].values()]
        assert sum(counts) == k
        assert min(counts) >= max(1, k // 12)
    assert GlobalL0(40).project(weights, None)[0]["5"].count_nonzero() == 0  # where plain magnitudes kill a layer
    scaled = {name: (7.0 if name == "2" else 1.0) * tensor for name, tensor in weights.items()}
    for name, kept in LampBudget(60).project(scaled, None)[0].items():
        assert torch.equal(kept != 0, LampBudget(60).project(weights, None)[0][name] != 0)


def test_factors_of_a_layer_compete_by_magnitude():
    weights = {"a.U": torch.tensor([1e-6, 2e-6]), "a.V": torch.tensor([3.0, 2.0]), "b": torch.tensor([1e-4, 1e-5])}
    kept, _ = LampBudget(3, {"a.U": "a", "a.V": "a"}).project(weights, None)
    assert [tensor.count_nonzero() for tensor in kept.values()] == [0, 2, 1]
    apart, _ = LampBudget(3).project(weights, None)
    assert [int(tensor.count_nonzero()) for tensor in apart.values()] == [1, 1, 1]


def test_a_diverged_weight_is_kept_for_all_to_see():
    weights = {"a": torch.tensor([3.0, float("nan")]), "b": torch.tensor([0.5, float("-inf")])}
    kept, _ = LampBudget(2).project(weights, None)
    assert kept["a"].isnan().tolist() == [False, True]
    assert kept["b"].tolist() == [0.0, float("-inf")]
