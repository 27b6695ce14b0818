from __future__ import annotations

import pytest
import torch
from torch import nn

from atmc_search.training import Teacher


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_mixture_is_the_written_out_sum(weight, temperature):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(5, 1, 2, 2)
    logits, value = torch.randn(5, 3, requires_grad=True), torch.tensor(1.7, requires_grad=True)
    found = Teacher(model, weight, temperature).mixed(value, x, logits)
    p, q = (model(x) / temperature).softmax(1).detach(), (logits / temperature).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()
    assert found.item() == pytest.approx((1 - weight) * 1.7 + weight * temperature**2 * divergence.item(), rel=1e-5)
    found.backward()
    assert value.grad.item() == pytest.approx(1 - weight)
    assert torch.allclose(logits.grad, weight * temperature * (q - p).detach() / 5, atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())
