"""Wide residual networks (Zagoruyko & Komodakis, arXiv 1605.07146), whose 16-8 is the model of ATMC's SVHN experiments.

Built as in the authors' code (github szagoruyko/wide-residual-networks), the files named below.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn.functional import relu

from atmc_search.errors import SpecError, written
from atmc_search.models.arguments import fraction, large_enough, positive_int

# Far beyond the paper's 40: a bound only so that no file of a few bytes keeps its reader building blocks for hours.
_MOST_DEPTH = 1000


def wide_resnet(
    *, input_shape: tuple[int, int, int], classes: int, depth: int = 16, widen_factor: int = 8, dropout: float = 0.0
) -> nn.Module:
    """WRN-`depth`-`widen_factor`: a 3×3 stem, three groups of (depth - 4) / 6 pre-activation blocks, mean, linear.

    The groups have 16, 32 and 64 times `widen_factor` channels; the second and third halve the image (table 1).

    Args:
        input_shape: (channels, height, width), at least 4×4.
        classes: outputs.
        depth: convolutions on the longest path and the linear layer; 6n + 4, and the paper's n is 1 to 6.
        widen_factor: the paper's k.
        dropout: chance to zero a value between a block's convolutions; the paper has 0, 0.3 on CIFAR and 0.4 on SVHN.

    Raises:
        SpecError: a setting is out of its range, or the images are too small.
    """
    blocks = (_depth(depth) - 4) // 6
    widen_factor = positive_int(widen_factor, "widen_factor")
    dropout = fraction(dropout, "dropout")
    large_enough(input_shape, 4, "wide_resnet")  # halved twice
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=_conv(input_shape[0], 16, 3))
    width = 16
    for group, stride in enumerate((1, 2, 2)):
        out = 16 * widen_factor * 2**group
        first = _Block(width, out, stride, dropout)
        layers[f"group{group + 1}"] = nn.Sequential(first, *(_Block(out, out, 1, dropout) for _ in range(blocks - 1)))
        width = out
    layers["bn"] = nn.BatchNorm2d(width)
    layers["relu"] = nn.ReLU(inplace=True)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)  # to 1×1 torch computes a mean, whose backward pass is deterministic
    layers["flatten"] = nn.Flatten()
    layers["fc"] = fc = nn.Linear(width, classes)
    nn.init.zeros_(fc.bias)  # FCinit of models/utils.lua
    return nn.Sequential(layers)


class _Block(nn.Module):
    """B(3, 3) of the paper: norm, ReLU, 3×3, norm, ReLU, dropout, 3×3, and a shortcut.

    Where channels change the shortcut is a 1×1 convolution that starts at the first ReLU (models/wide-resnet.lua).
    """

    def __init__(self, channels: int, out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = _conv(channels, out, 3, stride)
        self.bn2 = nn.BatchNorm2d(out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _conv(out, out, 3)
        self.shortcut = None if channels == out else _conv(channels, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = relu(self.bn1(x), inplace=True)
        shortcut = x if self.shortcut is None else self.shortcut(active)
        hidden = relu(self.bn2(self.conv1(active)), inplace=True)
        out: Tensor = self.conv2(self.dropout(hidden))
        return out + shortcut


def _conv(channels: int, out: int, size: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels, out, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # MSRinit of models/utils.lua
    return conv


def _depth(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 10 <= value <= _MOST_DEPTH or value % 6 != 4:
        raise SpecError(
            f"trial.model.depth = {written(value)}: must be 6n + 4, from 10 to {_MOST_DEPTH}; write e.g. depth: 16"
        )
    return value
