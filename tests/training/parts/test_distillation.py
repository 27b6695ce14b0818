from __future__ import annotations

import pytest
import torch
from torch import nn

from atmc_search.training.parts import Distillation


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_mixture_is_the_written_out_sum(weight, temperature):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(5, 1, 2, 2)
    logits, value = torch.randn(5, 3, requires_grad=True), torch.tensor(1.7, requires_grad=True)
    found = Distillation(model, weight, temperature).objective(value, x, logits, None)
    p, q = (model(x) / temperature).softmax(1).detach(), (logits / temperature).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()
    assert found.item() == pytest.approx((1 - weight) * 1.7 + weight * temperature**2 * divergence.item(), rel=1e-5)
    found.backward()
    assert value.grad.item() == pytest.approx(1 - weight)
    assert torch.allclose(logits.grad, weight * temperature * (q - p).detach() / 5, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_under_weights_of_examples_the_divergence_is_their_weighted_mean():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(5, 1, 2, 2)
    logits, weights = torch.randn(5, 3), torch.tensor([0.0, 1.0, 2.0, 0.5, 0.5])
    found = Distillation(model, 1.0, 2.0).objective(torch.tensor(0.0), x, logits, weights)
    p, q = (model(x) / 2).softmax(1), (logits / 2).softmax(1)
    divergences = (p * (p / q).log()).sum(1)
    assert found.item() == pytest.approx(4 * float((weights * divergences).sum()) / 4, rel=1e-5)
    same = Distillation(model, 1.0, 2.0).objective(torch.tensor(0.0), x, logits, torch.full((5,), 0.3))
    alike = Distillation(model, 1.0, 2.0).objective(torch.tensor(0.0), x, logits, None)
    assert same.item() == pytest.approx(alike.item(), rel=1e-6)
