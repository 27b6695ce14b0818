"""Byte streams: variable-length integers and zstd frames, written and read with every length checked."""

from __future__ import annotations

import zstandard

from atmc_search.errors import ArtifactError

_HARDEST = 19
_LONG = 1 << 22
_FAST = 9


def _parameters(length: int) -> zstandard.ZstdCompressionParameters:
    # Level 19 takes 0.2 to 0.5 s a MB. It saves a sixth of a bitmap, and nothing of the weights of 32 bits that longer
    # streams are.
    level = _HARDEST if length <= _LONG else _FAST
    return zstandard.ZstdCompressionParameters.from_level(
        level, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=0, write_checksum=0
    )


class Writer:
    """Appends integers and streams to a buffer."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def bytes_(self, data: bytes) -> None:
        self._parts.append(data)

    def varint(self, value: int) -> None:
        """LEB128: seven bits a byte, lowest first."""
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
        self._parts.append(bytes(out))

    def stream(self, data: bytes) -> None:
        """`data` by zstd where that is shorter, else as it is, behind its stored length × 2 + flag."""
        packed = zstandard.ZstdCompressor(compression_params=_parameters(len(data))).compress(data)
        squeezed = len(packed) < len(data)
        stored = packed if squeezed else data
        self.varint(len(stored) << 1 | squeezed)
        self._parts.append(stored)

    def getvalue(self) -> bytes:
        return b"".join(self._parts)


class Reader:
    """Takes apart what `Writer` wrote; whatever does not fit raises `ArtifactError`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self._at

    def bytes_(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise ArtifactError(
                f"artifact ends early: {count} more bytes announced, {len(self._data) - self._at} left; get it again"
            )
        chunk = self._data[self._at : self._at + count]
        self._at += count
        return chunk

    def varint(self) -> int:
        value = 0
        for shift in range(0, 63, 7):
            byte = self.bytes_(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ArtifactError("artifact holds a length of more than 63 bits; it is damaged, get it again")

    def stream(self, most: int) -> bytes:
        """The next stream, refused when it would be longer than `most` bytes."""
        head = self.varint()
        stored = self.bytes_(head >> 1)
        if not head & 1:
            if len(stored) > most:
                raise ArtifactError(f"artifact holds a stream of {len(stored)} bytes where {most} can be; get it again")
            return stored
        decompressor = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS)
        try:
            # A frame that states its content's size is given that much memory, whatever max_output_size says.
            # `Writer` never states it.
            frame = zstandard.get_frame_parameters(stored, format=zstandard.FORMAT_ZSTD1_MAGICLESS)
            if frame.content_size != zstandard.CONTENTSIZE_UNKNOWN:
                raise ArtifactError("artifact holds a zstd stream that states its size; it is damaged, get it again")
            # One byte of room more than allowed: zstd reads 0 as "no limit".
            data = decompressor.decompress(stored, max_output_size=most + 1)
        except zstandard.ZstdError as error:
            raise ArtifactError(f"artifact holds a damaged zstd stream ({error}); get it again") from None
        if len(data) > most:
            raise ArtifactError(f"artifact holds a stream of more than the {most} bytes there can be; get it again")
        return data

    def end(self) -> None:
        if self._at != len(self._data):
            raise ArtifactError(f"artifact has {len(self._data) - self._at} bytes too many; get it again")
