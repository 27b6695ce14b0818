"""How long a compressed LeNet takes to load, and which parts of it: best of 20 on one thread.

python scripts/bench_artifact_load.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import atmc_search
from atmc_search.artifact import Architecture, CompressedModel, pack
from atmc_search.compress import Codebook, GlobalL0, constrained_weights, factorise

ARCHITECTURE = Architecture("lenet", {}, (1, 28, 28), 10)


def compressed_lenet() -> bytes:
    """Random weights in UV + C form, 5 % of the dense weights kept, 16 values a tensor."""
    model = ARCHITECTURE.build()
    layers = factorise(model, "uvc")
    weights, _ = GlobalL0(21_525).project(constrained_weights(model, layers), None)
    codebook = Codebook(4)
    weights, _ = codebook.project(weights, codebook.init(weights))
    return pack(CompressedModel.of(model.eval(), layers, ARCHITECTURE, weights=weights))


def best_ms(run: Callable[[], object], rounds: int = 20) -> float:
    times = []
    for _ in range(rounds + 1):  # the first warms up, and is never the best
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return 1e3 * min(times)


def build_outline() -> None:
    with torch.device("meta"):
        ARCHITECTURE.build()


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = compressed_lenet()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lenet.atmc"
        path.write_bytes(data)
        whole = best_ms(lambda: atmc_search.load_artifact(path))
    parts = {
        "building LeNet to fill": best_ms(ARCHITECTURE.build),
        "building its outline, for the limit": best_ms(build_outline),
    }
    parts["decoding and multiplying factors"] = whole - sum(parts.values())
    print(f"torch {torch.__version__}, 1 thread, LeNet of 430,500 weights in {len(data):,} bytes, best of 20")
    print(f"  {'load_artifact':36} {whole:9.2f} ms")
    for name, took in parts.items():
        print(f"  {name:36} {took:9.2f} ms   {took / whole:6.2f} x")
