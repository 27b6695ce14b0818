from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from atmc_search.artifact.streams import DICTIONARY, Reader, Writer
from atmc_search.errors import ArtifactError

HEADERS = {
    "likely": b'{"study":"a","trial":1,"model":"lenet","args":{},"input":[1,28,28],"classes":10}',
    "unlikely": bytes((i * i * 7 + i // 3) % 251 for i in range(40)),
    "long": b"ab" * 3000,
    "empty": b"",
}


@given(st.lists(st.integers(0, 2**63 - 1) | st.binary(max_size=300), max_size=8))
def test_what_is_written_is_read(items):
    writer = Writer()
    for item in items:
        if isinstance(item, int):
            writer.varint(item)
        else:
            writer.header(item)
    reader = Reader(writer.getvalue())
    assert [reader.varint() if isinstance(item, int) else reader.header(300) for item in items] == items
    reader.end()


@pytest.mark.parametrize(("value", "length"), [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (2**63 - 1, 9)])
def test_an_integer_takes_a_byte_for_every_seven_bits(value, length):
    writer = Writer()
    writer.varint(value)
    assert len(writer.getvalue()) == length


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_as_long_as_it_may_be_and_no_longer(name):
    data = HEADERS[name]
    writer = Writer()
    writer.header(data)
    assert len(writer.getvalue()) <= len(data) + 1
    for room in (0, 1, 7000):
        assert Reader(writer.getvalue()).header(len(data) + room) == data
    for most in {0, len(data) // 2, len(data) - 1} & set(range(len(data))):
        with pytest.raises(ArtifactError):
            Reader(writer.getvalue()).header(most)


def test_a_likely_header_takes_less_than_half_its_bytes():
    writer = Writer()
    writer.header(HEADERS["likely"])
    assert len(writer.getvalue()) < 0.5 * len(HEADERS["likely"])


def test_the_document_lists_the_dictionary():
    text = (Path(__file__).parents[2] / "docs" / "artifact-format.md").read_text(encoding="utf-8")
    listed = text.split("raw-content dictionary")[1].split("```")[1]
    assert listed.replace("\n", "").encode() == DICTIONARY
    assert f"these {len(DICTIONARY)} ASCII" in text


def test_the_dictionary_is_part_of_the_format():
    """Another one would be another format: files of today's could not be read any more."""
    assert hashlib.sha256(DICTIONARY).hexdigest() == "51c1356322cb0746f8c2c9b81f9aac0b909cb62c942a5db8e8ab589cc1f63fa2"


@pytest.mark.parametrize("data", [b"", b"\0" * 5000, HEADERS["unlikely"]], ids=["empty", "by zstd", "as it is"])
def test_a_stream_of_format_1_is_read(data):
    """Without a dictionary, and with any length that is allowed."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=0, write_checksum=0
    )
    packed = zstandard.ZstdCompressor(compression_params=parameters).compress(data)
    writer = Writer()
    squeezed = len(packed) < len(data)
    writer.varint(len(packed if squeezed else data) << 1 | squeezed)
    writer.bytes_(packed if squeezed else data)
    reader = Reader(writer.getvalue())
    assert reader.stream(len(data)) == data
    reader.end()
    if data:
        with pytest.raises(ArtifactError):
            Reader(writer.getvalue()).stream(len(data) - 1)


def test_every_length_is_checked():
    with pytest.raises(ArtifactError, match="3 more bytes announced, 2 left"):
        Reader(b"ab").bytes_(3)
    with pytest.raises(ArtifactError, match="ends early"):
        Reader(b"\x80").varint()
    with pytest.raises(ArtifactError, match="1 bytes too many"):
        Reader(b"a").end()
