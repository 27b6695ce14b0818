from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from files import frame, sealed, varint, with_header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from atmc_search.artifact import Architecture, CompressedModel, annotated, pack, read_header, unpack
from atmc_search.artifact.container import FREE_WEIGHTS, MOST_WEIGHTS_PER_BYTE, read_contents
from atmc_search.compress import factorise
from atmc_search.errors import ArtifactError

Maker = Callable[..., CompressedModel]

MODELS: dict[str, dict[str, Any]] = {
    "small_cnn": {"name": "small_cnn", "args": {"width": 3}},
    "lenet": {"name": "lenet", "input_shape": (2, 16, 16), "classes": 4},
    "mlp": {"name": "mlp", "args": {"hidden": [80, 7]}, "input_shape": (3, 5, 4), "classes": 3},
}
"""The mlp's first layer has more rows than columns, so that its identity stands on the right."""

TINY: dict[str, Any] = {"name": "mlp", "args": {"hidden": [3]}, "input_shape": (1, 2, 3), "classes": 2}


def images(model: CompressedModel, n: int = 9) -> torch.Tensor:
    return torch.rand(n, *model.architecture.input_shape, generator=torch.Generator().manual_seed(0))


def assert_same_model(one: nn.Module, two: nn.Module, x: torch.Tensor) -> None:
    first, second = one.state_dict(), two.state_dict()
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    with torch.no_grad():
        assert torch.equal(one(x), two(x))


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bits", [1, 4, 32])
def test_every_form_of_every_model_comes_back_to_the_bit(compressed: Maker, name, factors, bits):
    model = compressed(factors=factors, bits=bits, **MODELS[name])
    assert_same_model(unpack(pack(model)), model.materialise(), images(model))


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
def test_a_users_model_with_every_kind_of_tensor_comes_back_to_the_bit(compressed: Maker, custom_model, factors):
    model = compressed(custom_model, factors, args={"width": 6}, keep=0.5)
    forms = {layer.module: layer.form for layer in model.layers}
    assert forms["net.body.3"] == forms["net.body.7"] == "dense"  # grouped
    decoded = unpack(pack(model), allow_custom_models=True)
    x = images(model)
    assert torch.isinf(decoded(x)[:, -1]).all()
    assert_same_model(decoded, model.materialise(), x)


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
def test_what_is_packed_computes_what_the_trained_model_computes(custom_model, factors):
    architecture = Architecture(custom_model, {}, (1, 8, 8), 10)
    trained = architecture.build([0.4], [0.3], seed=5)
    layers = factorise(trained, factors)
    for _ in range(3):  # in train mode, so that batch norm statistics move
        trained(torch.rand(20, 1, 8, 8))
    model = CompressedModel.of(trained.eval(), layers, architecture)
    x = images(model)
    with torch.no_grad():
        assert torch.allclose(unpack(pack(model), allow_custom_models=True)(x), trained(x), atol=1e-6)


def test_what_comes_out_is_in_eval_mode_and_packs_to_the_same_bytes(compressed: Maker):
    model = compressed(**MODELS["small_cnn"])
    decoded = unpack(pack(model))
    assert not any(module.training for module in decoded.modules())
    again = CompressedModel.of(decoded, model.layers, model.architecture)
    assert pack(again) == pack(model)


def test_minus_zero_is_packed_as_zero(compressed: Maker):
    model = compressed(**TINY)
    plain = model.materialise()
    weights = {name: torch.where(w == 0, -torch.zeros(()), w) for name, w in model.weights.items()}
    assert any(torch.signbit(w[w == 0]).any() for w in weights.values())
    negative = CompressedModel.of(plain, model.layers, model.architecture, weights=weights)
    assert not any(torch.signbit(w[w == 0]).any() for w in negative.weights.values())
    assert pack(negative) == pack(model)


def test_integers_over_float32s_precision_survive(compressed: Maker, custom_model):
    model = compressed(custom_model)
    large = torch.tensor([2**53 + 1, -(2**62), *range(8)])
    others = {name: large if name.endswith("order") else tensor for name, tensor in model.others.items()}
    decoded = unpack(pack(replace(model, others=others)), allow_custom_models=True)
    assert torch.equal(decoded.state_dict()["net.order"], large)


# --- the header


def test_the_header_comes_back_with_all_that_travels_along(compressed: Maker):
    meta = {"threat": ["linf", 0.1], "study": "größer", "trial": 3, "nothing": None}
    model = compressed(**MODELS["small_cnn"], meta=meta)
    described = {"model": "small_cnn", "args": {"width": 3}, "input": [1, 8, 8], "classes": 10}
    assert read_header(pack(model)) == meta | described


def test_what_travels_along_displaces_nothing(compressed: Maker):
    model = compressed(**TINY, meta={"model": "lenet", "classes": 77})
    assert read_header(pack(model))["model"] == "mlp"
    assert_same_model(unpack(pack(model)), model.materialise(), images(model))


def test_a_header_too_long_to_read_back_is_not_written(compressed: Maker):
    with pytest.raises(ArtifactError, match="header of"):
        pack(compressed(**TINY, meta={"note": "x" * (1 << 16)}))


def test_a_users_model_is_refused_unless_allowed_and_is_not_even_imported(compressed: Maker, tmp_path, monkeypatch):
    data = with_header({"model": "trap_of_users_model:Net", "args": {}, "input": [1, 8, 8], "classes": 10})
    (tmp_path / "trap_of_users_model.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ArtifactError, match="pass allow_custom_models=True"):
        unpack(data)


# --- facts that are added later


def tensors_of(data: bytes) -> bytes:
    return data[read_contents(data).header_bytes :]


def test_annotating_adds_facts_and_keeps_the_tensors_bytes(compressed: Maker):
    data = pack(compressed(**MODELS["small_cnn"], meta={"study": "before", "trial": 1}))
    found = annotated(data, {"study": "after", "measured": {"clean": 0.5}})
    expected = {"study": "after", "trial": 1, "measured": {"clean": 0.5}}
    assert read_header(found) == read_header(data) | expected
    assert tensors_of(found) == tensors_of(data)
    assert annotated(found, {}) == found


def test_annotating_cannot_displace_the_architecture(compressed: Maker):
    model = compressed(**TINY)
    lies = {"model": "lenet", "args": {"width": 9}, "input": [9, 9, 9], "classes": 77}
    found = annotated(pack(model), lies)
    assert found == pack(model)
    assert_same_model(unpack(found), model.materialise(), images(model))


def test_a_fact_too_long_to_read_back_is_refused(compressed: Maker):
    with pytest.raises(ArtifactError, match="header of"):
        annotated(pack(compressed(**TINY)), {"note": "x" * (1 << 16)})


@pytest.mark.parametrize("damage", [slice(0, -1), slice(4), slice(0, 0)])
def test_only_an_artifact_can_be_annotated(compressed: Maker, damage):
    with pytest.raises(ArtifactError):
        annotated(pack(compressed(**TINY))[damage], {})


def test_a_users_model_is_annotated_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "trap_of_users_model.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    data = with_header({"model": "trap_of_users_model:Net", "args": {}, "input": [1, 8, 8], "classes": 10}, b"rest")
    found = annotated(data, {"study": "late"})
    assert read_header(found)["study"] == "late"
    assert found.endswith(b"rest")


# --- what cannot be packed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_factor_that_is_not_finite_is_refused(compressed: Maker, value):
    model = compressed(**TINY)
    weights = {name: torch.full_like(w, value) for name, w in model.weights.items()}
    with pytest.raises(ArtifactError, match="NaN or infinity"):
        pack(replace(model, weights=weights))


def test_nan_among_the_other_tensors_is_refused_by_name(compressed: Maker):
    model = compressed(**TINY)
    others = {name: t * float("nan") if name.endswith("3.bias") else t for name, t in model.others.items()}
    with pytest.raises(ArtifactError, match=r"'net.3.bias' holds NaN"):
        pack(replace(model, others=others))


# --- damage


def test_every_truncation_is_refused(compressed: Maker):
    data = pack(compressed(**TINY))
    for length in range(len(data)):
        with pytest.raises(ArtifactError):
            unpack(data[:length])
        with pytest.raises(ArtifactError):
            read_header(data[:length])


def test_every_change_of_a_byte_is_refused(compressed: Maker):
    data = pack(compressed(**TINY))
    for position in range(len(data)):
        for change in (1, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[position] ^= change
            with pytest.raises(ArtifactError):
                unpack(bytes(damaged))


def test_bytes_too_many_are_refused_even_behind_a_checksum(compressed: Maker):
    data = pack(compressed(**TINY))
    with pytest.raises(ArtifactError):
        unpack(data + b"\0")
    with pytest.raises(ArtifactError, match="longer than its tensors"):
        unpack(sealed(data[9:] + bytes(8) + b"\x01"))


def test_zeros_at_the_end_mean_nothing(compressed: Maker):
    model = compressed(factors="uvc", **TINY)
    data = pack(model)
    for zeros in (1, 2, 3, 4, 5, 1000):
        assert_same_model(unpack(sealed(data[9:] + bytes(zeros))), model.materialise(), images(model))


@pytest.mark.parametrize("data", [b"", b"ATM", b"PK\x03\x04 a zip", b"\0" * 100], ids=repr)
def test_a_foreign_file_is_no_artifact(data):
    with pytest.raises(ArtifactError, match="not an artifact"):
        unpack(data)


def test_a_later_version_says_what_to_do(compressed: Maker):
    content = pack(compressed(**TINY))[9:]
    for version in (3, 255, 0):
        for read in (unpack, read_header):
            said = rf"format version {version}, this release reads 1 to 2; update atmc-search"
            with pytest.raises(ArtifactError, match=said) as caught:
                read(sealed(content, version))
            assert "\n" not in str(caught.value)


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
    content = pack(compressed(factors=factors, keep=0.6, **TINY))[9:]
    for position, byte in enumerate(content):
        for value in {0xFF, byte ^ 1} - {byte}:
            survives(sealed(content[:position] + bytes([value]) + content[position + 1 :]))


def test_every_truncation_behind_the_checksum_is_survived(compressed: Maker):
    """What is missing of the code is zeros to the decoder, so that a cut file may hold another model."""
    content = pack(compressed(factors="uvc", **TINY))[9:]
    for length in range(len(content)):
        survives(sealed(content[:length]))


@given(rest=st.binary(max_size=60))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_after_an_honest_header_are_survived(rest):
    survives(with_header({"model": "mlp", "args": {"hidden": [3]}, "input": [1, 2, 3], "classes": 2}, rest))


HONEST = {"model": "mlp", "args": {"hidden": [3]}, "input": [1, 2, 3], "classes": 2}
HEADERS: dict[str, Any] = {
    "not JSON": b"{",
    "not UTF-8": b"\xff\xfe{}",
    "deep": b"[" * 60_000,
    "long integer": b'{"classes": ' + b"9" * 5000 + b"}",
    "list": [],
    "word": "mlp",
    "nothing": {},
    "unknown model": HONEST | {"model": "resnet9000"},
    "model no word": HONEST | {"model": 3},
    "args no mapping": HONEST | {"args": [3]},
    "unknown arg": HONEST | {"args": {"depth": 3}},
    "reserved arg": HONEST | {"args": {"classes": 3}},
    "arg of another type": HONEST | {"args": {"hidden": {"a": 1}}},
    "arg of ill shape": HONEST | {"args": {"hidden": [[3]]}},
    "negative arg": HONEST | {"args": {"hidden": [-3]}},
    "input too short": HONEST | {"input": [1, 2]},
    "input no list": HONEST | {"input": "128"},
    "input zero": HONEST | {"input": [0, 2, 3]},
    "input negative": HONEST | {"input": [1, -2, -3]},
    "input fraction": HONEST | {"input": [1, 2.5, 3]},
    "input huge": HONEST | {"input": [1, 2**70, 3]},
    "input too small for the model": HONEST | {"model": "lenet", "args": {}},
    "classes none": HONEST | {"classes": None},
    "classes huge": HONEST | {"classes": 2**40},
    "weights of 400 TB": HONEST | {"args": {"hidden": [10_000_000, 10_000_000]}},
    "weights of 10 GB": HONEST | {"args": {"hidden": [50_000, 50_000]}},
    "weights beyond 64 bits": HONEST | {"args": {"hidden": [2**62, 2**62]}},
    "a width of 200 bits": HONEST | {"args": {"hidden": [2**200]}},
    "filters of 45 GB": HONEST | {"model": "small_cnn", "args": {"width": 25_000}, "input": [1, 8, 8]},
    "2,000 layers": HONEST | {"args": {"hidden": [1] * 2000}},
    "an image of 2^48": HONEST | {"input": [2**16, 2**16, 2**16]},
    "an image of 1 GB": HONEST | {"input": [1, 2**14, 2**14]},
    "lenet on 65536 x 65536": HONEST | {"model": "lenet", "args": {}, "input": [1, 65536, 65536]},
}


class Miser(TorchDispatchMode):
    """Gives no tensor of over a million values outside "meta", and notes who asked."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if "device" in kwargs and torch.device(kwargs["device"] or "cpu").type != "meta":
            size = args[0] if args and isinstance(args[0], list | tuple) else []
            if math.prod(size) > 1_000_000:
                self.refused.append(f"{func} of {size}")
                raise MemoryError
        return func(*args, **kwargs)


@pytest.mark.parametrize("case", HEADERS)
def test_a_hostile_header_is_refused_in_one_line_without_the_memory_it_asks_for(case):
    with Miser() as miser, pytest.raises(ArtifactError) as caught:
        unpack(with_header(HEADERS[case]))
    assert not miser.refused
    assert "\n" not in str(caught.value)


# --- models that are emptier than their file may say


@pytest.fixture(scope="module")
def empty() -> CompressedModel:
    """A model of two million zeros."""
    architecture = Architecture("mlp", {"hidden": [1400, 1400]}, (1, 1, 3), 2)
    plain = architecture.build()
    state = {name: torch.zeros_like(tensor) for name, tensor in plain.state_dict().items()}
    others = {name: tensor for name, tensor in state.items() if not name.endswith("weight")}
    return CompressedModel.of(plain, factorise(plain, "none"), architecture, weights=state, others=others)


def test_an_empty_model_is_padded_until_its_file_may_name_it(empty: CompressedModel):
    data = pack(empty)
    values = sum(tensor.numel() for tensor in empty.materialise().state_dict().values())
    assert values > FREE_WEIGHTS
    assert len(data) == -(-(values - FREE_WEIGHTS) // MOST_WEIGHTS_PER_BYTE)
    assert data.endswith(bytes(50))
    assert unpack(data).state_dict()["net.3.weight"].count_nonzero() == 0
    with pytest.raises(ArtifactError, match=f"{len(data) - 1} bytes names a model of {values} values"):
        unpack(sealed(data[9:-1]))


def test_annotating_leaves_a_file_long_enough_for_its_model(empty: CompressedModel):
    data = pack(empty)
    for facts in ({}, {"study": "x" * 30}, {"study": None}):
        again = annotated(annotated(data, {"study": "y" * 500}), facts)
        assert len(again) >= len(data)
        assert unpack(again).state_dict()["net.3.weight"].shape == (1400, 1400)


@pytest.mark.parametrize(
    "stored",
    [
        frame(bytes(1 << 24), states_size=False),
        frame(bytes(1 << 24), states_size=True),
        bytes([0xE0]) + (1 << 45).to_bytes(8, "little") + b"\x01\x00\x00",  # a frame that announces 32 TiB
        b"",
        b"\0",
        frame(b"[]", states_size=False)[:-1],
    ],
    ids=["a bomb", "a bomb with its size", "an announcement of 32 TiB", "empty", "a zero byte", "cut short"],
)
def test_a_hostile_zstd_stream_is_refused(stored):
    for version in (1, 2):
        with pytest.raises(ArtifactError):
            read_header(sealed(varint(len(stored) << 1 | 1) + stored, version))


def test_a_length_of_over_63_bits_is_refused():
    with pytest.raises(ArtifactError, match="63 bits"):
        read_header(sealed(b"\xff" * 20))
