"""Byte streams: variable-length integers, headers and zstd frames, with every length checked."""

from __future__ import annotations

from functools import cache

import zstandard

from atmc_search.errors import ArtifactError

_PARAMETERS = zstandard.ZstdCompressionParameters.from_level(
    19, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=0, write_checksum=0, write_dict_id=0
)

DICTIONARY = (
    b'"kernel","affine","widths":[,"hidden":[,"depth":16,"width":8,"channels":[,svhn,cifar100,cifar10,mnist,'
    b'image_folder,digits,fashion_mnist,"l2","autoattack","apgd_ce","fgsm","wrm","test","module:attribute",'
    b'"mobilenet_v2","wide_resnet","mlp","resnet18","resnet34","resnet50","resnet101","small_cnn","restarts":2'
    b'"bits":[4,3,2,5],"bits":8,"input":[3,32,32],"classes":100}"input":[1,8,8],"classes":10}'
    b'{"study":"fashion-lenet","trial":10,"data":"fashion_mnist","threat":["linf",0.03137254901960784],'
    b'"fingerprint":"0123456789ab","version":"0.1.0","torch":"2.15.0","bits":4,"measured":{"split":"validation",'
    b'"images":1000,"clean":876,"robust":543,"attack":{"name":"pgd","steps":20}},'
    b'"model":"lenet","args":{},"input":[1,28,28],"classes":10}'
)
"""What headers are likely to say, part of format 2 to the byte: a header then takes half the bytes."""


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

    def header(self, text: bytes) -> None:
        """`text` by zstd with the format's dictionary, or as it is, behind its stored length × 2 + flag."""
        packer = zstandard.ZstdCompressor(compression_params=_PARAMETERS, dict_data=_dictionary())
        self._stored(text, packer.compress(text))

    def _stored(self, data: bytes, packed: bytes) -> None:
        squeezed = len(packed) < len(data)
        self.varint(len(packed if squeezed else data) << 1 | squeezed)
        self._parts.append(packed if squeezed else data)

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

    def header(self, most: int) -> bytes:
        """What `Writer.header` wrote, refused when it would be longer than `most` bytes."""
        return self._stream(most, _dictionary())

    def stream(self, most: int) -> bytes:
        """Format 1's stream, zstd or not, refused when it would be longer than `most` bytes."""
        return self._stream(most, None)

    def _stream(self, most: int, dictionary: zstandard.ZstdCompressionDict | None) -> bytes:
        head = self.varint()
        stored = self.bytes_(head >> 1)
        if not head & 1:
            if len(stored) > most:
                raise ArtifactError(f"artifact holds a stream of {len(stored)} bytes where {most} can be; get it again")
            return stored
        decompressor = zstandard.ZstdDecompressor(dict_data=dictionary, format=zstandard.FORMAT_ZSTD1_MAGICLESS)
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


@cache
def _dictionary() -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(DICTIONARY, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
