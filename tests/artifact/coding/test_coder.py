"""Three directions of one coder, and a second decoder that was written from the document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Reference, cumulated

from atmc_search.artifact.coding import Coder, Decoder, Encoder, Meter
from atmc_search.artifact.coding.fixed import ONE
from atmc_search.errors import ArtifactError

Step = Callable[[Coder, bool], Any]
"""One thing to code: `step(coder, known)` codes it, and says what was coded."""


@st.composite
def steps(draw: st.DrawFn) -> tuple[Any, Step]:
    """What is coded, and how."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(0, 40))
    kind = draw(st.sampled_from(["bits", "symbols", "uniform", "raw", "number", "choice"]))
    if kind == "bits":
        p = np.where(rng.random(size) < 0.3, rng.choice([1, 2, ONE - 2, ONE - 1], size), rng.integers(1, ONE, size))
        bits = rng.random(size) * ONE < p if draw(st.booleans()) else rng.random(size) < 0.5
        return bits, lambda coder, known: coder.bits(p, bits if known else None)
    if kind == "symbols":
        counts = rng.integers(1, draw(st.sampled_from([2, 50, 2**40])), draw(st.integers(2, 40)))
        found = rng.integers(0, len(counts), size)
        return found, lambda coder, known: coder.symbols(counts, found if known else None, size)
    if kind == "uniform":
        choices = draw(st.integers(2, 300) | st.sampled_from([2**15, 2**16 - 1, 2**16]))
        found = rng.integers(0, choices, size)
        return found, lambda coder, known: coder.uniform(choices, found if known else None, size)
    if kind == "raw":
        data = rng.bytes(size)
        return data, lambda coder, known: coder.raw(data if known else None, size)
    if kind == "number":
        number = draw(st.integers(0, 2**40 - 1))
        return number, lambda coder, known: coder.number(number if known else None)
    choices = draw(st.integers(2, 1000))
    chosen = draw(st.integers(0, choices - 1))
    return chosen, lambda coder, known: coder.choice(choices, chosen if known else None)


def same(found: object, expected: object) -> bool:
    return np.array_equal(found, expected) if isinstance(expected, np.ndarray) else found == expected


@given(st.lists(steps(), max_size=12), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_any_program_is_decoded_by_both_decoders_and_metered(program, zeros):
    encoder, counter = Encoder(), Meter()
    writer = Meter(encoder)
    for expected, step in program:
        assert same(step(writer, True), expected)
        assert same(step(counter, True), expected)
    raw, code = encoder.getvalue()
    assert not code.endswith(b"\0")
    assert writer.total == counter.total
    decoder, reference = Decoder(raw, code + bytes(zeros)), Reference(raw, code)
    reader = Meter(decoder)
    for expected, step in program:
        assert same(step(reader, False), expected)
        assert same(step(reference, False), expected)
    decoder.end()
    assert reader.total == writer.total
    assert 8 * len(raw + code) <= 1.001 * counter.total + 64


def test_what_is_metered_is_what_is_written():
    encoder, counter = Encoder(), Meter()
    for coder in (Meter(encoder), counter):
        state = np.random.default_rng(1)
        for _ in range(50):
            p = state.integers(1, ONE, 1000)
            coder.bits(p, state.random(1000) * ONE < p)
            counts = state.integers(1, 1000, 30)
            coder.symbols(counts, state.choice(30, 500, p=counts / counts.sum()), 500)
            coder.uniform(37, state.integers(0, 37, 300), 300)
            coder.raw(state.bytes(7), 7)
    length = 8 * sum(map(len, encoder.getvalue()))
    assert abs(length - counter.total) <= 64 + 0.001 * counter.total


def test_nothing_is_no_bytes():
    assert Encoder().getvalue() == (b"", b"")
    Decoder(b"", b"").end()


@pytest.mark.parametrize("counts", [[1, 1], [1] * 3000, [2**45, 1, 1], [1, 2**45], [3] * 7, list(range(1, 400))])
def test_every_symbol_has_an_interval_and_both_decoders_agree_on_it(counts):
    edges = cumulated(counts)
    assert (edges[0], edges[-1]) == (0, 2**24)
    assert (np.diff(edges) > 0).all()
    found = np.unique(np.linspace(0, len(counts) - 1, 50).astype(int))
    encoder = Encoder()
    encoder.symbols(np.array(counts), found, len(found))
    assert (Decoder(*encoder.getvalue()).symbols(np.array(counts), None, len(found)) == found).all()
    assert (Reference(*encoder.getvalue()).symbols(np.array(counts), None, len(found)) == found).all()


@pytest.mark.parametrize("number", [0, 1, 2, 3, 65535, 65536, 2**17 - 1, 2**39, 2**40 - 1])
def test_a_number_takes_six_bits_and_those_below_its_leading_one(number):
    meter = Meter()
    assert meter.number(number) == number
    assert meter.total == 6 + max(0, number.bit_length() - 1)


def test_a_number_of_over_40_bits_is_refused():
    for length in range(64):
        encoder = Encoder()
        encoder.choice(64, length)
        for width in [16] * ((max(0, length - 1)) // 16) + [max(0, length - 1) % 16 or 1]:
            encoder.uniform(1 << width, np.zeros(1, dtype=int), 1)
        if length > 40:
            with pytest.raises(ArtifactError, match=f"number of {length} bits"):
                Decoder(*encoder.getvalue()).number(None)
        else:
            assert Decoder(*encoder.getvalue()).number(None).bit_length() == length


def test_raw_bytes_that_are_missing_or_too_many_are_refused():
    decoder = Decoder(b"abc", b"")
    assert decoder.raw(None, 2) == b"ab"
    with pytest.raises(ArtifactError, match="2 raw bytes announced, 1 left"):
        decoder.raw(None, 2)
    with pytest.raises(ArtifactError, match="longer than its tensors"):
        decoder.end()


def test_a_code_that_goes_on_is_refused():
    encoder = Encoder()
    encoder.uniform(1 << 16, np.arange(50), 50)
    raw, code = encoder.getvalue()
    decoder = Decoder(raw, code)
    decoder.uniform(1 << 16, None, 20)
    with pytest.raises(ArtifactError, match="longer than its tensors"):
        decoder.end()


def test_a_code_that_no_encoder_writes_is_refused_or_decoded():
    """With 2^24 no multiple of the range, the very last code points stand for no symbol."""
    decoder = Decoder(b"", b"\xff" * 400)
    with pytest.raises(ArtifactError, match="no code"):
        decoder.bits(np.full(100_000, ONE - 1), None)
