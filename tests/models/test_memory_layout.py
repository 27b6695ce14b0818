"""`placed`: channels last on the CPU, in training and in what is measured, and the same model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from atmc_search.artifact import Architecture
from atmc_search.data import Splits
from atmc_search.models import placed
from atmc_search.tasks import Start
from atmc_search.tasks.atmc.spec import AtmcSpec
from atmc_search.tasks.atmc.training import Training


def channels_last(weight: torch.Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


@pytest.mark.parametrize("name", ["lenet", "resnet18", "mlp"])
def test_the_model_is_the_same_but_for_rounding(name: str) -> None:
    shape = (3, 32, 32) if name == "resnet18" else (1, 28, 28)
    model = Architecture(name, {}, shape, 10).build(seed=1).eval()
    x, before = torch.rand(4, *shape), {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with torch.no_grad():
        logits = model(x)
        assert placed(model, "cpu") is model
        torch.testing.assert_close(model(x), logits, rtol=1e-4, atol=1e-5)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key]), key
    wide = [weight for weight in model.parameters() if weight.dim() == 4 and min(weight.shape[1:]) > 1]
    assert all(map(channels_last, wide))
    assert bool(wide) == (name != "mlp")


def test_trials_train_that_way(tiny_trial: Callable[..., AtmcSpec], tiny_splits: Splits, tiny_start: Start) -> None:
    training = Training(tiny_trial(), tiny_splits, tiny_start, device=torch.device("cpu"), meta={})
    training.epoch(0)
    wide = [weight for weight in training.step.model.parameters() if weight.dim() == 4 and weight.shape[1] > 1]
    assert wide
    assert all(map(channels_last, wide))
