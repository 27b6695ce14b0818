from __future__ import annotations

import pytest
import torch
from torch import nn

from atmc_search.attacks import PGD, ThreatModel, perturb


def predictions(model, x):
    return model(x).log_softmax(1)


def two_classes(weight: torch.Tensor) -> nn.Module:
    """Logits (0, w · x): KL of predictions is convex in the log odds w · x', with its maximum at an end of them."""
    layer = nn.Linear(weight.numel(), 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros_like(weight), weight]))
        layer.bias.zero_()
    return nn.Sequential(nn.Flatten(), layer)


def test_the_divergence_of_a_linear_model_is_raised_to_an_end_of_its_range():
    weight = torch.linspace(-2.0, 2.1, 6)
    model, threat = two_classes(weight), ThreatModel(eps=0.1)
    x, y = torch.full((40, 1, 2, 3), 0.5), torch.zeros(40, dtype=torch.long)
    x_adv = perturb(PGD(steps=10), model, x, y, threat, torch.Generator().manual_seed(0), reference=predictions)
    moved = (x_adv - x).flatten(1) / (0.1 * weight.sign())
    ends = moved.mean(1).sign()
    assert torch.allclose(moved, ends[:, None].expand_as(moved), atol=1e-3)
    # Uphill from both sides of the clean image, whatever the label.
    assert 5 < int((ends > 0).sum()) < 35


def test_the_reference_is_what_the_caller_names_and_not_the_model_s_own():
    """Away from a reference that is sure of class 1, the log odds of class 1 fall for every start."""
    weight = torch.linspace(0.5, 2.0, 4)
    x, y = torch.full((20, 1, 2, 2), 0.5), torch.ones(20, dtype=torch.long)
    threat = ThreatModel(eps=0.1)

    def sure(model, x):
        return torch.tensor([[-20.0, 0.0]]).expand(len(x), 2)

    x_adv = perturb(PGD(steps=5), two_classes(weight), x, y, threat, torch.Generator(), reference=sure)
    assert torch.allclose(x_adv, x - 0.1)


@pytest.mark.parametrize("settings", [{"random_start": False}, {"restarts": 2}, {"targets": 1}])
def test_pgd_with_these_settings_is_no_attack_on_a_divergence(settings):
    assert PGD().can_diverge
    assert not PGD(**settings).can_diverge
