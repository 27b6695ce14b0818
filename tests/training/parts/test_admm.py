from __future__ import annotations

import numpy as np
import pytest
import torch
from stages import plain_stage, small_model, step_of, train
from torch import Tensor, nn

from atmc_search.attacks import FGSM, ThreatModel
from atmc_search.compress import Codebook, constrained_weights, factorise
from atmc_search.data import DeviceData, Splits
from atmc_search.errors import TrialFailed
from atmc_search.training.parts import (
    Admm,
    AdmmState,
    Moment,
    Part,
    Projected,
    add_penalty,
    admm_start,
    admm_update,
)


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


# --- in training


@pytest.fixture(scope="module")
def digits(tiny_splits: Splits) -> DeviceData:
    return DeviceData(tiny_splits.train, "cpu")


def bound(model: nn.Module, keep: float = 0.2, **settings: object) -> tuple[Projected, Admm]:
    """A support of the model's largest weights, and codes on it."""
    weights = constrained_weights(model, factorise(model, "none"))
    support = Projected(weights, round(keep * sum(weight.numel() for weight in weights.values())))
    given: dict[str, object] = {"bits": 2, "sets_in": 0.5, "every": 3, "rho": 0.1, **settings}
    codebook = Codebook(given.pop("bits"))  # type: ignore[arg-type]
    return support, Admm(support, lambda weights: codebook, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("lr", [1e3, 1e8, 1e30])
@pytest.mark.parametrize("begin", [0.0, 0.5])
def test_divergence_is_a_failed_trial_with_a_reason(digits, lr, begin):
    model = small_model()
    parts = bound(model, sets_in=begin, every=1)
    stage = plain_stage(epochs=3, lr=lr, batch_size=16)
    with pytest.raises(
        TrialFailed, match=r"diverged: (train loss is (nan|inf) in epoch \d \(peak lr|weights are not finite)"
    ) as caught:
        train(step_of(model, stage, parts=parts), digits)
    assert "\n" not in str(caught.value)


class Noted(Part):
    """Whether ADMM has set in, and the sum of its duals, after every step."""

    name = "noted"

    def __init__(self, codes: Admm) -> None:
        self.codes = codes
        self.found: list[tuple[bool, float]] = []

    def after_step(self, at: Moment) -> None:
        admm = self.codes.admm
        total = sum(float(d.abs().sum()) for d in admm.duals.values()) if admm else 0.0
        self.found.append((admm is not None, total))


def test_admm_sets_in_at_its_share_of_training_and_the_duals_follow_every_few_steps(digits):
    model = small_model()
    parts = bound(model)
    noted = Noted(parts[1])
    train(step_of(model, plain_stage(epochs=2, lr=0.05, batch_size=32), parts=[*parts, noted]), digits)
    assert len(noted.found) == 16
    assert [active for active, _ in noted.found] == [step >= 8 for step in range(16)]
    totals = [total for _, total in noted.found]
    moved = [step for step in range(1, 16) if totals[step] != totals[step - 1]]
    assert moved == [8, 11, 14]  # the steps for which step + 1 is a multiple of 3


def test_admm_draws_the_weights_to_their_codebook(digits):
    """The distance to 2 values a tensor is far smaller at the end with the penalty than without."""

    def distance(rho: float) -> float:
        model = small_model("mlp", hidden=[16])
        parts = bound(model, bits=1, sets_in=0.0, rho=rho, every=10)
        train(step_of(model, plain_stage(epochs=8, lr=0.02, batch_size=32), parts=parts), digits)
        codebook = Codebook(1)
        weights = {name: w.detach() for name, w in parts[0].weights.items()}
        copies, _ = codebook.project(weights, codebook.init(weights))
        apart = sum(float((weights[n] - copies[n]).square().sum()) for n in weights)
        return apart / sum(float(w.square().sum()) for w in weights.values())

    assert distance(1.0) < 0.2 * distance(0.0)


def test_steps_with_rho_zero_equal_steps_without_a_codebook(digits):
    states = []
    for count in (2, 1):
        model = small_model()
        parts = bound(model, rho=0.0, sets_in=0.0)[:count]
        train(step_of(model, plain_stage(epochs=1, lr=0.05, batch_size=64), parts=parts), digits)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_one_constrained_step_is_the_paper_s(digits):
    """θ ← top-k(θ − γ ∇[f + ρ/2 ‖θ − θ' + u‖²]), in numpy, on one batch without adversary, decay or momentum."""
    model = small_model("mlp", hidden=[6])
    support, codes = bound(model, keep=0.3, bits=1, rho=0.7, sets_in=0.0, every=1)
    stage = plain_stage(epochs=1, lr=0.1, batch_size=1000, momentum=0.0, weight_decay=0.0)
    before = {n: w.detach().clone() for n, w in support.weights.items()}
    copies, _ = Codebook(1).project(before, {})
    loss = nn.functional.cross_entropy(model(digits.images.float() / 255), digits.labels)
    gradients = torch.autograd.grad(loss, list(support.weights.values()))

    moved = [
        before[name].numpy() - 0.1 * (g.numpy() + 0.7 * (before[name] - copies[name]).numpy())
        for name, g in zip(before, gradients, strict=True)
    ]
    magnitudes = np.sort(np.abs(np.concatenate([m.reshape(-1) for m in moved])))[::-1]
    threshold = magnitudes[support.k - 1]
    expected = [np.where(np.abs(m) >= threshold, m, 0) for m in moved]

    train(step_of(model, stage, FGSM(), ThreatModel(eps=0.0), parts=[support, codes]), digits)
    for weight, want in zip(support.weights.values(), expected, strict=True):
        assert np.allclose(weight.detach().numpy(), want, atol=1e-6)
        assert np.array_equal(weight.detach().numpy() == 0, want == 0)
