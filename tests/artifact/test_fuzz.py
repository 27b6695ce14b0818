"""`scripts/fuzz_artifact.py` in small: damaged and hostile files give a model or an `ArtifactError`, nothing else."""

from __future__ import annotations

import math
import sys
import warnings

import numpy as np
import pytest
from files import sealed, with_header  # before `fuzzing`, which it makes importable
from fuzzing.bombs import hostile
from fuzzing.corpus import OWN, compressed, first_format
from fuzzing.mutations import MUTATIONS, mutant, sources_of
from fuzzing.verdict import NEVER, Fault, verdict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atmc_search.artifact import Architecture, CompressedModel, annotated, pack, read_header, unpack
from atmc_search.artifact import container as limits
from atmc_search.artifact.coding import Encoder, Kind, Plan
from atmc_search.artifact.coding.coder import Decoder
from atmc_search.compress import layers_to_compress
from atmc_search.errors import ArtifactError

HONEST = {"model": "mlp", "args": {"hidden": [3]}, "input": [1, 2, 3], "classes": 2}


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """One model of ours in every form, and one with every kind of tensor, in both formats."""
    chosen = [("mlp", {"hidden": [3]}, (1, 2, 3), form, 0.5, 3) for form in ("none", "uvc", "uvc_plain", "low_rank")]
    chosen += [("mlp", {"hidden": [9, 4]}, (1, 2, 3), "none", 1.0, 32), (OWN, {}, (1, 8, 8), "uvc", 0.2, 32)]
    models = [compressed(*each) for each in chosen]
    return [pack(model) for model in models] + [first_format(model, i) for i, model in enumerate(models)]


def test_what_is_mutated_is_read_when_left_alone(files):
    assert [verdict(data) for data in files] == [""] * len(files)


@pytest.mark.parametrize("kind", MUTATIONS)
def test_every_mutant_gives_a_model_or_is_refused(files, kind):
    sources = sources_of(files)
    for index in range(20):
        verdict(mutant(7, index, sources, kind)[1])


def test_a_mutant_is_always_the_same(files):
    sources = sources_of(files)
    assert [mutant(3, i, sources) for i in range(30)] == [mutant(3, i, sources) for i in range(30)]


@pytest.mark.parametrize("fault", [ValueError("x"), BaseException("a panic"), UserWarning("x"), ArtifactError("")])
def test_the_fuzzer_reports_what_it_looks_for(files, monkeypatch, fault):
    def broken(data, **_):
        if isinstance(fault, Warning):
            warnings.warn(fault, stacklevel=1)
        else:
            raise fault

    monkeypatch.setattr("fuzzing.verdict.describe", broken)
    with pytest.raises(Fault):
        verdict(files[0])


@given(content=st.binary(max_size=200), version=st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None)
def test_any_bytes_behind_a_valid_frame_are_refused_or_read(content, version):
    verdict(sealed(content, version))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(changes=st.dictionaries(st.sampled_from(["model", "args", "input", "classes", "x"]), JSON, max_size=3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_header_is_refused_or_read(changes):
    verdict(with_header(HONEST | changes))


@given(rest=st.binary(max_size=120))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_after_an_honest_header_are_refused_or_read(rest):
    verdict(with_header(HONEST, b"\0" + rest))


# --- what was found


@pytest.mark.parametrize("key", HONEST)
def test_a_header_that_describes_no_model_cannot_be_annotated(key):
    for header in ({k: v for k, v in HONEST.items() if k != key}, HONEST | {key: None}, HONEST | {key: 3.5}):
        with pytest.raises(ArtifactError, match="does not describe a model"):
            annotated(with_header(header), {"x": 1})


def test_facts_nested_too_deep_cannot_be_written(files):
    deep: list[object] = []
    for _ in range(20_000):
        deep = [deep]
    try:
        with pytest.raises(ArtifactError, match="nested too deep"):
            annotated(files[0], {"x": deep})
    finally:
        while deep:  # from outside in: freeing it at once is a recursion of C
            deep = deep.pop()  # type: ignore[assignment]


def test_a_file_at_its_limit_stays_readable_with_fewer_facts():
    architecture = Architecture("mlp", {"hidden": [1500]}, (1, 1, 4000), 2)
    plain = architecture.build()
    state = plain.state_dict()
    layers = layers_to_compress(plain)
    zeros = {layer.weight: state[layer.weight] * 0 for layer in layers}
    others = {name: t * 0 for name, t in state.items() if name not in zeros}
    data = pack(CompressedModel.of(plain, layers, architecture, weights=zeros, others=others, meta={"x": "long" * 50}))
    assert len(data) == math.ceil((sum(t.numel() for t in state.values()) - (1 << 20)) / 1024)
    assert unpack(annotated(data, {"x": 0})).state_dict().keys() == state.keys()


def test_a_model_of_thousands_of_layers_is_refused_before_it_is_built(monkeypatch):
    monkeypatch.setattr(Architecture, "build", lambda *_: pytest.fail("built"))
    header = HONEST | {"args": {"hidden": [1] * (limits.MOST_ENTRIES + 1)}}
    with pytest.raises(ArtifactError, match="1001 entries in a setting"):
        unpack(with_header(header))


def test_no_model_is_packed_that_has_more_layers_than_are_read():
    architecture = Architecture("mlp", {"hidden": [1] * (limits.MOST_ENTRIES + 1)}, (1, 1, 1), 2)
    with pytest.raises(ArtifactError, match="1001 entries in a setting"):
        pack(CompressedModel(architecture, (), {}, {}, {}, ()))


def one(shape):
    """The first entry alone."""
    matrix = np.zeros(shape, dtype=np.float32)
    matrix[0, 0] = 1
    return matrix


def test_steps_are_bounded_by_the_files_length_and_padding_buys_more(monkeypatch):
    monkeypatch.setattr(limits, "FREE_STEPS", 100)
    header = {"model": "mlp", "args": {"hidden": [1, 128]}, "input": [1, 1, 128], "classes": 1}
    data = hostile(header, "plain", Plan(Kind.FLOATS, kernel=(1, 128)), one, 0)
    with pytest.raises(ArtifactError, match="steps to decode"):
        unpack(data)
    unpack(sealed(data[9:] + bytes(100_000)))


def test_a_model_of_many_steps_is_padded_until_it_can_be_read(monkeypatch):
    model = compressed("mlp", {"hidden": [8, 8]}, (1, 4, 4), "uvc", 0.3, 3)
    plain = pack(model)
    monkeypatch.setattr(limits, "FREE_STEPS", 10)
    padded = pack(model)
    assert len(padded) > len(plain)
    unpack(padded)
    with pytest.raises(ArtifactError, match="steps to decode"):
        unpack(sealed(padded[9:-16]))


def test_encoder_and_decoder_count_the_same_steps():
    encoder = Encoder()
    encoder.bits(np.array([9, 60_000]), np.array([True, False]))
    encoder.bits(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool))
    encoder.symbols(np.array([1, 2]), np.array([1]), 1)
    encoder.raw(b"ab", 2)
    encoder.number(300)
    assert encoder.steps == 6

    def decode(most: int) -> None:
        decoder = Decoder(*encoder.getvalue(), most)
        decoder.bits(np.array([9, 60_000]), None)
        decoder.bits(np.zeros(0, dtype=np.int64), None)
        decoder.symbols(np.array([1, 2]), None, 1)
        decoder.raw(None, 2)
        assert decoder.number(None) == 300
        decoder.end()

    decode(6)
    with pytest.raises(ArtifactError, match="more than the 5 steps"):
        decode(5)


def test_the_header_alone_never_imports_what_it_names():
    for name in NEVER:
        data = with_header(HONEST | {"model": f"{name}:x"})
        assert read_header(data)["model"] == f"{name}:x"
        with pytest.raises(ArtifactError, match="allow_custom_models"):
            unpack(data)
        assert name not in sys.modules
