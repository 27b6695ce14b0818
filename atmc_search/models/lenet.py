"""LeNet as in Caffe's MNIST example, the model of ATMC's MNIST experiments."""

from __future__ import annotations

from torch import nn

from atmc_search.models.arguments import large_enough


def lenet(*, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Conv 20 and conv 50 of 5×5, each max-pooled by 2, then fully connected 500 and `classes`.

    On 1×28×28 with 10 classes it has 430,500 weights without biases. As in Caffe (`examples/mnist/
    lenet_train_test.prototxt`) the only ReLU follows the first fully connected layer.

    Args:
        input_shape: (channels, height, width), at least 16×16.
        classes: outputs.

    Raises:
        SpecError: the images are too small.
    """
    large_enough(input_shape, 16, "lenet")
    channels, height, width = input_shape
    rows, columns = (((side - 4) // 2 - 4) // 2 for side in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * rows * columns, 500),
        nn.ReLU(),
        nn.Linear(500, classes),
    )
