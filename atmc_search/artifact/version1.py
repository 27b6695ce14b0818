"""Format 1, of the first releases, which is still read: every tensor a stream of its own.

    stream    header: JSON
    per compressed layer: 1 byte form; for forms with U and V the rank as varint; each factor's tensor
    per other tensor of the state dict, in order: floats, or for integers 1 byte 0 and a stream of int64

A tensor is a mode byte, then positions of non-zeros (bitmap, gaps, or implied) and values (codes into a codebook, or
floats).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atmc_search.artifact.body import Expectations, Found, Part, with_form
from atmc_search.artifact.streams import Reader
from atmc_search.compress import FORMS
from atmc_search.errors import ArtifactError

Values = NDArray[np.float32]

_INTEGERS = 0
_PLAIN_MODES = {0: "int64", 2: "fp16", 4: "fp32"}


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


def read(reader: Reader, expected: Expectations) -> Found:
    """The tensors of a file whose header has been read.

    Raises:
        ArtifactError: they do not fit the architecture.
    """
    found = Found()
    for plain in expected.layers.values():
        number = reader.bytes_(1)[0]
        if number >= len(FORMS):
            raise ArtifactError(f"artifact uses factor form {number}, unknown here; update atmc-search")
        layer = with_form(plain, number, reader.varint(), expected.model) if FORMS[number] != "dense" else plain
        found.layers.append(layer)
        for name, shape in layer.factor_shapes.items():
            left, mode, values = reader.left, *_tensor(reader, shape[0] * shape[1])
            if not np.isfinite(values).all():
                raise ArtifactError(f"artifact's {name} is not finite; do not trust its origin")
            found.weights[name] = torch.from_numpy(values).view(shape)
            found.parts[name] = Part(mode.name.lower(), 8 * (left - reader.left))
    for name, like in expected.others.items():
        left = reader.left
        width, found.others[name] = _other(reader, like)
        if bool(torch.isnan(found.others[name]).any()):
            raise ArtifactError(f"artifact's {name} holds NaN; do not trust its origin")
        found.parts[name] = Part(_PLAIN_MODES[width], 8 * (left - reader.left))
    reader.end()
    return found


def _tensor(reader: Reader, count: int) -> tuple[Mode, Values]:
    """The flat tensor of `count` values."""
    number = reader.bytes_(1)[0]
    try:
        mode = Mode(number)
    except ValueError:
        raise ArtifactError(f"artifact uses tensor mode {number}, unknown here; update atmc-search") from None
    if mode is Mode.EMPTY:
        return mode, np.zeros(count, dtype=np.float32)
    if mode is Mode.RAW:
        return mode, _floats(reader, count)[1]
    positions = _gaps(reader, count) if mode.gaps else _bitmap(reader, count)
    tensor = np.zeros(count, dtype=np.float32)
    tensor[positions] = _codes(reader, len(positions), mode) if mode.coded else _floats(reader, len(positions))[1]
    return mode, tensor


def _other(reader: Reader, like: Tensor) -> tuple[int, Tensor]:
    """A tensor that no constraint binds, and the bytes of a float, 0 for integers."""
    if like.is_floating_point():
        width, values = _floats(reader, like.numel())
        return width, torch.from_numpy(values).view(like.shape)
    if reader.bytes_(1)[0] != _INTEGERS:
        raise ArtifactError("artifact stores floats where the model has integers; it is damaged, get it again")
    data = reader.stream(8 * like.numel())
    _expect(len(data) == 8 * like.numel(), "integers")
    return 0, torch.from_numpy(np.frombuffer(data, dtype="<i8").astype(np.int64)).view(like.shape).to(like.dtype)


def _floats(reader: Reader, count: int) -> tuple[int, Values]:
    """`count` values, and the bytes of each."""
    width = reader.bytes_(1)[0]
    if width not in (2, 4):
        raise ArtifactError(f"artifact stores floats in {width} bytes, which is neither 2 nor 4; get it again")
    data = reader.stream(width * count)
    _expect(len(data) == width * count, "floats")
    return width, np.frombuffer(data, dtype=f"<f{width}").astype(np.float32)


def _width(codebook: int) -> int:
    """Bits of a fixed-length code for this many values."""
    return (codebook - 1).bit_length()


def _gaps(reader: Reader, count: int) -> NDArray[np.intp]:
    data = np.frombuffer(reader.stream(count + count // 255 + 1), dtype=np.uint8).astype(np.int64)
    _expect(len(data) > 0 and data[-1] < 255, "gaps")
    ends = np.cumsum(data)[data < 255]
    positions = ends + np.arange(len(ends))
    _expect(positions[-1] < count, "gaps")
    return positions


def _bitmap(reader: Reader, count: int) -> NDArray[np.intp]:
    data = np.frombuffer(reader.stream((count + 7) // 8), dtype=np.uint8)
    _expect(len(data) == (count + 7) // 8, "bitmap")
    positions = np.flatnonzero(np.unpackbits(data))
    _expect(len(positions) > 0 and positions[-1] < count, "bitmap")
    return positions


def _codes(reader: Reader, count: int, mode: Mode) -> Values:
    size = reader.bytes_(1)[0] + 1
    codebook = _floats(reader, size)[1]
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
