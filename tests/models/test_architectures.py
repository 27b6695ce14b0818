"""Laws that every architecture keeps, and what single ones promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from atmc_search.data import DeviceData, load_splits
from atmc_search.errors import SpecError
from atmc_search.models import MODELS, build_model
from atmc_search.spec import DataSpec

# The smallest image that an architecture takes.
SMALLEST = {"lenet": 16, "mlp": 1, "small_cnn": 4}
SIZES = (8, 28, 32)


def build(name: str, size: int, channels: int = 1, **args: Any) -> nn.Sequential:
    return build_model(
        name,
        args,
        input_shape=(channels, size, size),
        classes=10,
        mean=[0.5] * channels,
        std=[0.25] * channels,
        seed=0,
    )


def weights(model: nn.Module) -> int:
    """Elements of kernels and matrices, without biases."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1)


def test_the_table_is_complete():
    assert set(SMALLEST) == set(MODELS)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "size"),
    [(name, size) for name, least in SMALLEST.items() for size in {least, *SIZES} if size >= least],
)
def test_logits_have_their_shape_and_the_gradient_reaches_the_input(name, size, channels):
    model = build(name, size, channels)
    x = torch.rand(3, channels, size, size, requires_grad=True)
    logits = model(x)
    assert logits.shape == (3, 10)
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, torch.arange(3)), x)
    assert gradient.abs().amax(dim=(1, 2, 3)).min() > 0


@pytest.mark.parametrize("name", [name for name, least in SMALLEST.items() if least > 1])
def test_an_image_too_small_is_one_line(name):
    least = SMALLEST[name]
    with pytest.raises(SpecError, match=f"at least {least}×{least}") as caught:
        build(name, least - 1)
    assert "\n" not in str(caught.value)


def test_lenet_is_caffes():
    model = build("lenet", 28)
    assert weights(model) == 430_500
    kinds = [type(layer).__name__ for layer in model.net]  # type: ignore[union-attr]
    assert kinds == ["Conv2d", "MaxPool2d", "Conv2d", "MaxPool2d", "Flatten", "Linear", "ReLU", "Linear"]


def test_width_scales_small_cnn():
    narrow, wide = build("small_cnn", 8, width=4), build("small_cnn", 8, width=8)
    # conv, conv, conv, fc (2×2 positions left of 8×8), fc
    assert weights(narrow) == 9 * (4 + 4 * 8 + 8 * 8) + 4 * 8 * 64 + 64 * 10
    assert weights(wide) > 2 * 9 * (4 + 4 * 8 + 8 * 8)


@pytest.mark.parametrize("hidden", [[], [5], [7, 3, 2]])
def test_mlp_has_the_layers_asked_for(hidden):
    layers = [layer for layer in build("mlp", 8, hidden=hidden).modules() if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in layers] == [*hidden, 10]


@pytest.mark.parametrize(
    ("name", "args", "start"),
    [
        ("small_cnn", {"width": 0}, "trial.model.width = 0: must be a positive integer"),
        ("small_cnn", {"width": 1.5}, "trial.model.width = 1.5: must be a positive integer"),
        ("small_cnn", {"width": True}, "trial.model.width = True: must be a positive integer"),
        ("small_cnn", {"width": "8\n"}, "trial.model.width = '8\\\\n': must be a positive integer"),
        ("mlp", {"hidden": 5}, "trial.model.hidden = 5: must be a list of positive integers"),
        ("mlp", {"hidden": [5, -1]}, r"trial.model.hidden.1 = -1: must be a positive integer"),
    ],
)
def test_settings_out_of_range_are_one_line(name, args, start):
    with pytest.raises(SpecError, match=start) as caught:
        build(name, 28, **args)
    assert "\n" not in str(caught.value)


def test_small_cnn_learns_the_digits_in_seconds():
    splits = load_splits(DataSpec(name="digits"))
    mean, std = splits.channel_stats()
    model = build_model("small_cnn", {}, input_shape=splits.input_shape, classes=10, mean=mean, std=std, seed=0)
    train, test = DeviceData(splits.train, "cpu"), DeviceData(splits.test, "cpu")
    generator = torch.Generator().manual_seed(0)
    epochs = 15
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * train.steps(64))
    for _ in range(epochs):
        for x, y in train.batches(64, generator):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        right = sum(int((model(x).argmax(dim=1) == y).sum()) for x, y in test.batches(500))
    assert right / len(test) > 0.97
