"""What an artifact is said to hold is what it holds, to the byte."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from files import floats, sealed, stream, with_header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atmc_search.artifact import CompressedModel, Description, account, describe, encoded_bytes, pack, read_header
from atmc_search.artifact.version1 import Mode
from atmc_search.errors import ArtifactError

Maker = Callable[..., CompressedModel]

MODELS: dict[str, dict[str, Any]] = {
    "small_cnn": {"name": "small_cnn", "args": {"width": 3}},
    "mlp": {"name": "mlp", "args": {"hidden": [80, 7]}, "input_shape": (3, 5, 4), "classes": 3},
}
TINY: dict[str, Any] = {"name": "mlp", "args": {"hidden": [3]}, "input_shape": (1, 2, 3), "classes": 2}


def adds_up(found: Description, length: int) -> None:
    assert found.size_bytes == length
    parts = found.header_bytes + found.layout_bytes + sum(tensor.size_bytes for tensor in found.tensors)
    assert parts == pytest.approx(length)
    assert all(tensor.size_bytes > 0 for tensor in found.tensors)


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bits", [1, 4, 32])
def test_bytes_add_up_to_the_files_and_figures_to_the_accounts(compressed: Maker, name, factors, bits):
    model = compressed(factors=factors, bits=bits, **MODELS[name])
    data = pack(model)
    found = describe(data)
    adds_up(found, len(data))
    # The number of raw bytes, forms, ranks, and the code's end.
    assert 0 < found.layout_bytes <= 12 + 4 * len(model.layers) + 0.001 * len(data)
    sizes = account(model, {t.name: t.bits or 1 for t in found.tensors if t.constrained})
    assert (found.nnz, found.dense_weights, found.density) == (sizes.nnz, sizes.dense_weights, sizes.density)
    assert found.paper_bits == sizes.paper_bits
    assert found.entropy_bits == pytest.approx(sizes.entropy_bits)
    assert {t.name: t.bits for t in found.tensors if t.constrained} == sizes.bits_per_tensor
    counted = encoded_bytes(model.weights, model.layers)
    # What it counts of a plan is a bound, and what it cannot foresee are biases to predict positions from.
    assert (
        counted - 8 * len(model.weights) - 0.01 * counted
        <= sum(t.size_bytes for t in found.tensors if t.constrained)
        <= counted + 0.01 * counted
    )


def test_bits_are_those_of_the_codebook_and_32_without_one(compressed: Maker):
    """Three distinct values fit 2 bits; whether they came from a codebook of 16, or of none, the header knows."""
    model = compressed(bits=32, **TINY)
    few = {name: torch.where(w != 0, w.sign() * 0.3, 0.0) for name, w in model.weights.items()}
    model = dataclasses.replace(model, weights=few)
    paper = {}
    for said in (None, 4, 32, [4, 3], [0, 3], "many", [4], [4, 99], True):
        meta = {} if said is None else {"bits": said}
        found = describe(pack(dataclasses.replace(model, meta=meta)))
        paper[str(said)] = [tensor.bits for tensor in found.tensors if tensor.constrained]
        assert found.paper_bits == sum(t.bits * t.nnz for t in found.tensors if t.constrained)
    unsaid = paper["None"]
    assert set(unsaid) <= {1, 2, 32}
    assert (paper["4"], paper["32"], paper["[4, 3]"]) == ([4, 4], [32, 32], [4, 3])
    assert paper["[0, 3]"] == [1, 3]
    assert paper["many"] == paper["[4]"] == paper["[4, 99]"] == paper["True"] == unsaid


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
def test_every_tensor_is_there_as_it_was_packed(compressed: Maker, factors):
    model = compressed(factors=factors, keep=0.3, **MODELS["mlp"])
    found = {tensor.name: tensor for tensor in describe(pack(model)).tensors}
    assert found.keys() == {*model.weights, *model.others}
    shapes = {layer.weight: layer.shape for layer in model.layers}
    for name, tensor in model.weights.items():
        assert found[name].constrained
        assert found[name].shape == (tuple(tensor.shape) if name not in shapes else shapes[name])
        assert (found[name].nnz, found[name].size) == (int(tensor.count_nonzero()), tensor.numel())
        assert found[name].density == pytest.approx(tensor.count_nonzero().item() / tensor.numel())
        kinds = {"codebook fp16", "codebook fp32", "floats fp16", "floats fp32"} if found[name].nnz else {"empty"}
        assert found[name].mode in kinds
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
    data = pack(CompressedModel(model.architecture, model.layers, weights, others, {"study": "by hand"}, model.order))
    found = describe(data)
    adds_up(found, len(data))
    assert found.header == read_header(data)
    assert found.header["study"] == "by hand"
    _, _, empty, half, full, single = found.tensors
    assert (empty.name, empty.mode, empty.nnz, empty.bits) == ("net.1.weight", "empty", 0, 0)
    assert 8 * empty.size_bytes == pytest.approx(np.log2(3))  # one kind of three
    assert empty.of_entropy_bound is None
    assert (full.nnz, full.size, full.bits) == (5, 6, 2)
    # Symbols 0, 0.1 twice, 0.2 twice, 0.3.
    assert full.entropy_bits == pytest.approx(2 * np.log2(6) + 4 * np.log2(3))
    assert full.of_entropy_bound == pytest.approx(8 * full.size_bytes / full.entropy_bits)
    assert (half.name, half.bits, half.nnz) == ("net.1.bias", 16, 2)
    assert half.mode.endswith("fp16")
    assert (single.name, single.mode, single.bits, single.nnz) == ("net.3.bias", "floats fp32", 32, 2)
    # Kind, half, full; two signs that are half believed; two exponents of 256; how many bits of the mantissas; these.
    assert 3.5 + 2 + 2 * 7 + np.log2(24) + 2 * 23 < 8 * single.size_bytes < 4 + 2 + 2 * 8 + np.log2(24) + 2 * 23 + 1
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
    assert by_name["net.order"].size_bytes == 8 * 10
    assert by_name["net.mask"].mode.endswith("fp16")


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
        for value in {0xFF, byte ^ 1} - {byte}:
            survives(sealed(content[:position] + bytes([value]) + content[position + 1 :]))


@given(rest=st.binary(max_size=60))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_after_an_honest_header_are_survived(rest):
    for version in (1, 2):
        survives(
            with_header({"model": "mlp", "args": {"hidden": [3]}, "input": [1, 2, 3], "classes": 2}, rest, version)
        )


def test_infinities_that_no_packer_writes_are_described(compressed: Maker):
    model = compressed(**TINY)
    header = {"model": "mlp", "args": {"hidden": [3]}, "input": [1, 2, 3], "classes": 2}
    rest = b"".join(bytes([0, Mode.RAW, 4]) + stream(np.full(n, 1e38, dtype="<f4").tobytes()) for n in (18, 6))
    rest += b"".join(floats(np.full(t.numel(), -np.inf, dtype=np.float32)) for t in model.others.values())
    data = with_header(header, rest, version=1)
    adds_up(describe(data), len(data))
