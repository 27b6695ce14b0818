from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from atmc_search.attacks import FGSM, NoAttack, ThreatModel, perturb
from atmc_search.data import DeviceData, ImageSet
from atmc_search.training import AttackedBatches, attacked_loss, has_running_statistics, reestimated


def data(n: int = 48) -> DeviceData:
    rng = np.random.default_rng(0)
    return DeviceData(ImageSet(rng.integers(0, 256, (n, 2, 6, 6), dtype=np.uint8), rng.integers(0, 3, n)), "cpu")


def network() -> nn.Sequential:
    """With statistics that fit nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 3)
    )
    for layer in (model[0], model[2]):
        nn.init.constant_(layer.running_mean, 7.0)
        nn.init.constant_(layer.running_var, 0.1)
    return model.eval()


def batches(attack: object = None, size: int = 16) -> AttackedBatches:
    return AttackedBatches(data(), attack or NoAttack(), ThreatModel(eps=0.1), size, seed=0)  # type: ignore[arg-type]


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_statistics_are_the_plain_average_over_batches() -> None:
    """The first layer sees the images themselves: three batches of 16, whose averages are known."""
    fitted = reestimated(network(), batches(), 3)
    seen = [x for x, _ in batches().first(3, network(), "batch norm")]
    assert torch.cat(seen).shape[0] == 48
    mean = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    variance = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in seen]).mean(0)
    assert torch.allclose(fitted[0].running_mean, mean, atol=1e-6)
    assert torch.allclose(fitted[0].running_var, variance, atol=1e-6)


def test_images_are_attacked_on_the_model_as_it_was() -> None:
    model = network()
    fitted = reestimated(model, batches(FGSM()), 1)
    ((x_adv, _),) = batches(FGSM()).first(1, model, "batch norm")
    assert torch.allclose(fitted[0].running_mean, x_adv.mean((0, 2, 3)), atol=1e-6)
    ((x, y),) = batches().first(1, model, "batch norm")
    generator = torch.Generator()  # FGSM draws nothing
    assert torch.equal(x_adv, perturb(FGSM(), model, x, y, ThreatModel(eps=0.1), generator))


def test_nothing_else_changes_and_the_model_itself_does_not() -> None:
    model = network()
    before, momentum = state_of(model), model[0].momentum
    fitted = reestimated(model, batches(), 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    changed = {name for name, tensor in fitted.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}
    assert not any(module.training for module in fitted.modules())
    assert fitted[0].momentum == momentum


def test_dropout_is_off_while_statistics_are_gathered() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3)).eval()
    fitted = reestimated(model, batches(), 3)
    assert torch.allclose(fitted[1].running_mean, (data().images.float() / 255).mean((0, 2, 3)), atol=1e-5)


def test_statistics_that_fit_lower_the_loss() -> None:
    model = network()
    with torch.no_grad():  # a head that reads the normalised features
        model[5].weight.mul_(3)
    fitted = reestimated(model, batches(FGSM()), 3)
    assert attacked_loss(fitted, batches(FGSM()), 3) < attacked_loss(model, batches(FGSM()), 3)


def test_the_loss_is_the_mean_over_images() -> None:
    model = network()
    x, y = data().images.float() / 255, data().labels
    expected = nn.functional.cross_entropy(model(x), y)
    assert attacked_loss(model, batches(size=20), 99) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("model", "has"),
    [
        (nn.Sequential(nn.Linear(2, 2)), False),
        (nn.Sequential(nn.BatchNorm1d(2)), True),
        (nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False)), False),
        (nn.Sequential(nn.GroupNorm(1, 2)), False),
    ],
)
def test_which_models_have_statistics(model: nn.Module, has: bool) -> None:
    assert has_running_statistics(copy.deepcopy(model)) is has
