"""ResNets (He et al., arXiv 1512.03385) as torchvision defines them, with the stem that is usual for 32×32 images.

To add a depth that torchvision has, write a factory like the others and list it in `MODELS`.
"""

from __future__ import annotations

from torch import nn

from atmc_search.models.arguments import large_enough


def resnet18(*, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-18 of basic blocks; 11.2 M parameters for three channels and 10 classes.

    Args:
        input_shape: (channels, height, width), at least 8×8.
        classes: outputs.

    Raises:
        SpecError: the images are too small.
    """
    return _cifar_form("resnet18", input_shape, classes)


def resnet34(*, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-34 of basic blocks, the model of ATMC's CIFAR experiments; 21.3 M parameters.

    Args:
        input_shape: (channels, height, width), at least 8×8.
        classes: outputs.

    Raises:
        SpecError: the images are too small.
    """
    return _cifar_form("resnet34", input_shape, classes)


def resnet50(*, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-50 of bottleneck blocks; 23.5 M parameters.

    Args:
        input_shape: (channels, height, width), at least 8×8.
        classes: outputs.

    Raises:
        SpecError: the images are too small.
    """
    return _cifar_form("resnet50", input_shape, classes)


def resnet101(*, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-101 of bottleneck blocks; 42.5 M parameters.

    Args:
        input_shape: (channels, height, width), at least 8×8.
        classes: outputs.

    Raises:
        SpecError: the images are too small.
    """
    return _cifar_form("resnet101", input_shape, classes)


def _cifar_form(name: str, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """torchvision's model with a 3×3 stem of stride 1 and no max pool, as in kuangliu/pytorch-cifar."""
    # Not at the top: its import takes seconds, and few runs need it.
    from torchvision.models import get_model

    large_enough(input_shape, 8, name)  # halved three times
    net: nn.Module = get_model(name, weights=None, num_classes=classes)
    net.conv1 = nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own
    net.maxpool = nn.Identity()
    # Its adaptive pool stays: to 1×1 torch computes it as a mean, whose backward pass is deterministic.
    return net
