from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from atmc_search.artifact.coding import Mode, decode, encode, write_floats
from atmc_search.artifact.streams import Reader, Writer
from atmc_search.errors import ArtifactError

Values = NDArray[np.float32]
RNG = np.random.default_rng(0)


def scattered(size: int, positions: NDArray[np.int64] | list[int], values: NDArray[np.float64] | float) -> Values:
    tensor = np.zeros(size, np.float32)
    tensor[positions] = values
    return tensor


def some(share: float, size: int = 20_000) -> NDArray[np.int64]:
    return np.flatnonzero(RNG.random(size) < share)


def round_trip(tensor: Values) -> tuple[Mode, Values]:
    data = encode(tensor)
    reader = Reader(data)
    decoded = decode(reader, len(tensor))
    reader.end()
    return Mode(data[0]), decoded


def bits(tensor: Values) -> NDArray[np.uint32]:
    return tensor.view(np.uint32)


# Half of the positions: a bitmap of pure noise beats gaps. 1 %: gaps beat it. Codes drawn at random pack best at their
# own width; codes of a long period that no byte divides are squeezed best one to a byte.
HALF, FEW = some(0.5), some(0.01)
PERIOD = np.resize(RNG.integers(1, 6, 997), 20_000)
MODES: dict[Mode, Values] = {
    Mode.EMPTY: np.zeros(1000, np.float32),
    Mode.RAW: RNG.normal(size=1000).astype(np.float32),
    Mode.BITMAP_FLOATS: scattered(20_000, HALF, RNG.normal(size=len(HALF))),
    Mode.GAPS_FLOATS: scattered(100_000, np.flatnonzero(RNG.random(100_000) < 0.01)[:600], RNG.normal(size=600)),
    Mode.BITMAP_PACKED: scattered(20_000, HALF, RNG.integers(1, 9, len(HALF))),
    Mode.BITMAP_BYTES: scattered(20_000, HALF, PERIOD[: len(HALF)]),
    Mode.GAPS_PACKED: scattered(20_000, FEW, RNG.integers(1, 9, len(FEW))),
    Mode.GAPS_BYTES: scattered(200_000, np.sort(RNG.choice(200_000, 6000, replace=False)), PERIOD[:6000]),
}

# What a position or a value can look like at its edges.
CASES: dict[str, Values] = {
    "one value": np.array([1.5], np.float32),
    "one zero": np.zeros(1, np.float32),
    "minus zero only": np.full(9, -0.0, np.float32),
    "the last of many": scattered(100_001, [100_000], 0.1),
    "the first of many": scattered(100_001, [0], 0.1),
    **{f"gap of {gap}": scattered(gap + 2, [0, gap + 1], 1.0) for gap in (1, 254, 255, 256, 509, 510, 511, 765, 2550)},
    **{f"first gap of {gap}": scattered(gap + 5, [gap], 1.0) for gap in (254, 255, 256, 510, 65280)},
    "gaps of 255 in a row": scattered(2561, list(range(0, 2561, 256)), 1.0),
    "one distinct value": scattered(5000, some(0.3, 5000), -0.3),
    "one distinct value everywhere": np.full(777, 0.25, np.float32),
    **{
        f"{n} distinct values": np.resize(np.arange(1, n + 1) / 512, 3 * n).astype(np.float32) for n in (2, 3, 255, 256)
    },
    "257 distinct values": np.resize(np.arange(1, 258) / 512, 900).astype(np.float32),
    "256 values of full precision": scattered(9000, some(0.1, 9000)[:256], RNG.normal(size=256)),
    "fp16 exact": np.array([0.5, -65504, 2.0**-24, 2.0**-14], np.float32),
    "over fp16's range": np.array([65520, 1e38], np.float32),
    "under fp16's range": np.array([2.0**-25, 1e-40, -1e-45], np.float32),
    "fp32 denormals, sparse": scattered(4000, [7, 3999], 1e-45),
    "opposite signs": np.array([1, -1, 0, 1, -1], np.float32),
}


@pytest.mark.parametrize("mode", Mode)
def test_every_mode_is_chosen_where_it_is_shortest_and_gives_back_the_tensor(mode):
    chosen, decoded = round_trip(MODES[mode])
    assert chosen is mode
    assert np.array_equal(bits(decoded), bits(MODES[mode]))


@pytest.mark.parametrize("name", CASES)
def test_edges_come_back_to_the_bit(name):
    _, decoded = round_trip(CASES[name])
    assert decoded.dtype == np.float32
    # Adding zero takes the sign off a zero, the one bit that a position that is not stored cannot keep.
    assert np.array_equal(bits(decoded + np.float32(0)), bits(CASES[name] + np.float32(0)))


@st.composite
def tensors(draw: st.DrawFn) -> Values:
    """Flat tensors from dense to almost empty, over alphabets from one value to all of float32."""
    size = draw(st.integers(1, 2000))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    alphabet = draw(
        st.one_of(
            npst.arrays(np.float32, st.integers(1, 300), elements=finite),
            st.integers(1, 600).map(lambda n: (np.arange(n) - n // 2).astype(np.float32) / 256),
            st.integers(1, 600).map(lambda n: rng.normal(size=n).astype(np.float32)),
        )
    )
    keep = rng.random(size) < draw(st.sampled_from([0.0, 0.001, 0.03, 0.2, 0.5, 0.95, 1.0]))
    keep[-1] |= draw(st.booleans())
    return np.where(keep, rng.choice(alphabet, size), np.float32(0)).astype(np.float32)


@given(tensors())
@example(np.array([-0.0, 1.0], np.float32))
@settings(max_examples=150, deadline=None)
def test_any_finite_tensor_comes_back_to_the_bit(tensor):
    _, decoded = round_trip(tensor)
    assert np.array_equal(bits(decoded + np.float32(0)), bits(tensor + np.float32(0)))


@given(tensors())
@settings(max_examples=60, deadline=None)
def test_no_tensor_costs_more_than_its_raw_values(tensor):
    assert len(encode(tensor)) <= 4 * len(tensor) + 8


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(value):
    with pytest.raises(ArtifactError, match="NaN or infinity"):
        encode(scattered(100, [40], value))


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.EMPTY])
@pytest.mark.parametrize("count", [1, 8, 500])
def test_a_tensor_of_another_size_is_refused(mode, count):
    with pytest.raises(ArtifactError):
        decode(Reader(encode(MODES[mode])), count)


def test_an_unknown_mode_is_refused_with_the_remedy():
    with pytest.raises(ArtifactError, match=r"tensor mode 8, unknown here; update"):
        decode(Reader(bytes([8])), 4)


@pytest.mark.parametrize(
    ("gaps", "fits"),
    [([9], True), ([255, 0], False), ([0, 8], True), ([10], False), ([0, 9], False), ([], False), ([255], False)],
    ids=str,
)
def test_gaps_that_leave_the_tensor_or_end_in_the_middle_are_refused(gaps, fits):
    writer = Writer()
    writer.bytes_(bytes([Mode.GAPS_FLOATS]))
    writer.stream(bytes(gaps))
    write_floats(writer, np.ones(len(gaps), np.float32))
    with nullcontext() if fits else pytest.raises(ArtifactError, match="gaps do not fit"):
        assert np.count_nonzero(decode(Reader(writer.getvalue()), 10)) == len(gaps)


def test_a_last_gap_that_goes_on_is_refused():
    writer = Writer()
    writer.bytes_(bytes([Mode.GAPS_FLOATS]))
    writer.stream(bytes([3, 255]))
    write_floats(writer, np.ones(1, np.float32))
    with pytest.raises(ArtifactError, match="gaps do not fit"):
        decode(Reader(writer.getvalue()), 1000)


@pytest.mark.parametrize(("byte", "fits"), [(0b10100000, True), (0b10110000, False), (0, False)])
def test_a_bitmap_that_leaves_the_tensor_or_is_empty_is_refused(byte, fits):
    writer = Writer()
    writer.bytes_(bytes([Mode.BITMAP_FLOATS]))
    writer.stream(bytes([byte]))
    write_floats(writer, np.ones(byte.bit_count(), np.float32))
    with nullcontext() if fits else pytest.raises(ArtifactError, match="bitmap do not fit"):
        assert decode(Reader(writer.getvalue()), 3).tolist() == [1, 0, 1]
