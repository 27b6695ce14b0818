"""What running a deployed model costs: against counts by hand, published ones, and a unit that is dead."""

from __future__ import annotations

import math
from typing import Any

import onnx
import pytest
import torch

from atmc_search.artifact import Architecture
from atmc_search.export import About, export
from atmc_search.export.costs import dense_costs, running_costs


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


def test_macs_are_those_of_the_model_that_is_exported_and_timed() -> None:
    """Convolutions keep dead channels up to a multiple of BLOCK: 32 channels of which 5 are dead stay 32, of 20 16."""
    architecture = Architecture("small_cnn", {"width": 16}, (1, 8, 8), 10)
    model = architecture.build().eval()
    with torch.no_grad():
        for name, dead in (("net.2", 5), ("net.5", 20)):
            layer = model.get_submodule(name)
            layer.weight[:dead] = 0
            layer.bias[:dead] = 0
    header = {"model": "small_cnn", "args": {"width": 16}, "input": [1, 8, 8], "classes": 10}
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(export(model, About(header), "onnx"))).graph
    sizes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.value_info}
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    counted = 0
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            spatial = sizes[node.output[0]][2:] if node.op_type == "Conv" else []
            counted += math.prod(weights[node.input[1]]) * math.prod(spatial)
    assert 64 * 9 * (16 + 16 * 32) < counted < dense_costs(architecture, "none")["macs"]
    assert running_costs(model, architecture, "none")["macs"] == counted
