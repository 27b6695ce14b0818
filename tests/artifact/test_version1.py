"""Format 1 is read to the bit, and its hostile files are refused as they were."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import files
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atmc_search.artifact import CompressedModel, annotated, describe, read_header, unpack
from atmc_search.artifact.container import read_contents
from atmc_search.artifact.version1 import Mode
from atmc_search.compress import FORMS
from atmc_search.errors import ArtifactError

Maker = Callable[..., CompressedModel]
TINY: dict[str, Any] = {"name": "mlp", "args": {"hidden": [3]}, "input_shape": (1, 2, 3), "classes": 2}
HONEST = {"model": "mlp", "args": {"hidden": [3]}, "input": [1, 2, 3], "classes": 2}


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.EMPTY])
@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
@pytest.mark.parametrize("bits", [1, 3, 32])
def test_every_mode_and_form_comes_back_to_the_bit(compressed: Maker, mode, factors, bits):
    model = compressed("mlp", factors, args={"hidden": [20, 5]}, bits=bits, keep=0.4)
    contents = read_contents(files.version1(model, mode))
    assert contents.compressed.layers == model.layers
    for found, expected in ((contents.compressed.weights, model.weights), (contents.compressed.others, model.others)):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_users_model_with_integers_and_infinities_comes_back(compressed: Maker, custom_model):
    model = compressed(custom_model, "uvc")
    data = files.version1(model)
    state, expected = unpack(data, allow_custom_models=True).state_dict(), model.materialise().state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_its_tensors_are_described_in_whole_bytes(compressed: Maker):
    model = compressed("small_cnn", "uvc", args={"width": 3})
    data = files.version1(model, Mode.GAPS_PACKED)
    found = describe(data)
    assert list(found.header) == ["model", "args", "input", "classes"]
    assert sum(t.size_bytes for t in found.tensors) + found.header_bytes + found.layout_bytes == len(data)
    assert all(t.size_bytes == int(t.size_bytes) > 0 for t in found.tensors)
    # A byte for the form, and where there is a rank one or two for that.
    assert found.layout_bytes == sum(1 + (layer.form != "dense") * (1 + (layer.rank > 127)) for layer in model.layers)
    assert {t.mode for t in found.tensors} == {"empty", "gaps_packed", "fp32"}
    assert [t.name for t in found.tensors] == [*model.weights, *model.others]


def test_it_cannot_be_annotated(compressed: Maker):
    with pytest.raises(ArtifactError, match="format version 1 and cannot be annotated; pack the model anew"):
        annotated(files.version1(compressed(**TINY)), {"study": "late"})


@pytest.mark.parametrize("gap", [0, 1, 253, 254, 255, 256, 509, 510, 511, 765, 2550, 4500])
def test_gaps_of_any_length_are_read(compressed: Maker, gap):
    model = compressed("mlp", args={"hidden": [80]}, keep=0.0)
    name = "net.1.weight"
    model.weights[name].view(-1)[[3, 4 + gap, 5119]] = torch.tensor([1.0, -2.0, 0.5])  # type: ignore[index]
    found = read_contents(files.version1(model, Mode.GAPS_PACKED)).compressed.weights[name]
    assert torch.equal(found, model.weights[name])


# --- hostile files: the checksum holds


def survives(data: bytes) -> None:
    """Opening gives a working model or an ArtifactError; anything else fails the test."""
    try:
        model = unpack(data)
    except ArtifactError:
        return
    shape = read_header(data)["input"]
    with torch.no_grad():
        assert model(torch.zeros(2, *shape)).shape[0] == 2


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
def test_every_changed_byte_behind_the_checksum_is_survived(compressed: Maker, factors):
    content = files.version1(compressed(factors=factors, keep=0.6, **TINY), Mode.BITMAP_PACKED)[9:]
    for position, byte in enumerate(content):
        for value in {0, 0xFF, byte ^ 1} - {byte}:
            survives(files.sealed(content[:position] + bytes([value]) + content[position + 1 :], 1))


def test_every_truncation_behind_the_checksum_is_refused(compressed: Maker):
    content = files.version1(compressed(factors="uvc", **TINY), Mode.GAPS_PACKED)[9:]
    for length in range(len(content)):
        with pytest.raises(ArtifactError):
            unpack(files.sealed(content[:length], 1))
    with pytest.raises(ArtifactError, match="1 bytes too many"):
        unpack(files.sealed(content + b"\0", 1))


@given(rest=st.binary(max_size=60))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_after_an_honest_header_are_survived(rest):
    survives(files.with_header(HONEST, rest, 1))


FITTING = {"identity_left": [], "identity_right": [2], "plain": [1, 2], "low_rank": [1, 2]}
"""Ranks that a layer of 6 rows and 2 columns can have, by form."""


def others(counts: tuple[int, ...]) -> bytes:
    return b"".join(files.floats(np.zeros(count, np.float32)) for count in counts)


@pytest.mark.parametrize("form", FITTING)
@pytest.mark.parametrize("rank", [0, 1, 2, 3, 4, 6, 2**40])
def test_a_form_or_rank_that_does_not_fit_the_layer_is_refused(form, rank):
    zeros = 2 if form == "low_rank" else 3  # factors
    layer = bytes([FORMS.index(form)]) + files.varint(rank) + bytes(zeros)
    header = {"model": "mlp", "args": {"hidden": [6]}, "input": [1, 1, 2], "classes": 2}
    data = files.with_header(header, layer + bytes(2) + others((1, 1, 6, 2)), 1)  # the second layer: dense, zeros
    with nullcontext() if rank in FITTING[form] else pytest.raises(ArtifactError, match=f"rank {rank} does not fit"):
        unpack(data)


def test_an_unknown_form_or_mode_is_refused_with_the_remedy():
    for rest, word in ((bytes([len(FORMS)]), "factor form"), (bytes([0, len(Mode)]), "tensor mode")):
        with pytest.raises(ArtifactError, match=rf"{word} \d+, unknown here; update atmc-search"):
            unpack(files.with_header(HONEST, rest, 1))


def first_tensor(data: bytes) -> dict[str, torch.Tensor]:
    """Opens a file whose first layer, 3 × 6, is `data`, and whose other tensors are zeros."""
    contents = read_contents(files.with_header(HONEST, bytes(1) + data + bytes(2) + others((1, 1, 3, 2)), 1))
    return dict(contents.compressed.weights)


@pytest.mark.parametrize(
    ("gaps", "fits"),
    [
        ([17], True),
        ([255, 0], False),
        ([0, 16], True),
        ([18], False),
        ([0, 17], False),
        ([], False),
        ([255], False),
        ([3, 255], False),
    ],
    ids=str,
)
def test_gaps_that_leave_the_tensor_or_end_in_the_middle_are_refused(gaps, fits):
    data = bytes([Mode.GAPS_FLOATS]) + files.stream(bytes(gaps)) + files.floats(np.ones(len(gaps), np.float32))
    with nullcontext() if fits else pytest.raises(ArtifactError, match="gaps do not fit"):
        assert int(first_tensor(data)["net.1.weight"].count_nonzero()) == len(gaps)


@pytest.mark.parametrize(("last", "fits"), [(0b01000000, True), (0b01100000, False), (None, False)])
def test_a_bitmap_that_leaves_the_tensor_or_is_empty_is_refused(last, fits):
    bitmap = bytes(3) if last is None else bytes([0b10000000, 0, last])
    data = bytes([Mode.BITMAP_FLOATS]) + files.stream(bitmap) + files.floats(np.ones(2, np.float32))
    with nullcontext() if fits else pytest.raises(ArtifactError, match="bitmap do not fit"):
        assert first_tensor(data)["net.1.weight"].view(-1).nonzero().view(-1).tolist() == [0, 17]


@pytest.mark.parametrize("mode", [Mode.BITMAP_PACKED, Mode.BITMAP_BYTES])
def test_a_code_beyond_the_codebook_is_refused(mode):
    bitmap = files.stream(bytes([0b10100000, 0, 0]))
    codes = bytes([0b00110000]) if mode.packed else bytes([0, 3])
    data = bytes([mode]) + bitmap + bytes([2]) + files.floats(np.float32([1, 2, 3])) + files.stream(codes)
    with pytest.raises(ArtifactError, match="codes do not fit"):
        first_tensor(data)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused(value):
    data = bytes([Mode.RAW]) + files.floats(np.full(18, value, np.float32))
    with pytest.raises(ArtifactError, match=r"net\.1\.weight is not finite; do not trust its origin"):
        first_tensor(data)


def test_nan_among_the_other_tensors_is_refused():
    rest = bytes(4) + others((1, 1, 3)) + files.floats(np.float32([0, np.nan]))
    with pytest.raises(ArtifactError, match=r"net\.3\.bias holds NaN"):
        unpack(files.with_header(HONEST, rest, 1))
