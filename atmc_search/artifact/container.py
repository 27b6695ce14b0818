"""The file: magic, version, checksum, header, then every tensor in the order of the plain model's state.

Written down for others in docs/artifact-format.md. This version writes format 2 and reads 1 and 2. Names and shapes
are not stored: the architecture, built by name, has them.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from atmc_search.artifact import body, version1
from atmc_search.artifact.coding import Decoder
from atmc_search.artifact.folding import folded
from atmc_search.artifact.forms import smallest_forms
from atmc_search.artifact.model import Architecture, CompressedModel
from atmc_search.artifact.streams import Reader, Writer
from atmc_search.errors import ArtifactError, AtmcError, shown

MAGIC = b"ATMC"
VERSION = 2
MOST_WEIGHTS_PER_BYTE = 1 << 10
"""A file's model may have so many values for each of its bytes, and `FREE_WEIGHTS` beside: what bounds the memory that
a small file can ask for. A model that is emptier than that is padded."""
FREE_WEIGHTS = 1 << 20
BYTES_PER_STEP = 1 << 4
"""A file may take one step of decoding for so many of its bytes, and `FREE_STEPS` beside: what bounds the time that
thousands of tiny layers can ask for, a tenth of a millisecond a step. Real files take fewer; others are padded."""
FREE_STEPS = 1 << 15
MOST_ENTRIES = 1000
"""Of a list among a model's args: layers are built before their tensors are looked at."""

_MOST_HEADER = 1 << 16
_MOST_PIXELS = 1 << 24  # of one image: 2,360 x 2,360 in three colours
_FRAME = 9
_ARCHITECTURE = ("model", "args", "input", "classes")


@dataclass(frozen=True)
class Contents:
    """An artifact taken apart.

    Attributes:
        compressed: what was packed; its `meta` is the whole header.
        fresh: the plain model as it was built to know names and shapes, not yet filled.
        header_bytes: where the header ends and the tensors begin.
        parts: how each tensor is stored, by name, in the file's order.
    """

    compressed: CompressedModel
    fresh: nn.Module
    header_bytes: int
    parts: Mapping[str, body.Part]


def pack(model: CompressedModel) -> bytes:
    """The artifact of a compressed model.

    Raises:
        ArtifactError: a factor holds NaN or infinity, another tensor NaN, or `unpack` would refuse the model's args.
    """
    arch = model.architecture
    # What travels along comes first, so that it can displace nothing.
    header = {**model.meta, "model": arch.name, "args": arch.args, "input": arch.input_shape, "classes": arch.classes}
    raw, code, steps = body.write(model)
    writer = Writer()
    writer.varint(len(raw))
    writer.bytes_(raw)
    writer.bytes_(code)
    least = max(-(-(model.size - FREE_WEIGHTS) // MOST_WEIGHTS_PER_BYTE), BYTES_PER_STEP * (steps - FREE_STEPS))
    return _framed(header, writer.getvalue(), least)


def annotated(data: bytes, facts: Mapping[str, Any]) -> bytes:
    """An artifact of this version with more facts in its header; its tensors stay as they are, byte for byte.

    It grows no shorter, as the length bounds what a file may hold.

    Args:
        data: the bytes of the file.
        facts: to add: JSON-able, by key. They replace those of the same key, but never the architecture.

    Raises:
        ArtifactError: as `unpack`; a file of an earlier version; or a header that grows too long.
    """
    header, reader = _open(data)
    if data[4] != VERSION:
        raise ArtifactError(f"artifact has format version {data[4]} and cannot be annotated; pack the model anew")
    _architecture(header)
    kept = {key: header[key] for key in _ARCHITECTURE}
    body_bytes = reader.bytes_(reader.left)
    return _framed({**header, **facts, **kept}, body_bytes, len(data))


def repacked(data: bytes, *, allow_custom_models: bool = False) -> bytes:
    """The same model and header in this version's format, dead channels folded away, factors or their product.

    Its logits are those of the original to rounding, not to the bit: constants move into biases.

    Args:
        data: the bytes of a file of any version.
        allow_custom_models: see `unpack`.

    Raises:
        ArtifactError: as `unpack`.
    """
    found = read_contents(data, allow_custom_models=allow_custom_models).compressed
    meta = {key: value for key, value in found.meta.items() if key not in _ARCHITECTURE}
    smaller = pack(smallest_forms(folded(replace(found, meta=meta))))
    return smaller if len(smaller) < len(data) or data[4] != VERSION else data


def read_header(data: bytes) -> dict[str, Any]:
    """The header of an artifact whose checksum holds: model, args, input, classes, and what travels along.

    Raises:
        ArtifactError: not an artifact, of a later version, or damaged.
    """
    return _open(data)[0]


def unpack(data: bytes, *, allow_custom_models: bool = False) -> nn.Module:
    """The model that an artifact holds: on [0, 1] images, in eval mode, on the CPU.

    Args:
        data: the bytes of the file.
        allow_custom_models: whether to import a model named "package.module:attribute". Say yes only to files whose
            origin you trust: importing a module runs its code.

    Raises:
        ArtifactError: not an artifact, of a later version, damaged, or of a custom model that was not allowed.
    """
    contents = read_contents(data, allow_custom_models=allow_custom_models)
    return contents.compressed.fill(contents.fresh)


def read_contents(data: bytes, *, allow_custom_models: bool = False, measured: bool = False) -> Contents:
    """All tensors of an artifact; args and errors as `unpack`.

    Args:
        data: the bytes of the file.
        allow_custom_models: see `unpack`.
        measured: whether to count what each tensor takes, which `Contents.parts` then says; without it they are empty.
    """
    header, reader = _open(data)
    architecture = _architecture(header)
    if ":" in architecture.name and not allow_custom_models:
        raise ArtifactError(
            f"artifact names the custom model {architecture.name!r}, whose import runs code; "
            "if you trust the file, pass allow_custom_models=True"
        )
    begin = len(data) - reader.left
    try:
        plain = _build(architecture, len(data))
        expected = body.expectations(plain)
    except ArtifactError:
        raise
    except AtmcError as error:
        raise ArtifactError(f"artifact's architecture cannot be built here: {error}") from error
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise ArtifactError(f"artifact's architecture cannot be built here: {' '.join(str(error).split())}") from None
    if data[4] == 1:
        found = version1.read(reader, expected)
    else:
        raw = reader.bytes_(reader.varint())
        steps = math.inf if ":" in architecture.name else FREE_STEPS + len(data) // BYTES_PER_STEP
        decoder = Decoder(raw, reader.bytes_(reader.left), steps)
        found = body.read(decoder, expected, measured=measured)
        decoder.end()
    compressed = CompressedModel(architecture, tuple(found.layers), found.weights, found.others, header, expected.order)
    return Contents(compressed, plain, begin, found.parts)


def _framed(header: Mapping[str, Any], content: bytes, least: int) -> bytes:
    """A file of these parts; of a model of ours, padded to at least so many bytes."""
    _check_entries(header["model"], header["args"])
    try:
        text = json.dumps(header, separators=(",", ":")).encode()
    except RecursionError:
        raise ArtifactError("artifact's header is nested too deep to be written; do not trust its origin") from None
    if len(text) > _MOST_HEADER:
        raise ArtifactError(f"an artifact's header of {len(text)} bytes is over {_MOST_HEADER}; shorten model settings")
    writer = Writer()
    writer.header(text)
    content = writer.getvalue() + content
    if ":" not in header["model"]:
        # Zeros at the end of the code mean nothing to the decoder.
        content += bytes(max(0, least - _FRAME - len(content)))
    return MAGIC + bytes([VERSION]) + zlib.crc32(content).to_bytes(4, "little") + content


def _check_entries(name: str, args: Mapping[str, Any]) -> None:
    most = max((len(value) for value in args.values() if isinstance(value, list | tuple)), default=0)
    if ":" not in name and most > MOST_ENTRIES:
        raise ArtifactError(f"artifact's model has {most} entries in a setting, over {MOST_ENTRIES}; use fewer layers")


def _open(data: bytes) -> tuple[dict[str, Any], Reader]:
    if data[:4] != MAGIC:
        raise ArtifactError(
            f"not an artifact: starts with {shown(data[:4])}, not {MAGIC!r}; give a file that a run made"
        )
    if len(data) < _FRAME:
        raise ArtifactError(f"artifact ends early, after {len(data)} bytes; get it again")
    if not 1 <= data[4] <= VERSION:
        raise ArtifactError(
            f"artifact has format version {data[4]}, this release reads 1 to {VERSION}; update atmc-search"
        )
    if zlib.crc32(data[_FRAME:]).to_bytes(4, "little") != data[5:_FRAME]:
        raise ArtifactError("artifact's checksum does not match; it is damaged, get it again")
    reader = Reader(data[_FRAME:])
    try:
        text = reader.stream(_MOST_HEADER) if data[4] == 1 else reader.header(_MOST_HEADER)
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise ArtifactError("artifact's header is not JSON; it is damaged, get it again") from None
    if not isinstance(header, dict):
        raise ArtifactError("artifact's header is no mapping; it is damaged, get it again")
    return header, reader


def _architecture(header: dict[str, Any]) -> Architecture:
    name, args, shape, classes = (header.get(key) for key in _ARCHITECTURE)
    sizes = shape if isinstance(shape, list) and len(shape) == 3 else [0]
    whole = all(isinstance(size, int) and 0 < size <= 1 << 16 for size in [*sizes, classes])
    if not (isinstance(name, str) and isinstance(args, dict) and whole):
        raise ArtifactError("artifact's header does not describe a model; it is damaged, get it again")
    assert isinstance(classes, int)
    return Architecture(name, args, (sizes[0], sizes[1], sizes[2]), classes)


def _build(architecture: Architecture, length: int) -> nn.Module:
    """The model to fill. One of ours is built without values, and only if a file of this length may hold it."""
    if ":" in architecture.name:
        return architecture.build()
    _check_entries(architecture.name, architecture.args)
    pixels = math.prod(architecture.input_shape)
    if pixels > _MOST_PIXELS:
        raise ArtifactError(f"artifact's images of {pixels} values are over {_MOST_PIXELS}; do not trust its origin")
    with torch.device("meta"):  # shapes without memory
        model = architecture.build()
    state = model.state_dict()
    weights, most = sum(tensor.numel() for tensor in state.values()), MOST_WEIGHTS_PER_BYTE * length + FREE_WEIGHTS
    if weights > most:
        raise ArtifactError(
            f"artifact of {length} bytes names a model of {weights} values, over the {most} that so few bytes may "
            "stand for; do not trust its origin"
        )
    model = model.to_empty(device="cpu")
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):  # the one value that artifacts leave out
            tensor.zero_()
    return model
