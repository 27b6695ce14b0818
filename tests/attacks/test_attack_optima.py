"""Closed forms: on a linear model the strongest perturbation is known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_search.attacks import APGDCE, APGDT, FGSM, PGD, WRM, Attack, ThreatModel, perturb

N, D = 16, 30


def linear(seed: int = 0, scale: float = 1.0) -> tuple[nn.Module, Tensor]:
    """A two-class linear model and w, the direction that raises the loss of class 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(D, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(2, D, generator=torch.Generator().manual_seed(seed)) * scale)
        model[1].bias.zero_()
        return model, (model[1].weight[1] - model[1].weight[0]).view(1, 5, 6).clone()


def images(seed: int = 0, low: float = 0.4, high: float = 0.6) -> Tensor:
    return low + (high - low) * torch.rand(N, 1, 5, 6, generator=torch.Generator().manual_seed(seed))


def attacked(attack: Attack, threat: ThreatModel, x: Tensor, model: nn.Module, label: int = 0) -> Tensor:
    y = torch.full((len(x),), label)
    return perturb(attack, model, x, y, threat, torch.Generator().manual_seed(0))


LINF: list[Attack] = [
    FGSM(),
    PGD(),
    PGD(steps=1, random_start=False),
    PGD(steps=20),
    PGD(steps=4, restarts=3),
    PGD(targets=1),
    APGDCE(steps=10),
    APGDT(steps=10),
]


@pytest.mark.parametrize("attack", LINF, ids=repr)
@pytest.mark.parametrize("label", [0, 1])
def test_linf_optimum_is_a_corner_of_the_ball(attack: Attack, label: int) -> None:
    model, w = linear()
    x = images()
    best = x + 0.1 * (w if label == 0 else -w).sign()
    assert torch.allclose(attacked(attack, ThreatModel(eps=0.1), x, model, label), best, atol=1e-6)


@pytest.mark.parametrize("attack", LINF, ids=repr)
def test_linf_optimum_is_cut_at_the_box(attack: Attack) -> None:
    model, w = linear()
    x = images(low=0, high=1)
    best = (x + 0.3 * w.sign()).clamp(0, 1)
    assert torch.allclose(attacked(attack, ThreatModel(eps=0.3), x, model), best, atol=1e-6)


@pytest.mark.parametrize("attack", [FGSM(), PGD(random_start=False), PGD(steps=1, random_start=False)], ids=repr)
def test_l2_optimum_lies_along_the_gradient(attack: Attack) -> None:
    model, w = linear()
    x = images()
    x_adv = attacked(attack, ThreatModel(norm="l2", eps=0.3), x, model)
    assert torch.allclose(x_adv, x + 0.3 * w / w.norm(), atol=1e-5)


def test_l2_pgd_turns_a_random_start_towards_the_optimum() -> None:
    model, w = linear()
    x = images()
    delta = attacked(PGD(steps=40, step_size=0.1), ThreatModel(norm="l2", eps=0.3), x, model) - x
    assert torch.allclose(delta, (0.3 * w / w.norm()).expand_as(delta), atol=1e-4)


@pytest.mark.parametrize("attack", [APGDCE(), APGDT()], ids=repr)
def test_apgd_closes_in_on_the_l2_optimum(attack: Attack) -> None:
    model, w = linear()
    x = images()
    delta = attacked(attack, ThreatModel(norm="l2", eps=0.3), x, model) - x
    assert torch.allclose(delta, (0.3 * w / w.norm()).expand_as(delta), atol=1e-3)


@pytest.mark.parametrize(
    "attack", [FGSM(), PGD(random_start=False), PGD(random_start=False, targets=1), APGDCE(), APGDT()], ids=repr
)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("gap", [10, 30, 90, 1000])
def test_confidence_is_no_defence(attack: Attack, norm: Any, gap: float) -> None:
    """Where the cross-entropy's own gradient is rounded (p − 1 = 0 at a margin of 17) or gone (100)."""
    model, w = linear()
    with torch.no_grad():
        model[1].bias[0] = gap
    x = images()
    step = w.sign() if norm == "linf" else w / w.norm()
    assert torch.allclose(attacked(attack, ThreatModel(norm=norm, eps=0.1), x, model), x + 0.1 * step, atol=1e-3)


class Scaled(nn.Module):
    """A model whose logits are scaled, each image's by its own factor."""

    def __init__(self, model: nn.Module, scales: Tensor) -> None:
        super().__init__()
        self.model = model
        self.scales = scales

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) * self.scales[:, None]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_scale_of_the_logits_does_not_matter(norm: Any) -> None:
    """A gradient too small to be squared is followed all the same, beside whatever other image."""
    model, _ = linear()
    scaled = Scaled(model, torch.logspace(-32, 10, N))
    x, attack, threat = images(), PGD(random_start=False), ThreatModel(norm=norm, eps=0.1)
    assert torch.allclose(attacked(attack, threat, x, scaled), attacked(attack, threat, x, model), atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_with_more_classes_the_direction_is_that_of_cross_entropy(norm: Any, label: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(D, 3))
    x = images().requires_grad_()
    F.cross_entropy(model(x), torch.full((N,), label), reduction="sum").backward()
    assert x.grad is not None
    step = x.grad.sign() if norm == "linf" else x.grad / x.grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    x_adv = attacked(FGSM(), ThreatModel(norm=norm, eps=0.1), x.detach(), model, label)
    assert torch.allclose(x_adv, x.detach() + 0.1 * step, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_gradient_no_move(norm: Any) -> None:
    model, _ = linear(scale=0.0)
    x = images()
    assert torch.equal(attacked(PGD(random_start=False), ThreatModel(norm=norm, eps=0.1), x, model), x)


def test_pgd_takes_its_steps_and_no_more() -> None:
    """From the clean image, with small steps: `steps` times `step_size` along the sign."""
    model, w = linear()
    x = images()
    x_adv = attacked(PGD(steps=3, step_size=0.01, random_start=False), ThreatModel(eps=0.1), x, model)
    assert torch.allclose(x_adv, x + 0.03 * w.sign(), atol=1e-6)


def test_the_default_step_crosses_the_ball() -> None:
    calls = []
    model, _ = linear()
    x = images()
    model.register_forward_hook(lambda module, args, output: calls.append(args[0].detach().clone()))
    attacked(PGD(steps=5, random_start=False), ThreatModel(eps=0.1), x, model)
    assert len(calls) == 5
    assert torch.allclose((calls[1] - x).abs(), torch.tensor(0.05), atol=1e-6)  # 2.5 eps / steps


class Wavy(nn.Module):
    """Many local optima, so that the start matters."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.inner = nn.Parameter(torch.randn(D, 40, generator=generator) * 6)
        self.outer = nn.Parameter(torch.randn(40, 4, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x.flatten(1) @ self.inner) @ self.outer


def margins(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model(x)
    others = torch.stack([logits[i, torch.arange(4) != y[i]].max() for i in range(len(y))])
    return logits[torch.arange(len(y)), y] - others


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_restarts_are_never_weaker(norm: Any) -> None:
    threat = ThreatModel(norm=norm, eps=0.1 if norm == "linf" else 0.3)
    better = 0
    for seed in range(5):
        model, x = Wavy(seed), images(seed, 0, 1)
        y = model(x).argmax(1)
        found = []
        for restarts in (1, 2, 5, 10):
            generator = torch.Generator().manual_seed(seed)
            attack = PGD(steps=4, restarts=restarts)
            found.append(margins(model, perturb(attack, model, x, y, threat, generator), y))
        for few, more in pairwise(found):
            assert bool((more <= few + 1e-4).all())
        better += int((found[-1] < found[0] - 0.1).sum())
    assert better > 5 * N / 2  # restarts that all start at one point would never be


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("restarts", [2, 3, 4])
def test_each_image_keeps_the_worst_of_its_restarts(norm: Any, restarts: int) -> None:
    threat = ThreatModel(norm=norm, eps=0.01 if norm == "linf" else 0.04)
    model, x = Wavy(1), images(1, 0, 1)
    y = model(x).argmax(1)
    single, generator = PGD(steps=4), torch.Generator().manual_seed(0)
    runs = torch.stack([perturb(single, model, x, y, threat, generator) for _ in range(restarts)])
    scores = torch.stack([margins(model, run, y) for run in runs])
    assert len(scores.argmin(0).unique()) == restarts  # each start is the best for some image,
    assert (scores.amin(0) > 0.1).sum() > 2  # also of those that stay right
    assert (scores.amin(0) < -0.1).sum() > 2
    attack = PGD(steps=4, restarts=restarts)
    x_adv = perturb(attack, model, x, y, threat, torch.Generator().manual_seed(0))
    assert torch.allclose(x_adv, runs[scores.argmin(0), torch.arange(N)], atol=1e-5)


def test_more_steps_are_stronger_on_average() -> None:
    model, x = Wavy(0), images(0, 0, 1)
    y = model(x).argmax(1)
    threat = ThreatModel(eps=0.05)
    few, many = (
        margins(model, perturb(PGD(steps=s, restarts=3), model, x, y, threat, torch.Generator().manual_seed(0)), y)
        for s in (1, 20)
    )
    assert many.mean() < few.mean() - 0.1


# --- targets ---


@pytest.mark.parametrize(
    ("attack", "classes"),
    [(PGD(targets=1), 2), (PGD(targets=1), 3), (PGD(targets=1), 7), (APGDT(targets=1), 2), (APGDT(targets=1), 3)],
)
def test_one_target_is_the_most_likely_wrong_class(attack: Attack, classes: int) -> None:
    """On a linear model the ascent direction of its margin is constant. (With more classes the DLR loss bends.)"""
    torch.manual_seed(classes)
    model = nn.Sequential(nn.Flatten(), nn.Linear(D, classes))
    x, y = images(), torch.arange(N) % classes
    with torch.no_grad():
        logits = model(x)
        logits[torch.arange(N), y] = -torch.inf
        w = (model[1].weight[logits.argmax(1)] - model[1].weight[y]).view_as(x)
    x_adv = perturb(attack, model, x, y, ThreatModel(eps=0.1), torch.Generator().manual_seed(0))
    assert torch.allclose(x_adv, x + 0.1 * w.sign(), atol=1e-6)


@pytest.mark.parametrize("kind", [PGD, APGDT])
def test_each_wrong_class_has_its_turn_and_the_worst_is_kept(kind: type[PGD] | type[APGDT]) -> None:
    """A model whose only way to be wrong is its least likely class, for every image."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(D, 5))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[4] = 10  # rises fast with the image,
        model[1].bias.copy_(torch.tensor([1.0, 0.0, -0.5, -1.0, -185.0]))  # from far below
    x, y, threat = images(), torch.zeros(N, dtype=torch.long), ThreatModel(eps=0.2)
    broken = [
        (model(perturb(kind(targets=n), model, x, y, threat, torch.Generator().manual_seed(0))).argmax(1) == 4).sum()
        for n in (3, 4, 9)
    ]
    assert broken == [0, N, N]


# --- WRM ---


def smooth() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(D, 20), nn.Tanh(), nn.Linear(20, 4))


def wrm_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)
    return gradient


FAR = ThreatModel(norm="l2", eps=100)


def test_wrm_takes_its_first_step_to_the_optimum_of_the_linearised_loss() -> None:
    model, x, y = smooth(), images(), torch.arange(N) % 4
    best = x + wrm_gradient(model, x, y) / (2 * 2.0)
    x_adv = perturb(WRM(steps=1, gamma=2.0), model, x, y, FAR, torch.Generator())
    assert torch.allclose(x_adv, best, atol=1e-6)


def test_wrm_stops_where_the_price_of_distance_meets_the_gain() -> None:
    """Loss gradient = 2 gamma (x' - x), the stationary point, at any eps that does not cut it off."""
    model, x, y = smooth(), images(), torch.arange(N) % 4
    gamma = 2.0  # above half the curvature of the loss, so that the objective is concave
    for eps in (10.0, 100.0):
        threat = ThreatModel(norm="l2", eps=eps)
        x_adv = perturb(WRM(steps=100, gamma=gamma), model, x, y, threat, torch.Generator())
        assert torch.allclose(wrm_gradient(model, x_adv, y) / (2 * gamma), x_adv - x, atol=1e-4)
        assert bool(((x_adv - x).abs().amax((1, 2, 3)) > 0.01).all())


def test_a_higher_gamma_keeps_wrm_nearer() -> None:
    model, x, y = smooth(), images(), torch.arange(N) % 4
    near, far = ((perturb(WRM(gamma=gamma), model, x, y, FAR, torch.Generator()) - x).norm() for gamma in (8.0, 2.0))
    assert near < far / 2
