"""MobileNetV2 (Sandler et al., arXiv 1801.04381) as torchvision defines it, with strides for 32×32 images."""

from __future__ import annotations

from torch import nn

from atmc_search.models.arguments import large_enough, positive_number

# Expansion, channels, blocks, stride of the first: the paper's table 2, but for the second stride, which is 2 there.
_STAGES = [
    [1, 16, 1, 1],
    [6, 24, 2, 1],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]


def mobilenet_v2(*, input_shape: tuple[int, int, int], classes: int, width_mult: float = 1.0) -> nn.Module:
    """Inverted residuals, halving the image three times.

    Stem and second stage have stride 1, as in kuangliu/pytorch-cifar. Dropout of 0.2 precedes the linear layer.

    2.24 M parameters for three channels and 10 classes. That port has 2.30 M: unlike the paper and torchvision it adds
    1×1 shortcuts where the number of channels changes, and expands the first block by a convolution of factor 1.

    Args:
        input_shape: (channels, height, width), at least 8×8.
        classes: outputs.
        width_mult: factor on the channels of every layer, which are then rounded to multiples of 8; the last
            convolution keeps at least 1,280.

    Raises:
        SpecError: `width_mult` is no positive number, or the images are too small.
    """
    # Not at the top: its import takes seconds, and few runs need it.
    from torchvision.models import MobileNetV2

    width_mult = positive_number(width_mult, "width_mult")
    large_enough(input_shape, 8, "mobilenet_v2")
    net: nn.Module = MobileNetV2(num_classes=classes, width_mult=width_mult, inverted_residual_setting=_STAGES)
    stem, old = net.get_submodule("features.0"), net.get_submodule("features.0.0")
    assert isinstance(stem, nn.Sequential)
    assert isinstance(old, nn.Conv2d)
    stem[0] = conv = nn.Conv2d(input_shape[0], old.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")  # as torchvision's own
    # Its adaptive pool stays: to 1×1 torch computes it as a mean, whose backward pass is deterministic.
    return net
