"""Mutations of a file's content, behind magic, version and checksum; the last is mended in most mutants."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atmc_search.artifact.streams import Reader, Writer

from .handmade import FRAME, headed, sealed
from .headers import edit, written

_SEALED = 0.95  # mutants whose checksum is mended; all others die there


@dataclass(frozen=True)
class Source:
    """A file to mutate."""

    version: int
    content: bytes

    def taken_apart(self) -> tuple[dict[str, Any], bytes]:
        """The header, and all behind it."""
        reader = Reader(self.content)
        header = json.loads(reader.stream(1 << 16) if self.version == 1 else reader.header(1 << 16))
        return header, reader.bytes_(reader.left)

    def with_header(self, text: bytes, rest: bytes) -> bytes:
        return headed(text, rest, self.version)


def _bit_flips(draw: random.Random, source: Source, others: Sequence[Source]) -> bytes:
    content = bytearray(source.content)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


def _byte_changes(draw: random.Random, source: Source, others: Sequence[Source]) -> bytes:
    content = bytearray(source.content)
    for _ in range(draw.choice((1, 1, 2, 8))):
        content[draw.randrange(len(content))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
    return bytes(content)


def _truncation(draw: random.Random, source: Source, others: Sequence[Source]) -> bytes:
    return source.content[: draw.randrange(len(source.content))]


def _insertion(draw: random.Random, source: Source, others: Sequence[Source]) -> bytes:
    at, some = draw.randrange(len(source.content) + 1), draw.randbytes(draw.choice((1, 2, 4, 40)))
    return source.content[:at] + draw.choice((some, bytes(len(some)), b"\xff" * len(some))) + source.content[at:]


def _deletion(draw: random.Random, source: Source, others: Sequence[Source]) -> bytes:
    at = draw.randrange(len(source.content))
    return source.content[:at] + source.content[at + draw.choice((1, 2, 4, 40)) :]


def _block_copy(draw: random.Random, source: Source, others: Sequence[Source]) -> bytes:
    content, length = bytearray(source.content), draw.choice((1, 4, 16, 64))
    begin, to = draw.randrange(len(content)), draw.randrange(len(content))
    content[to : to + length] = content[begin : begin + length]
    return bytes(content)


def _splice(draw: random.Random, source: Source, others: Sequence[Source]) -> bytes:
    """One file's header before another's tensors, or any two pieces."""
    other = draw.choice(others)
    if draw.random() < 0.5:
        header, _ = source.taken_apart()
        return source.with_header(json.dumps(header).encode(), other.taken_apart()[1])
    return source.content[: draw.randrange(len(source.content))] + other.content[draw.randrange(len(other.content)) :]


def _lengths(draw: random.Random, source: Source, others: Sequence[Source]) -> bytes:
    """The header's stored length, or that of the raw bytes (format 1: the first layer's form)."""
    reader, writer = Reader(source.content), Writer()
    length = reader.varint()
    if draw.random() < 0.3:
        writer.varint(_odd_length(draw, length))
        return writer.getvalue() + reader.bytes_(reader.left)
    begin = len(source.content) - reader.left + (length >> 1)
    reader = Reader(source.content[begin:])
    writer.varint(_odd_length(draw, reader.varint()))
    return source.content[:begin] + writer.getvalue() + reader.bytes_(reader.left)


def _odd_length(draw: random.Random, value: int) -> int:
    change = draw.choice((1, -1, 2, -2, 8, -8))
    return max(0, draw.choice((value + change, value ^ 1, 0, 1, 2 * value, 2 ** draw.randrange(70))))


def _header_edit(draw: random.Random, source: Source, others: Sequence[Source]) -> bytes:
    header, rest = source.taken_apart()
    for _ in range(draw.choice((1, 1, 2, 3))):
        edit(draw, header)
    text = written(header)
    if draw.random() < 0.1:
        text = draw.choice(
            (text[: draw.randrange(len(text))], text + text, text.replace(b"1", b"1e400"), b"\xff" + text)
        )
    return source.with_header(text, rest)


def _raw_bytes(draw: random.Random, source: Source, others: Sequence[Source]) -> bytes:
    """More or fewer raw bytes than the tensors take, their length being right."""
    header, rest = source.taken_apart()
    reader, writer = Reader(rest), Writer()
    if source.version == 1:
        return source.with_header(json.dumps(header).encode(), draw.randbytes(len(rest)))
    raw = reader.bytes_(reader.varint())
    raw = draw.choice((raw[: len(raw) // 2], raw + draw.randbytes(3), draw.randbytes(len(raw)), b""))
    writer.varint(len(raw))
    return source.with_header(json.dumps(header).encode(), writer.getvalue() + raw + reader.bytes_(reader.left))


def _random_code(draw: random.Random, source: Source, others: Sequence[Source]) -> bytes:
    """Random bytes for the code, from a random position on: every decision of the decoder in turn."""
    header, rest = source.taken_apart()
    at = draw.randrange(len(rest))
    code = draw.choice((draw.randbytes(len(rest) - at), draw.randbytes(draw.randrange(1, 400)), b"", b"\xff" * 64))
    return source.with_header(json.dumps(header).encode(), rest[:at] + code)


Mutation = Callable[[random.Random, Source, Sequence[Source]], bytes]
MUTATIONS: Mapping[str, Mutation] = {
    "bit flips": _bit_flips,
    "byte changes": _byte_changes,
    "truncation": _truncation,
    "insertion": _insertion,
    "deletion": _deletion,
    "block copy": _block_copy,
    "splice": _splice,
    "lengths": _lengths,
    "header edit": _header_edit,
    "raw bytes": _raw_bytes,
    "random code": _random_code,
}


def mutant(seed: int, index: int, sources: Sequence[Source], kind: str | None = None) -> tuple[str, bytes]:
    """Mutant number `index` of a seed: its kind of mutation, and the file."""
    draw = random.Random(f"{seed}:{index}")
    kind = kind or draw.choice(list(MUTATIONS))
    source = draw.choice(sources)
    content = MUTATIONS[kind](draw, source, sources)
    if draw.random() < 0.1:  # two in a row
        with contextlib.suppress(Exception):  # what is left may have no header to mutate
            content = draw.choice(list(MUTATIONS.values()))(draw, Source(source.version, content), sources)
    version = source.version if draw.random() < 0.97 else 3 - source.version
    data = bytearray(sealed(content, version))
    if draw.random() > _SEALED:
        data[draw.randrange(min(FRAME, len(data)))] ^= 1 << draw.randrange(8)
    return kind, bytes(data)


def sources_of(files: Sequence[bytes]) -> list[Source]:
    return [Source(data[4], data[FRAME:]) for data in files]
