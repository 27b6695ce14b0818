from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from atmc_search.compress import Codebook
from atmc_search.training import AdmmState, add_penalty, admm_start, admm_update


def some_weights(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "dense": torch.randn(20, 6, generator=generator),
        "sparse": torch.randn(15, 4, generator=generator) * (torch.rand(15, 4, generator=generator) < 0.4),
        "empty": torch.zeros(3, 3),
    }


def on_grid(values: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Each value's nearest of the centres and zero; zeros stay."""
    grid = np.append(centres, 0)
    return np.where(values == 0, 0, grid[np.abs(values[..., None] - grid).argmin(-1)])


def test_the_start_is_the_projection_with_no_duals():
    weights = some_weights()
    codebook = Codebook(2)
    state = admm_start(weights, codebook)
    expected, centres = codebook.project(weights, {})
    assert state.copies.keys() == state.duals.keys() == state.centres.keys() == weights.keys()
    for name in weights:
        assert torch.equal(state.copies[name], expected[name])
        assert torch.equal(state.centres[name], centres[name])
        assert torch.equal(state.duals[name], torch.zeros_like(weights[name]))


def test_updates_are_the_paper_s_in_numpy():
    """θ' ← Π(θ + u), u ← u + θ − θ', over several updates with moving weights."""
    codebook = Codebook(2)
    state = admm_start(some_weights(), codebook)
    duals = {name: np.zeros(w.shape, np.float32) for name, w in some_weights().items()}
    for round_ in range(4):
        weights = some_weights(round_)
        state = admm_update(weights, state)
        for name, weight in weights.items():
            theta, u = weight.numpy(), duals[name]
            copy = on_grid(theta + u, state.centres[name].numpy())
            duals[name] = u + theta - copy
            assert np.allclose(state.copies[name].numpy(), copy, atol=1e-6)
            assert np.allclose(state.duals[name].numpy(), duals[name], atol=1e-5)
            assert len(np.unique(copy[copy != 0])) <= 4
        assert any(np.abs(u).max() > 0 for u in duals.values())


def test_an_update_leaves_its_inputs_alone():
    weights, codebook = some_weights(), Codebook(1)
    state = admm_start(weights, codebook)
    copies = {name: t.clone() for name, t in state.copies.items()}
    admm_update(weights, state)
    assert all(torch.equal(weights[n], w) for n, w in some_weights().items())
    assert all(torch.equal(state.copies[n], copies[n]) and not state.duals[n].any() for n in copies)


@pytest.mark.parametrize("rho", [0.0, 0.1, 3.0])
def test_the_penalty_s_gradient_is_that_of_autograd(rho):
    weights = {name: w.requires_grad_() for name, w in some_weights().items()}
    generator = torch.Generator().manual_seed(9)
    state = AdmmState(
        Codebook(2),
        {name: torch.randn(w.shape, generator=generator) for name, w in weights.items()},
        {name: torch.randn(w.shape, generator=generator) for name, w in weights.items()},
        {},
    )
    loss = sum((w**3).sum() for w in weights.values())
    penalty = sum(rho / 2 * (w - state.copies[n] + state.duals[n]).square().sum() for n, w in weights.items())
    expected = torch.autograd.grad(loss + penalty, list(weights.values()), retain_graph=True)
    loss.backward()
    add_penalty(weights, state, rho)
    for weight, gradient in zip(weights.values(), expected, strict=True):
        assert torch.allclose(weight.grad, gradient, atol=1e-5)


def test_on_least_squares_the_weights_meet_their_copies():
    """min ½‖Aθ − b‖² over θ of two values beside zero: ‖θ − θ'‖ shrinks, and the copy fits nearly as well."""
    generator = torch.Generator().manual_seed(1)
    truth = torch.tensor([1.0, -0.5, 1.0, 0.0, -0.5, 1.0, 0.0, -0.5])
    a = torch.randn(60, 8, generator=generator)
    b = a @ truth + 0.3 * torch.randn(60, generator=generator)
    codebook, rho = Codebook(1), 20.0
    theta = {"theta": torch.linalg.lstsq(a, b).solution.view(1, 8)}
    state = admm_start(theta, codebook)
    gaps = [float((theta["theta"] - state.copies["theta"]).norm())]
    for _ in range(60):
        target = (state.copies["theta"] - state.duals["theta"]).reshape(-1)
        solution = torch.linalg.solve(a.T @ a + rho * torch.eye(8), a.T @ b + rho * target)
        theta = {"theta": solution.view(1, 8)}
        state = admm_update(theta, state)
        gaps.append(float((theta["theta"] - state.copies["theta"]).norm()))
    assert gaps[0] > 0.05
    assert gaps[-1] < 0.01 * gaps[0]
    assert torch.allclose(state.copies["theta"].reshape(-1), truth, atol=0.15)
