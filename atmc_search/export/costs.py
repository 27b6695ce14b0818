"""What a deployed model costs to run: multiply-accumulates always, latency and peak memory where a runtime is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from torch import nn

from atmc_search.artifact import Architecture
from atmc_search.channels import macs, slimmed
from atmc_search.export import BLOCK, About, export
from atmc_search.export.runtime import profile


def running_costs(model: nn.Module, architecture: Architecture, runtime: str) -> dict[str, Any]:
    """The costs of a model as it would be exported: without its dead channels.

    Args:
        model: in eval mode, on the CPU.
        architecture: what it was built from.
        runtime: "onnxruntime" to export the model and run it there, or "none".

    Returns:
        macs; with a runtime latency_ms, latency_ms_low, latency_ms_high and peak_memory_bytes.

    Raises:
        AtmcError: the runtime's packages are missing, or it cannot run the model.
    """
    shape = architecture.input_shape
    costs: dict[str, Any] = {"macs": macs(slimmed(model, shape, multiple=BLOCK), shape)}
    if runtime == "onnxruntime":
        header = {
            "model": architecture.name,
            "args": dict(architecture.args),
            "input": list(shape),
            "classes": architecture.classes,
        }
        cost = profile(export(model, About(header), "onnx"), shape)
        costs |= {
            "latency_ms": cost.latency_ms,
            "latency_ms_low": cost.latency_ms_low,
            "latency_ms_high": cost.latency_ms_high,
            "peak_memory_bytes": cost.peak_memory_bytes,
        }
    return costs


def dense_costs(architecture: Architecture, runtime: str) -> Mapping[str, Any]:
    """`running_costs` of the architecture with fresh weights; measured once a process."""
    return _dense_costs(
        architecture.name, json.dumps(architecture.args), architecture.input_shape, architecture.classes, runtime
    )


@lru_cache(maxsize=16)
def _dense_costs(
    name: str, args: str, input_shape: tuple[int, int, int], classes: int, runtime: str
) -> Mapping[str, Any]:
    architecture = Architecture(name, json.loads(args), input_shape, classes)
    channels = input_shape[0]
    model = architecture.build([0.5] * channels, [0.25] * channels)  # 0 and 1 would be optimised away
    return running_costs(model.eval(), architecture, runtime)
