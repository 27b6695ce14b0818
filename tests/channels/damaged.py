"""Networks with dead rows, columns and blocks, and what the laws compare."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from atmc_search.models import build_model

MODELS_SMALL: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    "lenet": ((1, 16, 16), {}),
    "mlp": ((3, 4, 5), {"hidden": [30, 20]}),
    "mobilenet_v2": ((3, 8, 8), {"width_mult": 0.25}),
    "resnet101": ((3, 8, 8), {}),
    "resnet18": ((3, 8, 8), {}),
    "resnet34": ((3, 8, 8), {}),
    "resnet50": ((3, 8, 8), {}),
    "small_cnn": ((1, 8, 8), {"width": 8}),
    "wide_resnet": ((3, 8, 8), {"depth": 16, "widen_factor": 1, "dropout": 0.3}),
}
"""Every kind of model there is: shape of an image, arguments."""


def built(name: str, seed: int = 0) -> nn.Module:
    shape, args = MODELS_SMALL[name]
    mean, std = [0.4] * shape[0], [0.25] * shape[0]
    return build_model(name, args, input_shape=shape, classes=5, mean=mean, std=std, seed=seed)


@torch.no_grad()
def damage(model: nn.Module, seed: int, *, share: float = 0.2, blocks: float = 0.0) -> nn.Module:
    """The model in eval mode with a share of all weights zero, of all rows, of all columns, and whole layers.

    The last layer keeps its rows. Biases are normal; batch norms have normal parameters, a share of them zero.
    """
    generator = torch.Generator().manual_seed(seed)

    def spared(*shape: int, gone: float = share) -> Tensor:
        return torch.rand(*shape, generator=generator) >= gone

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers:
        weight = layer.weight
        last = layer is layers[-1]
        weight *= 2 * spared(*weight.shape)
        if weight.shape[1] > 3:  # not of images, nor of depthwise kernels
            weight *= spared(1, weight.shape[1], *[1] * (weight.ndim - 2))
        if not last:
            weight *= spared(len(weight), *[1] * (weight.ndim - 1)) * spared(1, gone=blocks)
        if layer.bias is not None:
            layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator) * spared(*layer.bias.shape))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            count = module.num_features
            module.weight.copy_((1 + 0.5 * torch.randn(count, generator=generator)) * spared(count))
            module.bias.copy_(0.5 * torch.randn(count, generator=generator) * spared(count))
            module.running_mean.copy_(0.2 * torch.randn(count, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(count, generator=generator))
    return model.eval()


def images(shape: tuple[int, int, int], n: int = 5) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(n))


@torch.no_grad()
def apart(one: nn.Module, other: nn.Module, x: Tensor) -> float:
    """The greatest difference of logits, relative to the greatest logit."""
    left, right = one(x), other(x)
    assert left.shape == right.shape
    return float((left - right).abs().max() / left.abs().max())


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
