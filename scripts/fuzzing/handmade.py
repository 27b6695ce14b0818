"""Files made by hand: any content behind a frame that holds, and all of format 1, which the package only reads."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable

import numpy as np
import zstandard
from numpy.typing import NDArray

from atmc_search.artifact import CompressedModel
from atmc_search.artifact.streams import Writer
from atmc_search.artifact.version1 import Mode
from atmc_search.compress import FORMS

Values = NDArray[np.float32]

FRAME = 9
"""Bytes of magic, version and checksum."""


def sealed(content: bytes, version: int = 2) -> bytes:
    """`content` behind a checksum that holds, as an attacker would write it."""
    return b"ATMC" + bytes([version]) + zlib.crc32(content).to_bytes(4, "little") + content


def headed(text: bytes, rest: bytes, version: int = 2) -> bytes:
    """The content of a file: a header of this text, and all behind it."""
    if version == 1:
        return stream(text) + rest
    writer = Writer()
    writer.header(text)
    return writer.getvalue() + rest


def frame(data: bytes, *, states_size: bool = False) -> bytes:
    """A zstd frame without magic, dictionary and checksum."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=states_size, write_checksum=0
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def varint(value: int) -> bytes:
    writer = Writer()
    writer.varint(value)
    return writer.getvalue()


# --- format 1


def stream(data: bytes) -> bytes:
    """By zstd where that is shorter, else as it is, behind its stored length × 2 + flag."""
    packed = frame(data)
    squeezed = len(packed) < len(data)
    stored = packed if squeezed else data
    return varint(len(stored) << 1 | squeezed) + stored


def floats(values: Values) -> bytes:
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    exact = np.array_equal(half.astype(np.float32).view(np.uint32), values.view(np.uint32))
    return bytes([2 if exact else 4]) + stream((half if exact else values.astype("<f4")).tobytes())


def tensor(flat: Values, mode: Mode) -> bytes:
    """A flat tensor in this mode, which must be able to hold it."""
    head, positions = bytes([mode]), np.flatnonzero(flat)
    if mode is Mode.EMPTY:
        return head
    if mode is Mode.RAW:
        return head + floats(flat)
    if mode.gaps:
        gaps = np.diff(positions, prepend=-1) - 1
        lengths = gaps // 255 + 1
        out = np.full(int(lengths.sum()), 255, dtype=np.uint8)
        out[np.cumsum(lengths) - 1] = gaps % 255
        head += stream(out.tobytes())
    else:
        head += stream(np.packbits(flat != 0).tobytes())
    if not mode.coded:
        return head + floats(flat[positions])
    codebook, codes = np.unique(flat[positions], return_inverse=True)
    head += bytes([len(codebook) - 1]) + floats(codebook)
    if not mode.packed:
        return head + stream(codes.astype(np.uint8).tobytes())
    width = (len(codebook) - 1).bit_length()
    bits = codes[:, None] >> np.arange(width - 1, -1, -1) & 1
    return head + stream(np.packbits(bits.astype(np.uint8)).tobytes())


def version1(model: CompressedModel, mode_of: Callable[[Values], Mode]) -> bytes:
    """A file of format 1; `mode_of` chooses the mode of each tensor, which is EMPTY where all is zero."""
    arch = model.architecture
    header = {"model": arch.name, "args": arch.args, "input": arch.input_shape, "classes": arch.classes}
    body = b""
    for layer in model.layers:
        body += bytes([FORMS.index(layer.form)]) + (b"" if layer.form == "dense" else varint(layer.rank))
        for name in layer.factor_shapes:
            flat = model.weights[name].numpy().reshape(-1)
            mode = mode_of(flat)
            body += tensor(flat, mode if flat.any() else Mode.EMPTY)
    for other in model.others.values():
        if other.is_floating_point():
            body += floats(other.numpy().reshape(-1))
        else:
            body += bytes(1) + stream(other.numpy().astype("<i8").tobytes())
    return sealed(headed(json.dumps({**model.meta, **header}).encode(), body, 1), 1)
