from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from atmc_search.attacks import ThreatModel, clip, distance, random_start

both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_distance_is_the_norm_of_each_image() -> None:
    x = torch.zeros(2, 1, 1, 3)
    x_adv = torch.tensor([[0.3, -0.4, 0.0], [0.0, 0.1, -0.2]]).view(2, 1, 1, 3)
    assert distance(ThreatModel(norm="linf", eps=1), x, x_adv).tolist() == pytest.approx([0.4, 0.2])
    assert distance(ThreatModel(norm="l2", eps=1), x, x_adv).tolist() == pytest.approx([0.5, 0.05**0.5])


@both_norms
@pytest.mark.parametrize("eps", [0.001, 0.3, 10.0])
@pytest.mark.parametrize("spread", [0.01, 1, 100])
def test_clip_is_feasible_and_idempotent(norm: Any, eps: float, spread: float) -> None:
    threat = ThreatModel(norm=norm, eps=eps)
    x = noise(20, 2, 3, 3).mul(0.3).add(0.5).clamp(0, 1)
    wild = x + spread * noise(20, 2, 3, 3, seed=1)
    kept = wild.clone()
    once = clip(threat, x, wild)
    assert torch.equal(wild, kept)
    assert distance(threat, x, once).max() <= eps + 1e-6
    assert once.min() >= 0
    assert once.max() <= 1
    assert torch.allclose(clip(threat, x, once), once, atol=1e-6)


@both_norms
def test_clip_keeps_what_is_inside(norm: Any) -> None:
    threat = ThreatModel(norm=norm, eps=0.5)
    x = torch.full((8, 1, 2, 2), 0.5)
    inside = x + 0.05 * noise(8, 1, 2, 2).clamp(-2, 2)
    assert torch.allclose(clip(threat, x, inside), inside, atol=1e-7)
    assert torch.equal(clip(threat, x, x), x)


def test_clip_to_linf_moves_each_pixel_to_the_nearest_allowed() -> None:
    x = torch.tensor([0.05, 0.5, 0.5, 0.95]).view(1, 1, 2, 2)
    moved = clip(ThreatModel(eps=0.1), x, torch.tensor([-1.0, 0.3, 0.55, 2.0]).view(1, 1, 2, 2))
    assert torch.allclose(moved.flatten(), torch.tensor([0.0, 0.4, 0.55, 1.0]))


def test_clip_to_l2_shortens_the_perturbation() -> None:
    x = torch.full((1, 1, 1, 2), 0.5)
    moved = clip(ThreatModel(norm="l2", eps=0.1), x, x + torch.tensor([3.0, -4.0]))
    assert torch.allclose((moved - x).flatten(), torch.tensor([0.06, -0.08]), atol=1e-6)


@both_norms
def test_random_starts_lie_in_the_threat_model_and_differ(norm: Any) -> None:
    threat = ThreatModel(norm=norm, eps=0.4)
    x = torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    first, second = random_start(threat, x, generator), random_start(threat, x, generator)
    for start in (first, second):
        assert distance(threat, x, start).max() <= 0.4 + 1e-6
        assert start.min() >= 0
        assert start.max() <= 1
        assert bool((distance(threat, x, start) > 0.01).all())
    assert bool((distance(threat, first, second) > 0.01).all())
    assert torch.equal(random_start(threat, x, torch.Generator().manual_seed(1)), first)


def start_deltas(threat: ThreatModel, n: int, d: int) -> Tensor:
    x = torch.full((n, 1, 1, d), 0.5)
    return (random_start(threat, x, torch.Generator().manual_seed(3)) - x).flatten(1)


def test_linf_starts_are_uniform_in_every_pixel() -> None:
    deltas = start_deltas(ThreatModel(eps=0.2), 4000, 5)
    for pixel in deltas.T:
        assert stats.kstest(pixel.numpy(), stats.uniform(-0.2, 0.4).cdf).pvalue > 1e-3
    assert torch.corrcoef(deltas.T).fill_diagonal_(0).abs().max() < 0.08


@pytest.mark.parametrize("d", [1, 2, 7, 100])
def test_l2_starts_are_uniform_in_volume(d: int) -> None:
    deltas = start_deltas(ThreatModel(norm="l2", eps=0.3), 4000, d).double()
    radius = deltas.norm(dim=1) / 0.3
    assert stats.kstest((radius**d).clamp(0, 1).numpy(), "uniform").pvalue > 1e-3  # radii as u^(1/d)
    directions = deltas / deltas.norm(dim=1, keepdim=True)
    assert directions.mean(0).abs().max() < 5 / (4000 * d) ** 0.5  # and no direction preferred
    assert (directions**2).mean(0).sub(1 / d).abs().max() < 0.1 / d + 1e-6
