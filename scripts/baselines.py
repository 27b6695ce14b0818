"""Other ways to write a pruned matrix of few values, for scripts/bench_artifact.py: each a real codec, with decoder.

A codec maps a (rows, columns) float32 matrix of at most 256 distinct non-zeros to bytes, and bytes and shape back to
it. It is told a tensor's shape and the length of its bytes for nothing. To add one: two functions and a line in
`codecs`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Integers = NDArray[np.int64]
Shape = tuple[int, int]

_GAP_WIDTHS = range(3, 9)


class Codec(NamedTuple):
    encode: Callable[[Matrix], bytes]
    decode: Callable[[bytes, Shape], Matrix]


def codecs() -> dict[str, Codec]:
    """The baselines by name; DeepCABAC only where nncodec can be imported."""
    found = {
        "zstd fp32": Codec(_zstd_encode, _zstd_decode),
        "bitmap": Codec(_bitmap_encode, _bitmap_decode),
        "Deep Comp.": Codec(_deep_compression_encode, _deep_compression_decode),
    }
    try:
        _nncodec()
    except ImportError:
        return found
    return found | {"DeepCABAC": Codec(_cabac_encode, _cabac_decode)}


def codebook_bytes(values: Matrix) -> int:
    """What a tensor's distinct non-zeros take as floats: 2 bytes each where fp16 has them all, else 4."""
    codebook = np.unique(values[values != 0])
    return _width(codebook) * len(codebook)


def _zstd_encode(matrix: Matrix) -> bytes:
    return zstandard.ZstdCompressor(level=19).compress(matrix.tobytes())


def _zstd_decode(data: bytes, shape: Shape) -> Matrix:
    return np.frombuffer(zstandard.ZstdDecompressor().decompress(data), dtype=np.float32).reshape(shape)


def _bitmap_encode(matrix: Matrix) -> bytes:
    """A bit a position, then a code of fixed length a non-zero."""
    codebook, codes = _codes(matrix)
    if not len(codes):
        return b""
    bits = codes[:, None] >> np.arange(_code_bits(codebook) - 1, -1, -1) & 1
    packed = np.packbits(bits.astype(np.uint8)).tobytes()
    return _write_codebook(codebook) + np.packbits(matrix != 0).tobytes() + packed


def _bitmap_decode(data: bytes, shape: Shape) -> Matrix:
    flat = np.zeros(shape[0] * shape[1], dtype=np.float32)
    if data:
        codebook, rest = _read_codebook(data)
        length = (flat.size + 7) // 8
        positions = np.flatnonzero(_bits(rest[:length])[: flat.size])
        width = _code_bits(codebook)
        bits = _bits(rest[length:])[: len(positions) * width].reshape(len(positions), width).astype(np.int64)
        flat[positions] = codebook[bits @ (1 << np.arange(width - 1, -1, -1))]
    return flat.reshape(shape)


def _deep_compression_encode(matrix: Matrix) -> bytes:
    """Deep Compression (Han et al., arXiv 1510.00149, sect. 2 and 4): gaps of w bits, filler zeros, Huffman codes.

    Gaps and codes have a canonical Huffman table each; w is the best of 3 to 8.
    """
    codebook, codes = _codes(matrix)
    if not len(codes):
        return b""
    gaps = np.diff(np.flatnonzero(matrix), prepend=-1) - 1
    return _write_codebook(codebook) + min((_relative(gaps, codes, width) for width in _GAP_WIDTHS), key=len)


def _relative(gaps: Integers, codes: Integers, width: int) -> bytes:
    """Runs of 2^w zeros become a gap of 2^w − 1 and a filler zero, which is code 0 here; true codes follow it."""
    ends = np.cumsum(gaps // 2**width + 1) - 1
    steps = np.full(ends[-1] + 1, 2**width - 1)
    symbols = np.zeros(ends[-1] + 1, dtype=np.int64)
    steps[ends], symbols[ends] = gaps % 2**width, codes + 1
    head = bytes([width]) + len(steps).to_bytes(4, "little")
    return head + _huffman_encode(steps, 2**width) + _huffman_encode(symbols, int(codes.max()) + 2)


def _deep_compression_decode(data: bytes, shape: Shape) -> Matrix:
    flat = np.zeros(shape[0] * shape[1], dtype=np.float32)
    if data:
        codebook, rest = _read_codebook(data)
        count = int.from_bytes(rest[1:5], "little")
        steps, rest = _huffman_decode(rest[5:], 2 ** rest[0], count)
        symbols, _ = _huffman_decode(rest, len(codebook) + 1, count)
        flat[np.cumsum(steps + 1) - 1] = np.append(np.float32(0), codebook)[symbols]
    return flat.reshape(shape)


def _cabac_encode(matrix: Matrix) -> bytes:
    """DeepCABAC (Wiedemann et al., arXiv 1907.11900) as in the NNC standard's second edition, by nncodec.

    Integers are signed ranks in the codebook, zero being 0; the coder knows their range; rows of zeros are skipped
    where that is shorter; initial states and rates of the contexts are optimised.
    """
    codebook, _ = _codes(matrix)
    if not len(codebook):
        return b""
    grid, negative = _grid(codebook)
    ranks = (np.searchsorted(grid, matrix) - negative).astype(np.int32)
    empty = (~ranks.any(axis=1)).astype(np.int32)
    streams = []
    for skip in (0, 1):
        encoder = _nncodec().Encoder()
        encoder.initCtxModels(_UNARY, 1)
        encoder.encodeLayer(ranks, 0, 0, _PROFILE, 0, skip, empty, *_no_history(), len(grid), negative)
        streams.append(bytes(encoder.finish()))
    return _write_codebook(codebook) + min(streams, key=len)


def _cabac_decode(data: bytes, shape: Shape) -> Matrix:
    if not data:
        return np.zeros(shape, dtype=np.float32)
    codebook, rest = _read_codebook(data)
    grid, negative = _grid(codebook)
    ranks = np.zeros(shape, dtype=np.int32)
    decoder = _nncodec().Decoder()
    decoder.setStream(np.frombuffer(rest + bytes(8), dtype=np.uint8).copy())  # it reads ahead, and checks no end
    decoder.initCtxModels(_UNARY)
    decoder.decodeLayer(ranks, 0, 0, _PROFILE, 0, *_no_history(), len(grid), negative)
    decoder.finish()
    return grid[ranks + negative]


_UNARY, _PROFILE = 11, 1  # nncodec's default; the profile of the second edition, which knows codebooks


def _nncodec() -> Any:
    """Not at the top: it is no dependency."""
    return import_module("nncodec.extensions.deepCABAC")


def _no_history() -> tuple[object, NDArray[np.int8]]:
    return _nncodec().HdspMode.AlwaysOff, np.zeros(2, dtype=np.int8)


def _grid(codebook: Matrix) -> tuple[Matrix, int]:
    """The codebook with zero in its place, and the number of negative values."""
    negative = int((codebook < 0).sum())
    return np.insert(codebook, negative, np.float32(0)), negative


def _codes(matrix: Matrix) -> tuple[Matrix, Integers]:
    """The sorted distinct non-zeros, and each non-zero's place among them."""
    return np.unique(matrix[matrix != 0], return_inverse=True)


def _code_bits(codebook: Matrix) -> int:
    return (len(codebook) - 1).bit_length()


def _width(values: Matrix) -> int:
    """Bytes of a float that holds every one of the values exactly."""
    with np.errstate(over="ignore"):
        return 2 if np.array_equal(values.astype(np.float16).astype(np.float32), values) else 4


def _write_codebook(codebook: Matrix) -> bytes:
    width = _width(codebook)
    return bytes([width, len(codebook) - 1]) + codebook.astype(f"<f{width}").tobytes()


def _read_codebook(data: bytes) -> tuple[Matrix, bytes]:
    end = 2 + data[0] * (data[1] + 1)
    return np.frombuffer(data[2:end], dtype=f"<f{data[0]}").astype(np.float32), data[end:]


def _bits(data: bytes) -> NDArray[np.uint8]:
    return np.unpackbits(np.frombuffer(data, dtype=np.uint8))


def _huffman_encode(symbols: Integers, alphabet: int) -> bytes:
    """A canonical Huffman code: bits of a length, all lengths (0: unused), then the codes, in whole bytes each."""
    lengths = _huffman_lengths(np.bincount(symbols, minlength=alphabet))
    order, starts = _canonical(lengths)
    code = np.zeros(alphabet, dtype=np.int64)
    code[order] = starts >> 32 - lengths[order]
    width = int(lengths.max()).bit_length()
    table = np.packbits((lengths[:, None] >> np.arange(width - 1, -1, -1) & 1).astype(np.uint8)).tobytes()
    taken = lengths[symbols]
    left = np.repeat(np.cumsum(taken), taken) - np.arange(taken.sum()) - 1  # bits of its code that follow this one
    stream = np.packbits((np.repeat(code[symbols], taken) >> left & 1).astype(np.uint8)).tobytes()
    return bytes([width]) + table + stream


def _huffman_decode(data: bytes, alphabet: int, count: int) -> tuple[Integers, bytes]:
    """The first `count` symbols, and the bytes after them."""
    width = data[0]
    body = 1 + (alphabet * width + 7) // 8
    table = _bits(data[1:body])[: alphabet * width].reshape(alphabet, width).astype(np.int64)
    lengths = table @ (1 << np.arange(width - 1, -1, -1))
    order, starts = _canonical(lengths)
    # Which code would begin at every bit: then only jumps are left, one a symbol. Codes are at most 32 bits long.
    padded = np.frombuffer(data[body:] + bytes(5), dtype=np.uint8).astype(np.int64)
    words = sum(padded[i : len(padded) - 4 + i] << 8 * (4 - i) for i in range(5))
    windows = (np.asarray(words)[:, None] >> np.arange(8, 0, -1) & 0xFFFFFFFF).reshape(-1)
    ranks = np.searchsorted(starts, windows, side="right") - 1
    steps, at, visited = lengths[order][ranks].tolist(), 0, []
    for _ in range(count):
        visited.append(at)
        at += steps[at]
    return order[ranks[visited]], data[body + (at + 7) // 8 :]


def _huffman_lengths(counts: Integers) -> Integers:
    """Bits of each symbol's code; 0 where it does not occur, 1 where it is the only one."""
    lengths = np.zeros(len(counts), dtype=np.int64)
    heap = [(int(counts[symbol]), symbol, [symbol]) for symbol in np.flatnonzero(counts).tolist()]
    heapq.heapify(heap)
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
    while len(heap) > 1:
        (first, tie, some), (second, _, others) = heapq.heappop(heap), heapq.heappop(heap)
        lengths[some + others] += 1
        heapq.heappush(heap, (first + second, tie, some + others))
    return lengths


def _canonical(lengths: Integers) -> tuple[Integers, Integers]:
    """The symbols by length, then number, and where each one's code begins among words of 32 bits."""
    order = np.lexsort((np.arange(len(lengths)), lengths))
    order = order[lengths[order] > 0]
    spans = 1 << 32 - lengths[order]
    return order, np.cumsum(spans) - spans
