"""Writes a file of today's format, version<number>.atmc, and beside it the tensors that went in, version<number>.npz.

    python tests/artifact/golden/make.py

A file once released is never written again: later releases must read it. That of an earlier format is made with the
release that had it (this script runs with every one since the first).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from atmc_search.artifact import Architecture, CompressedModel, pack
from atmc_search.compress import constrained_weights, factorise, half_precision

FOLDER = Path(__file__).parent
KINDS = ("codebook", "fp32", "empty", "fp32 codebook", "one value", "fp16", "full", "positive")
META = {
    "study": "golden",
    "trial": 7,
    "threat": ["linf", 0.1],
    "bits": 2,
    "measured": {
        "split": "validation",
        "images": 360,
        "clean": 288,
        "robust": 180,
        "attack": {"name": "pgd", "steps": 20},
    },
}


def model() -> CompressedModel:
    """A residual net in factors of every kind, with batch norm; its layers take turns at the kinds of values."""
    architecture = Architecture("wide_resnet", {"depth": 10, "widen_factor": 1}, (1, 8, 8), 3)
    plain = architecture.build([0.25], [0.5], seed=1).eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, tensor in plain.state_dict().items():
            if "running" in name or name.endswith("bias"):
                values = torch.from_numpy(rng.random(3, dtype=np.float32) + 0.5)
                tensor[:3] = half_precision(values) if "var" in name else values
    layers = factorise(plain, "uvc")
    weights = {
        name: torch.from_numpy(_matrix(rng, tuple(tensor.shape), KINDS[i % len(KINDS)]))
        for i, (name, tensor) in enumerate(constrained_weights(plain, layers).items())
    }
    return CompressedModel.of(plain, layers, architecture, weights, meta=META)


def _matrix(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray[tuple[int, ...], np.dtype]:
    noise = rng.normal(size=shape).astype(np.float32)
    values = {
        "codebook": np.array([-0.5, -0.25, 0.125, 0.75], np.float32)[rng.integers(0, 4, shape)],
        "fp32": noise,
        "empty": 0 * noise,
        "fp32 codebook": np.array([-0.1, 0.3, 0.7], np.float32)[rng.integers(0, 3, shape)],
        "one value": np.full(shape, -0.375, np.float32),
        "fp16": noise.astype(np.float16).astype(np.float32),
        "full": np.array([-1, 1], np.float32)[rng.integers(0, 2, shape)],
        "positive": np.abs(noise).astype(np.float16).astype(np.float32),
    }[kind]
    if kind == "full" and noise.size <= 512:
        return values
    kept = np.zeros(noise.size, dtype=bool)
    kept[rng.integers(0, noise.size, 12)] = True
    return values * kept.reshape(shape)


def main() -> None:
    compressed = model()
    data = pack(compressed)
    stem = FOLDER / f"version{data[4]}"
    stem.with_suffix(".atmc").write_bytes(data)
    tensors = {name: tensor.numpy() for name, tensor in {**compressed.weights, **compressed.others}.items()}
    np.savez_compressed(stem.with_suffix(".npz"), **tensors)


if __name__ == "__main__":
    main()
