"""The file: magic, version, checksum, header, then every tensor in the order of the architecture.

    4 bytes   "ATMC"
    1 byte    format version, 1
    4 bytes   CRC-32 of all that follows, little endian
    stream    header: JSON of model, args, input, classes and what travels along
    per compressed layer: 1 byte form; for forms with U and V the rank as varint; each factor's tensor (coding.py)
    per other tensor of the state dict, in order: floats, or for integers 1 byte 0 and a stream of int64

Names and shapes are not stored: the architecture, built by name, has them.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atmc_search.artifact import coding
from atmc_search.artifact.model import Architecture, CompressedModel, other_tensors
from atmc_search.artifact.streams import Reader, Writer
from atmc_search.compress import FORMS, FactorisedLayer, factorisable, layers_to_compress
from atmc_search.errors import ArtifactError, AtmcError, shown

MAGIC = b"ATMC"
VERSION = 1
_MOST_HEADER = 1 << 16
# A file of 100 bytes can name a model that fills any memory. 2^28 weights are 1 GiB, twelve times a ResNet-34; 2^24
# values are an image of 2,360 x 2,360 in three colours. Custom models are trusted, and exempt.
_MOST_WEIGHTS = 1 << 28
_MOST_PIXELS = 1 << 24
_INTEGERS = 0
_ARCHITECTURE = ("model", "args", "input", "classes")


def pack(model: CompressedModel) -> bytes:
    """The artifact of a compressed model.

    Raises:
        ArtifactError: a factor holds NaN or infinity, another tensor NaN, or `unpack` would refuse the model's size.
    """
    arch = model.architecture
    # What travels along comes first, so that it can displace nothing.
    header = {**model.meta, "model": arch.name, "args": arch.args, "input": arch.input_shape, "classes": arch.classes}
    text = json.dumps(header, separators=(",", ":")).encode()
    if len(text) > _MOST_HEADER:
        raise ArtifactError(f"an artifact's header of {len(text)} bytes is over {_MOST_HEADER}; shorten model settings")
    dense = sum(layer.rows * layer.columns for layer in model.layers)
    _check_size(arch, dense + sum(tensor.numel() for tensor in model.others.values()))
    writer = Writer()
    writer.stream(text)
    for layer in model.layers:
        writer.bytes_(bytes([FORMS.index(layer.form)]))
        if layer.form != "dense":
            writer.varint(layer.rank)
        for name in layer.factor_shapes:
            writer.bytes_(coding.encode(_flat(model.weights[name])))
    for name, tensor in model.others.items():
        if bool(torch.isnan(tensor).any()):  # infinity may stand in a mask
            raise ArtifactError(f"tensor {name!r} holds NaN and cannot be packed; the training diverged")
        if tensor.is_floating_point():
            coding.write_floats(writer, _flat(tensor))
        else:
            writer.bytes_(bytes([_INTEGERS]))
            writer.stream(tensor.to(torch.int64).numpy().astype("<i8").tobytes())
    content = writer.getvalue()
    return MAGIC + bytes([VERSION]) + zlib.crc32(content).to_bytes(4, "little") + content


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


@dataclass(frozen=True)
class Contents:
    """An artifact taken apart.

    Attributes:
        compressed: what was packed; its `meta` is the whole header.
        fresh: the plain model as it was built to know names and shapes, not yet filled.
        header_bytes: where the header ends and the first layer begins.
        spans: where each tensor lies in the file, (start, end), by name, in the file's order.
    """

    compressed: CompressedModel
    fresh: nn.Module
    header_bytes: int
    spans: Mapping[str, tuple[int, int]]


def read_contents(data: bytes, *, allow_custom_models: bool = False) -> Contents:
    """All tensors of an artifact, and where they lie; args and errors as `unpack`."""
    header, reader = _open(data)
    architecture = _architecture(header)
    if ":" in architecture.name and not allow_custom_models:
        raise ArtifactError(
            f"artifact names the custom model {architecture.name!r}, whose import runs code; "
            "if you trust the file, pass allow_custom_models=True"
        )
    try:
        if ":" not in architecture.name:
            _check_size(architecture, 0)
            with torch.device("meta"):  # shapes without memory
                outline = architecture.build()
            _check_size(architecture, sum(tensor.numel() for tensor in outline.state_dict().values()))
        plain = architecture.build()
        expected = layers_to_compress(plain)
    except ArtifactError:
        raise
    except AtmcError as error:
        raise ArtifactError(f"artifact's architecture cannot be built here: {error}") from error
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise ArtifactError(f"artifact's architecture cannot be built here: {' '.join(str(error).split())}") from None
    begin = len(data) - reader.left
    layers: list[FactorisedLayer] = []
    weights: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    spans: dict[str, tuple[int, int]] = {}
    for found in expected:
        layer = _read_layer(reader, found, plain)
        layers.append(layer)
        for name, shape in layer.factor_shapes.items():
            start = len(data) - reader.left
            weights[name] = torch.from_numpy(coding.decode(reader, shape[0] * shape[1])).view(shape)
            spans[name] = start, len(data) - reader.left
    for name, tensor in other_tensors(plain, layers).items():
        start = len(data) - reader.left
        others[name] = _read_other(reader, tensor)
        spans[name] = start, len(data) - reader.left
    reader.end()
    return Contents(CompressedModel(architecture, tuple(layers), weights, others, header), plain, begin, spans)


def _open(data: bytes) -> tuple[dict[str, Any], Reader]:
    if data[:4] != MAGIC:
        raise ArtifactError(
            f"not an artifact: starts with {shown(data[:4])}, not {MAGIC!r}; give a file that a run made"
        )
    if len(data) < 9:
        raise ArtifactError(f"artifact ends early, after {len(data)} bytes; get it again")
    if data[4] != VERSION:
        raise ArtifactError(f"artifact has format version {data[4]}, this release reads {VERSION}; update atmc-search")
    if zlib.crc32(data[9:]).to_bytes(4, "little") != data[5:9]:
        raise ArtifactError("artifact's checksum does not match; it is damaged, get it again")
    reader = Reader(data[9:])
    try:
        header = json.loads(reader.stream(_MOST_HEADER))
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


def _check_size(architecture: Architecture, weights: int) -> None:
    if ":" in architecture.name:
        return
    pixels = math.prod(architecture.input_shape)
    if pixels > _MOST_PIXELS or weights > _MOST_WEIGHTS:
        raise ArtifactError(
            f"artifact's model of {weights} weights on images of {pixels} values is over the limits of {_MOST_WEIGHTS} "
            f"and {_MOST_PIXELS}; do not trust its origin, or give the model as 'package.module:attribute'"
        )


def _read_layer(reader: Reader, found: FactorisedLayer, model: nn.Module) -> FactorisedLayer:
    number = reader.bytes_(1)[0]
    if number >= len(FORMS):
        raise ArtifactError(f"artifact uses factor form {number}, unknown here; update atmc-search")
    form = FORMS[number]
    if form == "dense":
        return FactorisedLayer(found.module, found.shape, form, found.transposed)
    rank = reader.varint()
    limit = min(found.rows, found.columns)
    # The identity has the smaller side: (rows, rows) on the left of V, (columns, columns) on the right of U.
    side = {"identity_left": found.rows, "identity_right": found.columns}.get(form, rank)
    if not 0 < rank <= limit or rank != side or not factorisable(model, found):
        raise ArtifactError(f"artifact's rank {rank} does not fit layer {found.module!r}; it is damaged, get it again")
    return FactorisedLayer(found.module, found.shape, form, found.transposed, rank)


def _read_other(reader: Reader, like: Tensor) -> Tensor:
    if like.is_floating_point():
        return torch.from_numpy(coding.read_floats(reader, like.numel())).view(like.shape)
    if reader.bytes_(1)[0] != _INTEGERS:
        raise ArtifactError("artifact stores floats where the model has integers; it is damaged, get it again")
    data = reader.stream(8 * like.numel())
    if len(data) != 8 * like.numel():
        raise ArtifactError("artifact's integers do not fit their tensor; it is damaged, get it again")
    return torch.from_numpy(np.frombuffer(data, dtype="<i8").astype(np.int64)).view(like.shape).to(like.dtype)


def _flat(tensor: Tensor) -> coding.Values:
    return tensor.detach().float().reshape(-1).contiguous().numpy()
