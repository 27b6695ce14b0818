from __future__ import annotations

import pytest
import torch
from torch import nn

from atmc_search.attacks import FGSMRS, ThreatModel, perturb, random_start


@pytest.mark.parametrize("step", [0.5, 1.25, 2.0])
def test_it_is_one_signed_step_from_a_uniform_start_projected(step):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    x, y, threat = torch.rand(20, 1, 3, 4), torch.randint(3, (20,)), ThreatModel(eps=0.1)
    start = random_start(threat, x, torch.Generator().manual_seed(7)).requires_grad_()
    nn.functional.cross_entropy(model(start), y, reduction="sum").backward()
    moved = start.detach() + step * 0.1 * start.grad.sign()
    expected = torch.min(torch.max(moved, x - 0.1), x + 0.1).clamp(0, 1)
    x_adv = perturb(FGSMRS(step=step), model, x, y, threat, torch.Generator().manual_seed(7))
    assert torch.allclose(x_adv, expected)
