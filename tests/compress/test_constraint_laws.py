"""The laws of the contract over every constraint: a row a constraint; a new one adds a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atmc_search import compress
from atmc_search.compress import (
    Codebook,
    Constraint,
    FixedSupport,
    GlobalL0,
    LampBudget,
    LiveBudget,
    RateBudget,
    Weights,
)


def own_bits(weights: Weights) -> Codebook:
    return Codebook({name: 1 + i % 3 for i, name in enumerate(weights)})


def half_supported(weights: Weights) -> FixedSupport:
    return FixedSupport.of(GlobalL0(sum(w.numel() for w in weights.values()) // 2).project(weights, None)[0])


def one_tensor_dead(weights: Weights) -> LiveBudget:
    """The first tensor by name lives as long as anything of the last is kept."""
    first, last = min(weights), max(weights)

    def effective(kept: Weights) -> dict[str, Tensor]:
        return {n: torch.full_like(w, n != first or bool((kept[last] != 0).any()), dtype=bool) for n, w in kept.items()}

    return LiveBudget(GlobalL0(7), effective)


# What each makes of the weights that it is to bind: some constraints name them.
Make = Callable[[Weights], Constraint[Any]]
CONSTRAINTS: dict[str, Make] = {
    "l0 0": lambda _: GlobalL0(0),
    "l0 1": lambda _: GlobalL0(1),
    "l0 7": lambda _: GlobalL0(7),
    "l0 all": lambda _: GlobalL0(10_000),
    "support none": lambda weights: FixedSupport({name: torch.zeros_like(w).bool() for name, w in weights.items()}),
    "support half": half_supported,
    "rate 0": lambda _: RateBudget(0, code_bits=3),
    "rate 9": lambda _: RateBudget(9, code_bits=3),
    "lamp 0": lambda _: LampBudget(0),
    "lamp 9": lambda _: LampBudget(9),
    "lamp of pairs": lambda weights: LampBudget(9, dict(zip(weights, list(weights)[1::2], strict=False))),
    "live 7": one_tensor_dead,
    "codebook 1": lambda _: Codebook(1),
    "codebook 2": lambda _: Codebook(2, seed=5),
    "codebook 5": lambda _: Codebook(5),
    "codebook 8": lambda _: Codebook(8),
    "codebook mixed": own_bits,
}
every_constraint = pytest.mark.parametrize("make", CONSTRAINTS.values(), ids=CONSTRAINTS)


def weights(seed: int = 0) -> dict[str, Tensor]:
    """Of several shapes and scales, with ties, zeros of both signs, a constant, a single and an all-zero tensor."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(12, 20, generator=generator)
    return {
        "a.U": normal,
        "a.V": (3 * torch.randn(6, 4, 3, 3, generator=generator)).round(),
        "b": 1e-4 * torch.randn(40, generator=generator).pow(3),
        "constant": torch.full((5, 5), -0.25),
        "zero": torch.tensor([[0.0, -0.0, 0.0]]),
        "one": torch.tensor([2.0]),
        "view": torch.randn(8, 6, generator=generator).T,
    }


@st.composite
def drawn_weights(draw: st.DrawFn) -> dict[str, Tensor]:
    value = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 3e38]) | st.floats(width=32, allow_nan=False)
    value = value.filter(lambda v: abs(v) < float("inf"))
    tensors = draw(st.lists(st.lists(value, min_size=1, max_size=24), min_size=1, max_size=3))
    return {f"t{i}": torch.tensor(tensor) for i, tensor in enumerate(tensors)}


def assert_laws(constraint: Constraint[Any], given_weights: dict[str, Tensor]) -> None:
    before = {name: tensor.clone() for name, tensor in given_weights.items()}
    projected, state = constraint.project(given_weights, constraint.init(given_weights))
    assert list(projected) == list(given_weights)
    for name, tensor in given_weights.items():
        assert torch.equal(tensor, before[name])
        assert projected[name].shape == tensor.shape
        assert projected[name].dtype == tensor.dtype
        assert bool(projected[name].isfinite().all())
        assert bool((projected[name][tensor == 0] == 0).all())  # no constraint revives a pruned weight
    assert constraint.violation(projected) == 0
    for again_state in (state, constraint.init(projected)):
        again, _ = constraint.project(projected, again_state)
        assert all(torch.equal(again[name], projected[name]) for name in projected)


def test_the_table_has_every_constraint() -> None:
    public = {getattr(compress, name) for name in compress.__all__}
    kinds = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Constraint)} - {Constraint}
    assert kinds == {type(make(weights())) for make in CONSTRAINTS.values()}


@every_constraint
@pytest.mark.parametrize("seed", range(3))
def test_projections_are_feasible_idempotent_and_leave_the_input_alone(make: Make, seed: int) -> None:
    assert_laws(make(weights(seed)), weights(seed))


@every_constraint
@given(drawn_weights())
@settings(max_examples=40, deadline=None)
def test_laws_hold_for_any_values(make: Make, given_weights: dict[str, Tensor]) -> None:
    assert_laws(make(given_weights), given_weights)


@every_constraint
def test_projections_are_new_tensors(make: Make) -> None:
    given_weights = weights()
    constraint = make(given_weights)
    projected, _ = constraint.project(given_weights, constraint.init(given_weights))
    for tensor in projected.values():
        tensor.add_(1)
    assert all(torch.equal(given_weights[name], tensor) for name, tensor in weights().items())


@every_constraint
def test_equal_input_gives_equal_output(make: Make) -> None:
    constraint = make(weights())
    torch.manual_seed(0)
    first, state = constraint.project(weights(), constraint.init(weights()))
    torch.manual_seed(1)
    second, again = constraint.project(weights(), constraint.init(weights()))
    assert all(torch.equal(first[name], second[name]) for name in first)
    third, _ = constraint.project(weights(1), state)
    fourth, _ = constraint.project(weights(1), again)
    assert all(torch.equal(third[name], fourth[name]) for name in third)


@pytest.mark.parametrize(
    ("constraint", "tensors", "violation"),
    [
        (GlobalL0(3), [[1.0, 2.0], [3.0, 4.0, 0.0, -0.0]], 1),
        (GlobalL0(4), [[1.0, 2.0], [3.0, 4.0, 0.0]], 0),
        (GlobalL0(9), [[1.0]], 0),
        (Codebook(1), [[1.0, 2.0, 3.0, 4.0, 0.0], [5.0, 5.0, 6.0, 7.0]], 3),
        (Codebook(2), [[1.0, 2.0, 3.0, 4.0, 0.0], [5.0, 5.0, 6.0, 7.0]], 0),
        (Codebook(1), [[-1.0, 1.0, 0.0, -0.0]], 0),
        (Codebook({"0": 2, "1": 1}), [[1.0, 2.0, 3.0, 4.0, 0.0], [5.0, 5.0, 6.0, 7.0]], 1),
        (FixedSupport({"0": torch.tensor([True, False, False])}), [[0.0, 2.0, -0.0]], 1),
    ],
)
def test_violations_are_counted(constraint: Constraint[Any], tensors: list[list[float]], violation: int) -> None:
    assert constraint.violation({str(i): torch.tensor(tensor) for i, tensor in enumerate(tensors)}) == violation


def test_what_a_projection_learnt_is_plain_data() -> None:
    """A checkpoint holds it, and the next projection starts from it."""
    codebook = Codebook(2)
    projected, state = codebook.project(weights(), codebook.init(weights()))
    for name, centres in state.items():
        assert set(projected[name].unique().tolist()) <= {0.0, *centres.tolist()}
        assert centres.tolist() == sorted(set(centres.tolist()))
        assert len(centres) <= 4
    assert list(state) == list(projected)
