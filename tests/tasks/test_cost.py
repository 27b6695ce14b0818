"""What running a deployed model costs: against counts by hand, published ones, and a unit that is dead."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from atmc_search.artifact import Architecture
from atmc_search.tasks.cost import dense_costs, running_costs


@pytest.mark.parametrize(
    ("name", "args", "shape", "macs"),
    [
        ("lenet", {}, (1, 28, 28), 20 * 25 * 24**2 + 50 * 500 * 8**2 + 800 * 500 + 500 * 10),
        ("mlp", {"hidden": [30, 20]}, (3, 4, 5), 60 * 30 + 30 * 20 + 20 * 10),
    ],
)
def test_macs_are_those_counted_by_hand(
    name: str, args: dict[str, Any], shape: tuple[int, int, int], macs: int
) -> None:
    assert dense_costs(Architecture(name, args, shape, 10), "none") == {"macs": macs}


def test_macs_of_the_resnet_for_cifar_are_the_published_ones() -> None:
    macs = dense_costs(Architecture("resnet18", {}, (3, 32, 32), 10), "none")["macs"]
    assert round(macs / 1e9, 2) == 0.56


def test_a_dead_unit_costs_nothing() -> None:
    architecture = Architecture("mlp", {"hidden": [300, 200]}, (1, 20, 20), 10)
    model = architecture.build().eval()
    whole = running_costs(model, architecture, "onnxruntime")
    first = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))
    with torch.no_grad():
        first.weight[:100] = 0
        first.bias[:100] = -1
    thin = running_costs(model, architecture, "onnxruntime")
    assert whole["macs"] - thin["macs"] == 100 * (400 + 200)
    # Its weights and biases are gone from memory too, up to the 256 bytes to which ONNX Runtime rounds each tensor.
    assert abs(whole["peak_memory_bytes"] - thin["peak_memory_bytes"] - 4 * 100 * (400 + 1 + 200)) < 10 * 256
