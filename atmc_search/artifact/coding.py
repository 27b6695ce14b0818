"""One tensor to bytes and back, bit for bit: the smallest of several simple modes.

Positions of non-zeros are a bitmap, gaps, or implied (every value stored). Values are codes into a codebook where at
most 256 differ, else floats. Floats are stored as fp16 where that loses nothing, else as fp32.
To add a mode: a value in `Mode`, a branch in `_encodings` and one in `decode`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atmc_search.artifact.streams import Reader, Writer
from atmc_search.errors import ArtifactError

Values = NDArray[np.float32]
_MOST_CODES = 256
_SMALL = 4096


class Mode(IntEnum):
    """How a tensor's positions and values are stored. Numbers are part of the format."""

    EMPTY = 0
    RAW = 1
    BITMAP_FLOATS = 2
    GAPS_FLOATS = 3
    BITMAP_PACKED = 4
    BITMAP_BYTES = 5
    GAPS_PACKED = 6
    GAPS_BYTES = 7

    @property
    def gaps(self) -> bool:
        return self in (Mode.GAPS_FLOATS, Mode.GAPS_PACKED, Mode.GAPS_BYTES)

    @property
    def packed(self) -> bool:
        return self in (Mode.BITMAP_PACKED, Mode.GAPS_PACKED)

    @property
    def coded(self) -> bool:
        return self >= Mode.BITMAP_PACKED


class Places(NamedTuple):
    """The encoded positions of a tensor's non-zeros: gaps or a bitmap."""

    gaps: bool
    data: bytes


def encode(tensor: Values, places: Places | None = None) -> bytes:
    """The shortest of all modes' encodings of a flat tensor.

    Args:
        tensor: (n,) finite.
        places: what `encode_places` gave for the same positions, if known; tensors that differ in values share it.

    Raises:
        ArtifactError: a value is not finite.
    """
    if not np.isfinite(tensor).all():
        raise ArtifactError("a tensor holds NaN or infinity and cannot be packed; the training diverged")
    return min(_encodings(tensor, places), key=len)


def encode_places(tensor: Values) -> Places:
    """Where a flat tensor's non-zeros are, in the shorter of two forms."""
    bitmap, gaps = Writer(), Writer()
    bitmap.stream(np.packbits(tensor != 0).tobytes())
    gaps.stream(_gap_bytes(np.flatnonzero(tensor)))
    return min((Places(False, bitmap.getvalue()), Places(True, gaps.getvalue())), key=lambda places: len(places.data))


def decode(reader: Reader, count: int) -> Values:
    """The flat tensor of `count` values that `encode` wrote."""
    number = reader.bytes_(1)[0]
    try:
        mode = Mode(number)
    except ValueError:
        raise ArtifactError(f"artifact uses tensor mode {number}, unknown here; update atmc-search") from None
    if mode is Mode.EMPTY:
        return np.zeros(count, dtype=np.float32)
    if mode is Mode.RAW:
        return read_floats(reader, count)
    positions = _read_gaps(reader, count) if mode.gaps else _read_bitmap(reader, count)
    tensor = np.zeros(count, dtype=np.float32)
    tensor[positions] = _read_codes(reader, len(positions), mode) if mode.coded else read_floats(reader, len(positions))
    return tensor


def write_floats(writer: Writer, values: Values) -> None:
    """Values as fp16 where every one is exactly representable, else as fp32, behind a byte that says which."""
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    exact = np.array_equal(half.astype(np.float32).view(np.uint32), values.view(np.uint32))
    writer.bytes_(bytes([2 if exact else 4]))
    writer.stream((half if exact else values.astype("<f4")).tobytes())


def read_floats(reader: Reader, count: int) -> Values:
    """`count` values that `write_floats` wrote."""
    width = reader.bytes_(1)[0]
    if width not in (2, 4):
        raise ArtifactError(f"artifact stores floats in {width} bytes, which is neither 2 nor 4; get it again")
    data = reader.stream(width * count)
    _expect(len(data) == width * count, "floats")
    return np.frombuffer(data, dtype=f"<f{width}").astype(np.float32)


def _encodings(tensor: Values, places: Places | None) -> Iterator[bytes]:
    positions = np.flatnonzero(tensor)
    if not len(positions):
        yield bytes([Mode.EMPTY])
        return
    if 2 * len(positions) >= len(tensor) or len(tensor) <= _SMALL:  # else positions and values are always shorter
        writer = Writer()
        write_floats(writer, tensor)
        yield bytes([Mode.RAW]) + writer.getvalue()

    values = tensor[positions]
    codebook, codes = np.unique(values, return_inverse=True)
    places = places or encode_places(tensor)
    if len(codebook) > _MOST_CODES:
        writer = Writer()
        write_floats(writer, values)
        yield bytes([Mode.GAPS_FLOATS if places.gaps else Mode.BITMAP_FLOATS]) + places.data + writer.getvalue()
        return
    for packed in (True, False):
        writer = Writer()
        writer.bytes_(bytes([len(codebook) - 1]))
        write_floats(writer, codebook)
        writer.stream(_pack_codes(codes, _width(len(codebook))) if packed else codes.astype(np.uint8).tobytes())
        if places.gaps:
            mode = Mode.GAPS_PACKED if packed else Mode.GAPS_BYTES
        else:
            mode = Mode.BITMAP_PACKED if packed else Mode.BITMAP_BYTES
        yield bytes([mode]) + places.data + writer.getvalue()


def _width(codebook: int) -> int:
    """Bits of a fixed-length code for this many values."""
    return (codebook - 1).bit_length()


def _gap_bytes(positions: NDArray[np.intp]) -> bytes:
    """Zeros skipped before each non-zero; 255 means 255 more zeros and the gap goes on."""
    gaps = np.diff(positions, prepend=-1) - 1
    lengths = gaps // 255 + 1
    out = np.full(int(lengths.sum()), 255, dtype=np.uint8)
    out[np.cumsum(lengths) - 1] = gaps % 255
    return out.tobytes()


def _read_gaps(reader: Reader, count: int) -> NDArray[np.intp]:
    data = np.frombuffer(reader.stream(count + count // 255 + 1), dtype=np.uint8).astype(np.int64)
    _expect(len(data) > 0 and data[-1] < 255, "gaps")
    ends = np.cumsum(data)[data < 255]
    positions = ends + np.arange(len(ends))
    _expect(positions[-1] < count, "gaps")
    return positions


def _read_bitmap(reader: Reader, count: int) -> NDArray[np.intp]:
    data = np.frombuffer(reader.stream((count + 7) // 8), dtype=np.uint8)
    _expect(len(data) == (count + 7) // 8, "bitmap")
    positions = np.flatnonzero(np.unpackbits(data))
    _expect(len(positions) > 0 and positions[-1] < count, "bitmap")
    return positions


def _pack_codes(codes: NDArray[np.intp], width: int) -> bytes:
    bits = codes[:, None] >> np.arange(width - 1, -1, -1) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def _read_codes(reader: Reader, count: int, mode: Mode) -> Values:
    size = reader.bytes_(1)[0] + 1
    codebook = read_floats(reader, size)
    if mode.packed:
        width = _width(size)
        length = (count * width + 7) // 8
        data = reader.stream(length)
        _expect(len(data) == length, "codes")
        bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))[: count * width].reshape(count, width)
        codes = bits.astype(np.int64) @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))
    else:
        data = reader.stream(count)
        _expect(len(data) == count, "codes")
        codes = np.frombuffer(data, dtype=np.uint8).astype(np.int64)
    _expect(bool((codes < size).all()), "codes")
    return codebook[codes]


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise ArtifactError(f"artifact's {what} do not fit its tensor; it is damaged, get it again")
