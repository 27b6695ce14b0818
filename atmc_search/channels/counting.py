"""What a model costs: multiply-accumulates of an image, and channels."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@torch.no_grad()
def macs(model: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one image through the linear and (transposed) convolutional layers, zeros included.

    Without biases, norms and activations, as fvcore counts them.

    Args:
        model: on images (n, channels, height, width); is not changed.
        input_shape: (channels, height, width).
    """
    copied = copy.deepcopy(model).eval()
    total = 0

    def count(module: nn.Module, given: tuple[Tensor, ...], got: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Linear):
            total += got.numel() * module.in_features
        elif isinstance(module, _CONVOLUTIONS):
            total += got.numel() * module.in_channels // module.groups * math.prod(module.kernel_size)
        elif isinstance(module, _TRANSPOSED):
            total += given[0].numel() * module.out_channels // module.groups * math.prod(module.kernel_size)

    for module in copied.modules():
        if isinstance(module, (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED)):
            module.register_forward_hook(count)
    copied(blank_images(copied, 1, input_shape))
    return total


def width(model: nn.Module) -> int:
    """Outputs of all linear and (transposed) convolutional layers together: a model's channels, logits included."""
    total = 0
    for module in model.modules():
        if isinstance(module, nn.Linear):
            total += module.out_features
        elif isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED)):
            total += module.out_channels
    return total


def blank_images(model: nn.Module, n: int, input_shape: tuple[int, int, int]) -> Tensor:
    """Zeros of the model's type and on its device."""
    tensors = (tensor for tensor in model.state_dict().values() if tensor.is_floating_point())
    like = next(tensors, torch.zeros(0))
    return torch.zeros(n, *input_shape, dtype=like.dtype, device=like.device)
