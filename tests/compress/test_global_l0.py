from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atmc_search.compress import GlobalL0, largest

magnitude = st.sampled_from([0.0, 0.0, 1.0, 1.0, 2.0, 0.5]) | st.floats(0, 100, width=32)


class Elsewhere(torch.Tensor):
    """A CPU tensor that says it is not on the CPU, so that the accelerator's branch runs."""

    @property
    def device(self) -> SimpleNamespace:  # type: ignore[override]
        return SimpleNamespace(type="cuda")


def brute_force(values: list[float], k: int) -> list[bool]:
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))[: max(k, 0)]
    return [i in order for i in range(len(values))]


@given(st.lists(magnitude, min_size=1, max_size=40), st.integers(-1, 45))
@settings(max_examples=300, deadline=None)
def test_largest_is_the_head_of_a_stable_sort(values: list[float], k: int) -> None:
    tensor = torch.tensor(values)
    mask = largest(tensor, k)
    assert mask.dtype == torch.bool
    assert mask.tolist() == brute_force(tensor.tolist(), k)
    assert largest(tensor.as_subclass(Elsewhere), k).tolist() == mask.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_largest_of_many_values(dtype: torch.dtype) -> None:
    values = torch.randn(50_000, generator=torch.Generator().manual_seed(0), dtype=dtype).abs()
    values[::3] = values[0]  # a third of them tied
    for k in (1, 100, 20_000, 33_000, 49_999):
        mask = largest(values, k)
        assert int(mask.sum()) == k
        assert values[mask].min() >= values[~mask].max()
        assert torch.equal(largest(values.as_subclass(Elsewhere), k).as_subclass(Tensor), mask)


def test_of_ties_the_first_stay() -> None:
    assert largest(torch.tensor([1.0, 2.0, 1.0, 1.0, 0.0]), 3).tolist() == [True, True, True, False, False]
    projected, _ = GlobalL0(3).project({"a": torch.tensor([-1.0, 1.0]), "b": torch.tensor([[1.0], [-1.0]])}, None)
    assert projected["a"].tolist() == [-1.0, 1.0]
    assert projected["b"].tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize("k", [1, 2, 5, 11])
def test_exactly_k_survive_when_all_are_tied(k: int) -> None:
    weights = {"a": torch.full((2, 3), -0.5), "b": torch.full((6,), 0.5)}
    projected, _ = GlobalL0(k).project(weights, None)
    assert sum(int(tensor.count_nonzero()) for tensor in projected.values()) == k


def test_one_budget_is_shared_by_all_tensors() -> None:
    """Not k, nor a share of k, a tensor: the small tensor's values lose."""
    weights = {"small": torch.tensor([0.1, -0.2, 0.3]), "large": torch.tensor([[1.0, -2.0], [0.25, 4.0]])}
    projected, _ = GlobalL0(4).project(weights, None)
    assert projected["small"].tolist() == pytest.approx([0, 0, 0.3])
    assert projected["large"].tolist() == [[1.0, -2.0], [0.0, 4.0]]


@given(
    st.lists(
        st.lists(magnitude.flatmap(lambda m: st.sampled_from([m, -m])), min_size=1, max_size=4), max_size=3, min_size=1
    ),
    st.integers(0, 13),
)
@settings(max_examples=100, deadline=None)
def test_it_is_the_euclidean_projection(tensors: list[list[float]], k: int) -> None:
    weights = {str(i): torch.tensor(tensor) for i, tensor in enumerate(tensors)}
    projected, _ = GlobalL0(k).project(weights, None)
    flat = torch.cat(list(weights.values())).double()
    moved = torch.cat(list(projected.values())).double()
    n = len(flat)
    best = min(
        float(flat.square().sum() - flat[list(support)].square().sum()) for support in combinations(range(n), min(k, n))
    )
    assert float((flat - moved).square().sum()) == pytest.approx(max(best, 0), abs=1e-9, rel=1e-9)
    assert bool(((moved == flat) | (moved == 0)).all())


def test_a_diverged_weight_is_kept_for_all_to_see():
    weights = {"a": torch.tensor([float("nan"), 3.0, 2.0, 1.0]), "b": torch.tensor([0.5, float("inf")])}
    projected, _ = GlobalL0(3).project(weights, None)
    assert torch.isnan(projected["a"][0])
    assert projected["a"].nan_to_num().tolist() == [0.0, 3.0, 0.0, 0.0]
    assert projected["b"].tolist() == [0.0, float("inf")]
