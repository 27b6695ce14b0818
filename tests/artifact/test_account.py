from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from atmc_search.artifact import Architecture, CompressedModel, account, pack
from atmc_search.compress import layers_to_compress


def model_of(*matrices: torch.Tensor) -> CompressedModel:
    """An mlp whose layers hold these weights, each (outputs, inputs)."""
    *hidden, last = matrices
    architecture = Architecture(
        "mlp", {"hidden": [len(m) for m in hidden]}, (1, 1, matrices[0].shape[1]), classes=len(last)
    )
    plain = architecture.build()
    layers = layers_to_compress(plain)
    weights = {layer.weight: matrix for layer, matrix in zip(layers, matrices, strict=True)}
    return CompressedModel.of(plain, layers, architecture, weights=weights)


def matrix(rows: int, columns: int, *values: float) -> torch.Tensor:
    """These values, then zeros."""
    flat = torch.zeros(rows * columns)
    flat[: len(values)] = torch.tensor(values)
    return flat.view(rows, columns)


def test_a_hand_counted_model():
    sizes = account(
        model_of(
            matrix(8, 4, 1, 1, 1, 1, 2, 2, 3, 3),  # of 32: 24 zeros, and 4, 2, 2 of three values
            matrix(4, 8),  # all zero
            matrix(2, 4, *[5.0] * 8),  # one value everywhere
        ),
        bits=2,
    )
    assert sizes.nnz == 8 + 0 + 8
    assert sizes.dense_weights == 32 + 32 + 8
    assert sizes.density == 16 / 72
    assert list(sizes.bits_per_tensor.values()) == [2, 0, 2]
    assert sizes.paper_bits == (8 + 8) * 2
    # Σ n log2(N / n): nothing for a tensor of one symbol.
    assert sizes.entropy_bits == pytest.approx(24 * math.log2(32 / 24) + 4 * 3 + 2 * 4 + 2 * 4)


@pytest.mark.parametrize("bits", [2, 8, 32])
def test_the_papers_size_is_non_zeros_times_bits_however_few_values_are_used(bits):
    sizes = account(model_of(matrix(20, 20, 1, 2, 3)), bits)
    assert list(sizes.bits_per_tensor.values()) == [bits]
    assert sizes.paper_bits == 3 * bits


def test_without_a_codebook_a_value_costs_32_bits_and_its_position_the_binary_entropy():
    sizes = account(model_of(matrix(32, 32, *range(1, 513))), 32)
    assert sizes.entropy_bits == pytest.approx(1024 * 1 + 512 * 32)


def test_factors_count_against_the_dense_weights(compressed: Callable[..., CompressedModel]):
    model = compressed("small_cnn", "uvc", args={"width": 3}, keep=0.25)
    sizes = account(model, 4)
    dense = sum(w.numel() for name, w in model.weights.items() if name.endswith(".C"))
    assert sizes.dense_weights == dense
    assert sizes.nnz == sum(int(w.count_nonzero()) for w in model.weights.values()) == round(0.25 * dense)
    assert list(sizes.bits_per_tensor) == list(model.weights)


def lenet_mask(density: float, values: int) -> CompressedModel:
    """The paper's LeNet of 430,500 weights with a random support and uniform random codes."""
    rng = np.random.default_rng(0)
    architecture = Architecture("lenet", {}, (1, 28, 28), 10)
    plain = architecture.build()
    layers = layers_to_compress(plain)
    assert sum(layer.rows * layer.columns for layer in layers) == 430_500
    weights = {}
    for layer in layers:
        (shape,) = layer.factor_shapes.values()
        codebook = rng.normal(size=values).astype(np.float16).astype(np.float32)
        codes = codebook[rng.integers(0, values, shape)]
        weights[layer.weight] = torch.from_numpy(np.where(rng.random(shape) < density, codes, np.float32(0)))
    others = {k: torch.zeros_like(v) for k, v in plain.state_dict().items() if k not in weights}
    return CompressedModel.of(plain, layers, architecture, weights=weights, others=others)


@pytest.mark.parametrize(("density", "bits"), [(0.05, 4), (0.01, 4), (0.2, 3), (0.5, 2)])
def test_the_file_is_near_the_entropy_bound(density, bits):
    model = lenet_mask(density, 2**bits)
    bound = account(model, bits).entropy_bits / 8
    assert bound < len(pack(model)) <= 1.25 * bound + 600
