"""A small convolutional net for images from 8×8 to 32×32; on 8×8 it trains in seconds on one core."""

from __future__ import annotations

from torch import nn

from atmc_search.models.arguments import large_enough, positive_int


def small_cnn(*, input_shape: tuple[int, int, int], classes: int, width: int = 16) -> nn.Module:
    """Three 3×3 convolutions, two 2×2 max pools, two linear layers; no batch norm.

    Plain pooling, not adaptive: the backward pass of adaptive pooling is nondeterministic on CUDA.

    Args:
        input_shape: (channels, height, width), at least 4×4.
        classes: outputs.
        width: channels of the first convolution; the other two have twice as many.

    Raises:
        SpecError: `width` is no positive integer, or the images are too small.
    """
    width = positive_int(width, "width")
    large_enough(input_shape, 4, "small_cnn")
    channels, height, breadth = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (height // 4) * (breadth // 4), 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )
