"""Strength on a trained network: ours against foolbox's, torchattacks' and pyautoattack's at equal settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import foolbox
import pytest
import torch
import torchattacks
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_search.attacks import APGDCE, APGDT, FGSM, PGD, Attack, NoAttack, ThreatModel, distance, perturb

# At these the attacks break half of the images or so, where a difference in strength shows best.
THREATS = {"linf": ThreatModel(norm="linf", eps=0.12), "l2": ThreatModel(norm="l2", eps=0.7)}
both_norms = pytest.mark.parametrize("norm", list(THREATS))
Trained = tuple[nn.Module, Tensor, Tensor]


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A small convolutional network and 200 images of scikit-learn's digits, all of which it gets right."""
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(digits.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 64), nn.ReLU()
        ).append(nn.Linear(64, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(12):
            for batch in torch.randperm(1200).split(64):
                noisy = (x[batch] + 0.1 * torch.randn_like(x[batch])).clamp(0, 1)
                optimizer.zero_grad()
                F.cross_entropy(model(noisy), y[batch]).backward()
                optimizer.step()
    model.eval().requires_grad_(False)
    x, y = x[1200:], y[1200:]
    right = model(x).argmax(1) == y
    assert right.sum() > 500
    return model, x[right][:200], y[right][:200]


def broken(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x_adv).argmax(1) != y


def by_ours(attack: Attack, trained: Trained, norm: str, seed: int = 0, *, until_broken: bool = True) -> Tensor:
    model, x, y = trained
    generator = torch.Generator().manual_seed(seed)
    return broken(model, perturb(attack, model, x, y, THREATS[norm], generator, until_broken=until_broken), y)


def by_theirs(attack: Callable[[Tensor, Tensor], Tensor], trained: Trained, norm: str, seed: int = 0) -> Tensor:
    model, x, y = trained
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        x_adv = attack(x.clone(), y.clone()).detach()
    assert distance(THREATS[norm], x, x_adv).max() <= THREATS[norm].eps + 1e-5
    return broken(model, x_adv, y)


def foolbox_pgd(model: nn.Module, norm: str, settings: dict[str, Any]) -> Callable[[Tensor, Tensor], Tensor]:
    kind = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    attack = kind(abs_stepsize=settings["step_size"], steps=settings["steps"], random_start=settings["random_start"])
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    return lambda x, y: attack(wrapped, x, y, epsilons=THREATS[norm].eps)[1]


def torchattacks_pgd(model: nn.Module, norm: str, settings: dict[str, Any]) -> Callable[[Tensor, Tensor], Tensor]:
    kind = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
    attack: Callable[[Tensor, Tensor], Tensor] = kind(
        model,
        eps=THREATS[norm].eps,
        alpha=settings["step_size"],
        steps=settings["steps"],
        random_start=settings["random_start"],
    )
    return attack


@both_norms
@pytest.mark.parametrize("theirs", [foolbox_pgd, torchattacks_pgd])
@pytest.mark.parametrize("steps", [1, 10])
def test_pgd_from_the_clean_image_is_as_strong_as_theirs(theirs: Any, norm: str, steps: int, trained: Trained) -> None:
    """Without random numbers the images broken are the same, but for rounding."""
    settings = {"steps": steps, "step_size": 2.5 * THREATS[norm].eps / max(steps, 5), "random_start": False}
    ours = by_ours(PGD(**settings), trained, norm, until_broken=False)
    other = by_theirs(theirs(trained[0], norm, settings), trained, norm)
    assert other.sum() > 20
    assert (ours ^ other).sum() <= 1


@pytest.mark.parametrize(
    ("theirs", "norm", "tolerance"),
    [
        (foolbox_pgd, "linf", 1),
        (foolbox_pgd, "l2", 3),
        (torchattacks_pgd, "linf", 1),
        # Its starts have a uniform radius, nearer the clean image than a uniform point of the ball, from where the same
        # steps get further in l2.
        (torchattacks_pgd, "l2", 6),
    ],
)
@pytest.mark.parametrize("steps", [5, 20])
def test_pgd_from_a_random_start_is_as_strong_as_theirs(
    theirs: Any, norm: str, tolerance: int, steps: int, trained: Trained
) -> None:
    settings = {"steps": steps, "step_size": 2.5 * THREATS[norm].eps / steps, "random_start": True}
    attack, seeds = theirs(trained[0], norm, settings), range(3)
    ours = sum(int(by_ours(PGD(**settings), trained, norm, seed, until_broken=False).sum()) for seed in seeds)
    other = sum(int(by_theirs(attack, trained, norm, seed).sum()) for seed in seeds)
    assert 3 * 40 < other < 3 * 190
    assert ours >= other - 3 * tolerance


@both_norms
@pytest.mark.parametrize("until_broken", [False, True])
def test_stronger_attacks_break_more(norm: str, until_broken: bool, trained: Trained) -> None:
    ladder = [NoAttack(), FGSM(), PGD(steps=20), PGD(steps=20, targets=3), APGDT(steps=25, targets=3)]
    counts = [int(by_ours(attack, trained, norm, until_broken=until_broken).sum()) for attack in ladder]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert counts[1] < counts[2] < counts[-1]


@both_norms
@pytest.mark.parametrize(
    "attack",
    [PGD(steps=6, restarts=3), PGD(steps=6, targets=3), APGDCE(steps=6, restarts=3), APGDT(steps=6, targets=3)],
)
def test_until_broken_leaves_out_what_is_broken(attack: Attack, norm: str, trained: Trained) -> None:
    model, x, y = trained
    batches: list[int] = []
    handle = model.register_forward_hook(lambda module, args, output: batches.append(len(args[0])))
    looked_at = []
    for flag in (False, True):
        batches.clear()
        perturb(attack, model, x, y, THREATS[norm], torch.Generator().manual_seed(0), until_broken=flag)
        looked_at.append(sum(batches))
    handle.remove()
    assert batches[-1] < len(x) / 2
    assert looked_at[1] < 0.65 * looked_at[0]


APGD: list[tuple[Attack, Any, dict[str, Any]]] = [
    (APGDCE(steps=30), APGDAttack, {"loss": "ce"}),
    (APGDT(steps=15), APGDAttack_targeted, {"n_target_classes": 9}),
    (APGDT(steps=30, targets=2), APGDAttack_targeted, {"n_target_classes": 2}),
]


@both_norms
@pytest.mark.parametrize(("ours", "theirs", "settings"), APGD, ids=[repr(row[0]) for row in APGD])
def test_our_apgd_agrees_with_pyautoattack(
    ours: Any, theirs: Any, settings: dict[str, Any], norm: str, trained: Trained
) -> None:
    name, eps = {"linf": "Linf", "l2": "L2"}[norm], THREATS[norm].eps
    attack = theirs(trained[0], norm=name, eps=eps, n_iter=ours.steps, seed=0, device="cpu", **settings)
    one, other = by_ours(ours, trained, norm), by_theirs(attack.perturb, trained, norm)
    assert 40 < other.sum() < 190
    assert abs(int(one.sum()) - int(other.sum())) <= 2
    assert (one ^ other).sum() <= 3
