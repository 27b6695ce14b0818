"""Compressed models of every form to pack, without training."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from atmc_search.artifact import Architecture, CompressedModel
from atmc_search.compress import Codebook, GlobalL0, constrained_weights, factorise

CUSTOM = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, width=4):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, groups=2),
            nn.BatchNorm2d(width, affine=False),
            nn.ConvTranspose2d(width, 3, 2, stride=2),
            nn.ReLU(),
            nn.ConvTranspose2d(3, 6, 2, groups=3),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(24, classes)
        self.register_buffer("order", torch.arange(classes - 1, -1, -1))
        self.register_buffer("mask", torch.tensor([-float("inf")] + [0.0] * (classes - 1)))

    def forward(self, x):
        return (self.head(self.body(x)) + self.mask)[:, self.order]
"""

Factors = Literal["none", "uvc", "uvc_plain"]


@pytest.fixture
def custom_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a user's model: batch norm, a grouped and two transposed convolutions, integers, an infinite mask."""
    (tmp_path / "packed_users_model.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(tmp_path)
    yield "packed_users_model:Net"
    sys.modules.pop("packed_users_model", None)


def _compressed(
    name: str,
    factors: Factors = "none",
    *,
    args: dict[str, Any] | None = None,
    input_shape: tuple[int, int, int] = (1, 8, 8),
    classes: int = 10,
    keep: float = 0.2,
    bits: int = 3,
    meta: dict[str, Any] | None = None,
) -> CompressedModel:
    architecture = Architecture(name, args or {}, input_shape, classes)
    channels = input_shape[0]
    model = architecture.build([0.3] * channels, [0.2] * channels, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if "running" in key:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    layers = factorise(model, factors)
    weights = constrained_weights(model, layers)
    with torch.no_grad():
        noisy = {k: w + 0.1 * torch.randn(w.shape, generator=generator) for k, w in weights.items()}
        k = round(keep * sum(layer.rows * layer.columns for layer in layers))
        chosen, _ = GlobalL0(k).project(noisy, None)
        if bits < 32:
            codebook = Codebook(bits)
            chosen, _ = codebook.project(chosen, codebook.init(chosen))
        for key, weight in weights.items():
            weight.copy_(chosen[key])
    return CompressedModel.of(model.eval(), layers, architecture, meta=meta)


@pytest.fixture
def compressed() -> Callable[..., CompressedModel]:
    """`compressed("mlp", "uvc", keep=0.1, bits=32)`: random weights on the ℓ0 budget and the codebooks."""
    return _compressed
