"""What is mutated: small artifacts of both formats, of models with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import nn

from atmc_search.artifact import Architecture, CompressedModel, pack
from atmc_search.artifact.body import expectations
from atmc_search.artifact.version1 import Mode
from atmc_search.compress import Codebook, GlobalL0, constrained_weights, factorise

from .handmade import Values, version1

OWN = "fuzz_artifact:every_kind"
"""The one model outside the package that is allowed: `every_kind`, as the script offers it."""


def every_kind(*, classes: int) -> nn.Module:
    """Batch norm with and without parameters, a grouped and a transposed convolution, integers, an infinite mask."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.BatchNorm2d(4, affine=False),
        nn.ConvTranspose2d(4, 3, 2, stride=2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12, classes),
    )
    net.register_buffer("order", torch.arange(classes))
    net.register_buffer("mask", torch.tensor([-float("inf")] + [0.0] * (classes - 1)))
    return net


def compressed(
    name: str, args: Mapping[str, Any], shape: tuple[int, int, int], factors: Any, keep: float, bits: int
) -> CompressedModel:
    """A model with random weights on an ℓ0 budget and codebooks; 32 bits: no codebook."""
    architecture = Architecture(name, dict(args), shape, 4)
    model = architecture.build([0.3] * shape[0], [0.2] * shape[0], seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if "running" in key or key.endswith("bias"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    ranks = {layer.weight: min(layer.rows, layer.columns) // 2 for layer in expectations(model).layers.values()}
    layers = factorise(model, factors, ranks)
    weights = {
        key: weight + 0.1 * torch.randn(weight.shape, generator=generator)
        for key, weight in constrained_weights(model, layers).items()
    }
    chosen, _ = GlobalL0(round(keep * sum(layer.rows * layer.columns for layer in layers))).project(weights, None)
    if bits < 32:
        codebook = Codebook(bits)
        chosen, _ = codebook.project(chosen, codebook.init(chosen))
    facts = {"threat": ["linf", 0.1], "study": "größer", "trial": 3, "nothing": None}
    return CompressedModel.of(model.eval(), layers, architecture, weights=chosen, meta=facts)


def corpus() -> list[bytes]:
    """Small artifacts of both formats: all forms of factors, codebooks and floats, empty, sparse and full tensors."""
    models: list[Any] = [
        ("mlp", {"hidden": [3]}, (1, 2, 3)),
        ("mlp", {"hidden": [40, 7]}, (3, 5, 2)),
        ("mlp", {"hidden": []}, (1, 4, 4)),
        ("small_cnn", {"width": 3}, (1, 8, 8)),
        (OWN, {}, (1, 8, 8)),
    ]
    settings: list[Any] = [
        ("none", 0.2, 3),
        ("none", 1.0, 32),
        ("uvc", 0.1, 2),
        ("uvc", 0.5, 32),
        ("uvc_plain", 0.2, 1),
        ("low_rank", 0.3, 8),
        ("low_rank", 0.02, 32),
    ]
    chosen = [(*model, *setting) for model in models for setting in settings]
    chosen.append(("wide_resnet", {"depth": 10, "widen_factor": 1}, (1, 8, 8), "uvc", 0.02, 3))
    chosen.append(("lenet", {}, (1, 16, 16), "none", 0.02, 4))
    made = [compressed(*each) for each in chosen]
    return [pack(model) for model in made] + [first_format(model, i) for i, model in enumerate(made)]


def first_format(model: CompressedModel, choice: int) -> bytes:
    """The model in format 1; `choice` varies the modes of its tensors."""
    choices = count(choice + 1)

    def mode_of(flat: Values) -> Mode:
        one = next(choices)
        if one % 5 == 0:
            return Mode.RAW
        gaps, in_bytes = one & 1, not one & 2
        if len(np.unique(flat[flat != 0])) > 256:
            return Mode.GAPS_FLOATS if gaps else Mode.BITMAP_FLOATS
        return Mode(Mode.BITMAP_PACKED + 2 * gaps + in_bytes)

    return version1(model, mode_of)
