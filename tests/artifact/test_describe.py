"""What an artifact is said to hold is what it holds, to the byte."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atmc_search.artifact import CompressedModel, Description, account, describe, encoded_bytes, pack, read_header
from atmc_search.artifact.coding import Mode
from atmc_search.artifact.streams import Writer
from atmc_search.errors import ArtifactError

Maker = Callable[..., CompressedModel]

MODELS: dict[str, dict[str, Any]] = {
    "small_cnn": {"name": "small_cnn", "args": {"width": 3}},
    "lenet": {"name": "lenet", "input_shape": (2, 16, 16), "classes": 4},
    "mlp": {"name": "mlp", "args": {"hidden": [80, 7]}, "input_shape": (3, 5, 4), "classes": 3},
}
TINY: dict[str, Any] = {"name": "mlp", "args": {"hidden": [3]}, "input_shape": (1, 2, 3), "classes": 2}


def sealed(content: bytes) -> bytes:
    return b"ATMC\x01" + zlib.crc32(content).to_bytes(4, "little") + content


def adds_up(found: Description, length: int) -> None:
    assert found.size_bytes == length
    assert found.header_bytes + found.layout_bytes + sum(tensor.size_bytes for tensor in found.tensors) == length
    assert all(tensor.size_bytes > 0 for tensor in found.tensors)
    assert found.layout_bytes > 0


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bits", [1, 4, 32])
def test_bytes_add_up_to_the_files_and_figures_to_the_accounts(compressed: Maker, name, factors, bits):
    model = compressed(factors=factors, bits=bits, **MODELS[name])
    data = pack(model)
    found = describe(data)
    adds_up(found, len(data))
    # A byte for the form, and where there is a rank one or two for that.
    assert found.layout_bytes == sum(1 + (layer.form != "dense") * (1 + (layer.rank > 127)) for layer in model.layers)
    sizes = account(model, {t.name: t.bits or 1 for t in found.tensors if t.constrained})
    assert (found.nnz, found.dense_weights, found.density) == (sizes.nnz, sizes.dense_weights, sizes.density)
    assert found.paper_bits == sizes.paper_bits
    assert found.entropy_bits == pytest.approx(sizes.entropy_bits)
    assert {t.name: t.bits for t in found.tensors if t.constrained} == sizes.bits_per_tensor
    weights = {name: tensor.numpy() for name, tensor in model.weights.items()}
    assert sum(t.size_bytes for t in found.tensors if t.constrained) == encoded_bytes(weights)


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
def test_every_tensor_is_there_as_it_was_packed(compressed: Maker, factors):
    model = compressed(factors=factors, keep=0.3, **MODELS["mlp"])
    found = {tensor.name: tensor for tensor in describe(pack(model)).tensors}
    assert list(found) == [*model.weights, *model.others]
    shapes = {layer.weight: layer.shape for layer in model.layers}
    for name, tensor in model.weights.items():
        assert found[name].constrained
        assert found[name].shape == (tuple(tensor.shape) if name not in shapes else shapes[name])
        assert (found[name].nnz, found[name].size) == (int(tensor.count_nonzero()), tensor.numel())
        assert found[name].density == pytest.approx(tensor.count_nonzero().item() / tensor.numel())
        assert Mode[found[name].mode.upper()] is Mode.EMPTY or found[name].nnz > 0
        assert (found[name].entropy_bits == 0) == (len(tensor.unique()) == 1)
    for name, tensor in model.others.items():
        assert (found[name].constrained, found[name].entropy_bits, found[name].of_entropy_bound) == (False, None, None)
        assert found[name].shape == tuple(tensor.shape)
    assert sum(t.numel() for t in model.others.values()) == sum(t.size for t in found.values() if not t.constrained)


def test_a_file_worked_out_by_hand(compressed: Maker):
    model = compressed(**TINY)
    weights = {"net.1.weight": torch.zeros(3, 6), "net.3.weight": torch.tensor([[0.1, 0.2, 0.3], [0.0, 0.1, 0.2]])}
    others = {
        "normalize.mean": torch.zeros(1, 1, 1, 1),
        "normalize.std": torch.ones(1, 1, 1, 1),
        "net.1.bias": torch.tensor([0.5, 0.0, 1.0]),  # fp16 holds them
        "net.3.bias": torch.tensor([0.1, 0.2]),  # and not these
    }
    data = pack(CompressedModel(model.architecture, model.layers, weights, others, {"study": "by hand"}))
    found = describe(data)
    adds_up(found, len(data))
    assert found.layout_bytes == 2
    assert found.header == read_header(data)
    assert found.header["study"] == "by hand"
    empty, full, _, _, half, single = found.tensors
    assert (empty.mode, empty.nnz, empty.bits, empty.size_bytes) == ("empty", 0, 0, 1)
    assert empty.of_entropy_bound is None
    assert (full.nnz, full.size, full.bits) == (5, 6, 2)
    # Symbols 0, 0.1 twice, 0.2 twice, 0.3.
    assert full.entropy_bits == pytest.approx(2 * np.log2(6) + 4 * np.log2(3))
    assert full.of_entropy_bound == pytest.approx(8 * full.size_bytes / full.entropy_bits)
    assert (half.mode, half.bits, half.nnz, half.size_bytes) == ("fp16", 16, 2, 1 + 1 + 6)
    assert (single.mode, single.bits, single.nnz, single.size_bytes) == ("fp32", 32, 2, 1 + 1 + 8)
    assert (found.nnz, found.dense_weights, found.paper_bits) == (5, 24, 10)
    assert found.fp32_bytes == 4 * (18 + 6 + 1 + 1 + 3 + 2)
    assert found.compression == pytest.approx(124 / len(data))


def test_a_users_model_with_integers_and_an_infinite_mask(compressed: Maker, custom_model):
    data = pack(compressed(custom_model))
    with pytest.raises(ArtifactError, match="pass allow_custom_models=True"):
        describe(data)
    found = describe(data, allow_custom_models=True)
    adds_up(found, len(data))
    by_name = {tensor.name: tensor for tensor in found.tensors}
    assert (by_name["net.order"].mode, by_name["net.order"].bits) == ("int64", 64)
    assert by_name["net.mask"].mode == "fp16"


# --- damage


def survives(data: bytes) -> None:
    """A description whose bytes add up, or an ArtifactError; anything else fails the test."""
    try:
        found = describe(data)
    except ArtifactError:
        return
    adds_up(found, len(data))
    assert found.compression > 0
    for tensor in found.tensors:
        assert tensor.of_entropy_bound is None or tensor.of_entropy_bound > 0


def test_every_truncation_and_every_changed_byte_is_refused(compressed: Maker):
    data = pack(compressed(**TINY))
    for position in range(len(data)):
        changed = data[:position] + bytes([data[position] ^ 0x40]) + data[position + 1 :]
        for damaged in (data[:position], changed):
            with pytest.raises(ArtifactError):
                describe(damaged)


@pytest.mark.parametrize("factors", ["none", "uvc"])
def test_every_changed_byte_behind_the_checksum_is_survived(compressed: Maker, factors):
    content = pack(compressed(factors=factors, keep=0.6, **TINY))[9:]
    for position, byte in enumerate(content):
        for value in {0, 0xFF, byte ^ 1} - {byte}:
            survives(sealed(content[:position] + bytes([value]) + content[position + 1 :]))


@given(rest=st.binary(max_size=60))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_after_an_honest_header_are_survived(rest):
    writer = Writer()
    writer.stream(b'{"model": "mlp", "args": {"hidden": [3]}, "input": [1, 2, 3], "classes": 2}')
    survives(sealed(writer.getvalue() + rest))


def test_floats_that_no_packer_writes_are_described(compressed: Maker):
    model = compressed(**TINY)
    writer = Writer()
    writer.stream(b'{"model": "mlp", "args": {"hidden": [3]}, "input": [1, 2, 3], "classes": 2}')
    for count in (18, 6):
        writer.bytes_(bytes([0, Mode.RAW, 4]))
        writer.stream(np.full(count, np.nan, dtype="<f4").tobytes())
    for tensor in model.others.values():
        writer.bytes_(bytes([4]))
        writer.stream(np.full(tensor.numel(), -np.inf, dtype="<f4").tobytes())
    data = sealed(writer.getvalue())
    adds_up(describe(data), len(data))
