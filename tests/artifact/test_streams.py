from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmc_search.artifact.streams import Reader, Writer
from atmc_search.errors import ArtifactError

NOISE = bytes((i * i * 7 + i // 3) % 251 for i in range(40))
STREAMS = {"as it is": NOISE, "by zstd": bytes(5000), "empty": b""}


@given(st.lists(st.integers(0, 2**63 - 1) | st.binary(max_size=300), max_size=8))
def test_what_is_written_is_read(items):
    writer = Writer()
    for item in items:
        if isinstance(item, int):
            writer.varint(item)
        else:
            writer.stream(item)
    reader = Reader(writer.getvalue())
    assert [reader.varint() if isinstance(item, int) else reader.stream(300) for item in items] == items
    reader.end()


@pytest.mark.parametrize(("value", "length"), [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (2**63 - 1, 9)])
def test_an_integer_takes_a_byte_for_every_seven_bits(value, length):
    writer = Writer()
    writer.varint(value)
    assert len(writer.getvalue()) == length


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_as_long_as_it_may_be_and_no_longer(name):
    data = STREAMS[name]
    writer = Writer()
    writer.stream(data)
    assert len(writer.getvalue()) <= len(data) + 1
    for room in (0, 1, 7000):
        assert Reader(writer.getvalue()).stream(len(data) + room) == data
    for most in {0, len(data) // 2, len(data) - 1} & set(range(len(data))):
        with pytest.raises(ArtifactError):
            Reader(writer.getvalue()).stream(most)


def test_every_length_is_checked():
    with pytest.raises(ArtifactError, match="3 more bytes announced, 2 left"):
        Reader(b"ab").bytes_(3)
    with pytest.raises(ArtifactError, match="ends early"):
        Reader(b"\x80").varint()
    with pytest.raises(ArtifactError, match="1 bytes too many"):
        Reader(b"a").end()
