"""Feeds damaged and hostile artifacts to the decoder: each must give a model or an `ArtifactError`, and nothing else.

    python scripts/fuzz_artifact.py --count 100000         # mutants of small artifacts of both formats
    python scripts/fuzz_artifact.py --bombs                # the costliest files that are accepted: time, memory
    python scripts/fuzz_artifact.py --atheris --seconds 600    # guided by coverage; needs the package atheris

A mutant is a finding where it raises anything but an `ArtifactError`, warns, imports what it names, holds NaN, takes
longer than `--hang` seconds, or is read one way by `unpack` and another by `describe`. Findings are saved with their
traceback, and the exit code is then 1. Mutant i of a seed is always the same; `--first i --count 1` repeats it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import zstandard
from torch import nn


def _instrumented() -> contextlib.AbstractContextManager[Any]:
    """What the package is imported in: atheris counts branches only of modules that it saw being imported."""
    if __name__ != "__main__" or "--atheris" not in sys.argv:
        return contextlib.nullcontext()
    try:
        import atheris
    except ImportError:
        sys.exit("--atheris: package atheris is not installed; pip install atheris, or leave the flag out")
    instrumented: contextlib.AbstractContextManager[Any] = atheris.instrument_imports(include=["atmc_search.artifact"])
    return instrumented


with _instrumented():
    from atmc_search.artifact import Architecture, CompressedModel, annotated, describe, pack, read_header, unpack
    from atmc_search.artifact.body import expectations, kernel_of
    from atmc_search.artifact.coding import Encoder, Kind, Margins, Plan, code_tensor, margins
    from atmc_search.artifact.streams import Reader, Writer
    from atmc_search.compress import FORMS, Codebook, FactorisedLayer, GlobalL0, constrained_weights, factorise
    from atmc_search.errors import ArtifactError, AtmcError

OWN = "fuzz_artifact:every_kind"
"""The one model outside the package that is allowed: its code is this file's."""
NEVER = ("this", "antigravity", "fuzz_trap")
"""Modules that mutants name and nothing imports."""

_FRAME = 9
_SEALED = 0.95  # mutants whose checksum is mended; all others die there
_TRACED = 16  # every so many mutants are decoded under tracemalloc, which makes them slower
_ROOM = 4 << 30  # bytes of address space that the child may take beyond what its imports do


# --- the corpus


def every_kind(*, classes: int) -> nn.Module:
    """Batch norm with and without parameters, a grouped and a transposed convolution, integers, an infinite mask."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.BatchNorm2d(4, affine=False),
        nn.ConvTranspose2d(4, 3, 2, stride=2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12, classes),
    )
    net.register_buffer("order", torch.arange(classes))
    net.register_buffer("mask", torch.tensor([-float("inf")] + [0.0] * (classes - 1)))
    return net


def compressed(
    name: str, args: Mapping[str, Any], shape: tuple[int, int, int], factors: Any, keep: float, bits: int
) -> CompressedModel:
    """A model with random weights on an ℓ0 budget and codebooks; 32 bits: no codebook."""
    architecture = Architecture(name, dict(args), shape, 4)
    model = architecture.build([0.3] * shape[0], [0.2] * shape[0], seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if "running" in key or key.endswith("bias"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    ranks = {layer.weight: min(layer.rows, layer.columns) // 2 for layer in expectations(model).layers.values()}
    layers = factorise(model, factors, ranks)
    weights = {
        key: weight + 0.1 * torch.randn(weight.shape, generator=generator)
        for key, weight in constrained_weights(model, layers).items()
    }
    chosen, _ = GlobalL0(round(keep * sum(layer.rows * layer.columns for layer in layers))).project(weights, None)
    if bits < 32:
        codebook = Codebook(bits)
        chosen, _ = codebook.project(chosen, codebook.init(chosen))
    facts = {"threat": ["linf", 0.1], "study": "größer", "trial": 3, "nothing": None}
    return CompressedModel.of(model.eval(), layers, architecture, weights=chosen, meta=facts)


def corpus() -> list[bytes]:
    """Small artifacts of both formats: all forms of factors, codebooks and floats, empty, sparse and full tensors."""
    models: list[Any] = [
        ("mlp", {"hidden": [3]}, (1, 2, 3)),
        ("mlp", {"hidden": [40, 7]}, (3, 5, 2)),
        ("mlp", {"hidden": []}, (1, 4, 4)),
        ("small_cnn", {"width": 3}, (1, 8, 8)),
        (OWN, {}, (1, 8, 8)),
    ]
    settings: list[Any] = [
        ("none", 0.2, 3),
        ("none", 1.0, 32),
        ("uvc", 0.1, 2),
        ("uvc", 0.5, 32),
        ("uvc_plain", 0.2, 1),
        ("low_rank", 0.3, 8),
        ("low_rank", 0.02, 32),
    ]
    chosen = [(*model, *setting) for model in models for setting in settings]
    chosen.append(("wide_resnet", {"depth": 10, "widen_factor": 1}, (1, 8, 8), "uvc", 0.02, 3))
    chosen.append(("lenet", {}, (1, 16, 16), "none", 0.02, 4))
    made = [compressed(*each) for each in chosen]
    return [pack(model) for model in made] + [first_format(model, i) for i, model in enumerate(made)]


def first_format(model: CompressedModel, choice: int) -> bytes:
    """A file of format 1, which the package only reads; `choice` varies the modes of its tensors."""
    writer, arch = Writer(), model.architecture
    header = {"model": arch.name, "args": arch.args, "input": arch.input_shape, "classes": arch.classes}
    stream(writer, json.dumps({**model.meta, **header}).encode())
    for layer in model.layers:
        writer.bytes_(bytes([FORMS.index(layer.form)]))
        if layer.form != "dense":
            writer.varint(layer.rank)
        for name in layer.factor_shapes:
            choice += 1
            _first_format_tensor(writer, model.weights[name].numpy().ravel(), choice)
    for tensor in model.others.values():
        if tensor.is_floating_point():
            _first_format_floats(writer, tensor.float().numpy().ravel())
        else:
            writer.bytes_(b"\0")
            stream(writer, tensor.numpy().astype("<i8").tobytes())
    return sealed(1, writer.getvalue())


def stream(writer: Writer, data: bytes) -> None:
    """Format 1's stream: zstd, or as it is where that is shorter."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=0, write_checksum=0, write_dict_id=0
    )
    packed = zstandard.ZstdCompressor(compression_params=parameters).compress(data)
    squeezed = len(packed) < len(data)
    writer.varint(len(packed if squeezed else data) << 1 | squeezed)
    writer.bytes_(packed if squeezed else data)


def _first_format_floats(writer: Writer, values: np.ndarray[Any, Any]) -> None:
    half = values.astype("<f2")
    exact = np.array_equal(half.astype(np.float32), values)
    writer.bytes_(bytes([2 if exact else 4]))
    stream(writer, (half if exact else values.astype("<f4")).tobytes())


def _first_format_tensor(writer: Writer, values: np.ndarray[Any, Any], choice: int) -> None:
    """Modes: 0 empty, 1 raw, 2 and 3 floats, 4 to 7 codes, in bits or bytes; positions as bitmap or gaps."""
    positions = np.flatnonzero(values)
    book, codes = np.unique(values[positions], return_inverse=True)
    gaps = bool(choice & 1)
    if not len(positions):
        writer.bytes_(b"\0")
        return
    if choice % 5 == 0:
        writer.bytes_(b"\1")
        _first_format_floats(writer, values)
        return
    coded, packed = len(book) <= 256, bool(choice & 2)
    writer.bytes_(bytes([2 + gaps if not coded else 4 + 2 * gaps + (not packed)]))
    if gaps:
        steps = np.diff(positions, prepend=-1) - 1
        stream(writer, b"".join(b"\xff" * (step // 255) + bytes([step % 255]) for step in steps.tolist()))
    else:
        stream(writer, np.packbits(values != 0).tobytes())
    if not coded:
        _first_format_floats(writer, values[positions])
        return
    writer.bytes_(bytes([len(book) - 1]))
    _first_format_floats(writer, book)
    width = (len(book) - 1).bit_length()
    bits = codes[:, None] >> np.arange(width - 1, -1, -1) & 1
    stream(writer, np.packbits(bits.astype(np.uint8)).tobytes() if packed else codes.astype(np.uint8).tobytes())


def sealed(version: int, content: bytes) -> bytes:
    """`content` behind a checksum that holds, as an attacker would write it."""
    return b"ATMC" + bytes([version]) + zlib.crc32(content).to_bytes(4, "little") + content


# --- mutations: of a file's content, behind magic, version and checksum


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
        writer = Writer()
        if self.version == 1:
            stream(writer, text)
        else:
            writer.header(text)
        return writer.getvalue() + rest


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


_NAMES = (
    *("mlp", "lenet", "small_cnn", "wide_resnet", "resnet9000", "", ":", "a:", ":a", "MLP", "os:system", "this:s"),
    *("antigravity:x", "fuzz_trap:Net", "builtins:exec", "atmc_search.api:load_artifact", "..:x", "a\n:b", "\ud800:x"),
)
_NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    64,
    255,
    1000,
    65_535,
    65_536,
    1 << 20,
    1 << 31,
    1 << 62,
    1 << 63,
    1 << 64,
    -(1 << 63),
    1 << 200,
)
_ODD: tuple[Any, ...] = (
    *(None, True, False, 1.5, 1e308, float("nan"), float("inf"), "", "1", [], {}, [[]], {"a": 1}, [None], "\ud800\n\0"),
    *([3, 2.5, 3], [1, 2], [[3]], [-3], [0], [10_000_000, 10_000_000], [True, 8, 8]),
)
_KEYS = (
    *("model", "args", "input", "classes", "hidden", "width", "depth", "widen_factor", "dropout", "input_shape", "x"),
    *("threat", "study", "version", "seed", "self", "__class__", ""),
)


def _header_edit(draw: random.Random, source: Source, others: Sequence[Source]) -> bytes:
    header, rest = source.taken_apart()
    for _ in range(draw.choice((1, 1, 2, 3))):
        _edit(draw, header)
    text = json.dumps(header).encode()
    for depth in map(int, re.findall(rb'"nested ([0-9]+)"', text)):  # deeper than `json` itself would write
        text = text.replace(b'"nested %d"' % depth, b"[" * depth + b"1" + b"]" * depth)
    if draw.random() < 0.1:
        text = draw.choice(
            (text[: draw.randrange(len(text))], text + text, text.replace(b"1", b"1e400"), b"\xff" + text)
        )
    return source.with_header(text, rest)


def _edit(draw: random.Random, header: dict[str, Any]) -> None:
    """One change of a header, in place."""
    kind = draw.randrange(8)
    if kind == 0:
        header["model"] = draw.choice(_NAMES)
    elif kind == 1:
        args = header.get("args")
        if isinstance(args, dict):
            args[draw.choice(_KEYS)] = draw.choice((draw.choice(_NUMBERS), draw.choice(_ODD), [draw.choice(_NUMBERS)]))
    elif kind == 2:
        header["input"] = [draw.choice((1, 3, 8, 16, 32, *_NUMBERS)) for _ in range(draw.choice((3, 3, 3, 2, 4)))]
    elif kind == 3:
        header["classes"] = draw.choice((draw.choice(_NUMBERS), draw.choice(_ODD)))
    elif kind == 4:
        header[draw.choice(_KEYS)] = draw.choice((draw.choice(_ODD), draw.choice(_NUMBERS)))
    elif kind == 5:
        header.pop(draw.choice(list(header)), None) if header else None
    elif kind == 6:  # many layers; and deeper than the parser's limit, or the writer's
        header["args"] = {"hidden": [draw.choice((1, 2, 128))] * draw.choice((10, 300, 3000, 30_000))}
        header["model"] = "mlp"
    else:
        header[draw.choice(_KEYS)] = f"nested {draw.choice((5, 100, 480, 900, 960, 985, 990, 995, 20_000))}"


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
    data = bytearray(sealed(version, content))
    if draw.random() > _SEALED:
        data[draw.randrange(min(_FRAME, len(data)))] ^= 1 << draw.randrange(8)
    return kind, bytes(data)


def sources_of(files: Sequence[bytes]) -> list[Source]:
    return [Source(data[4], data[_FRAME:]) for data in files]


# --- one file


class Fault(Exception):
    """Something that a reader of hostile files must not do."""


def verdict(data: bytes) -> str:
    """Reads a file in every way: "" where it is accepted, else why it is refused.

    Raises:
        Fault: one way raised what it must not, or two do not agree.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        header = _refused_or(lambda: read_header(data))
        allow = isinstance(header, dict) and header.get("model") == OWN
        model = _refused_or(lambda: unpack(data, allow_custom_models=allow))
        found = ""
        if not isinstance(model, str) or zlib.crc32(data) % 4 == 0:  # it refuses by the same code, and takes as long
            found = _refused_or(lambda: describe(data, allow_custom_models=allow))
        noted = _refused_or(lambda: annotated(data, {"note": 1}))
        if isinstance(noted, bytes):
            _expect(read_header(noted) == {**read_header(data), "note": 1} or _has_nan(header), "annotated loses facts")
    _expect(not set(NEVER) & set(sys.modules), "a module that the file names was imported")
    if isinstance(model, str):
        _expect(isinstance(found, str), f"unpack refuses what describe reads: {model}")
        return model
    _expect(not isinstance(found, str), f"describe refuses what unpack reads: {found}")
    _expect(isinstance(header, dict), f"read_header refuses what unpack reads: {header}")
    _expect(not any(module.training for module in model.modules()), "a model in training mode")
    _expect(not any(bool(tensor.isnan().any()) for tensor in _filled(model)), "a model that holds NaN")
    return ""


def _filled(model: nn.Module) -> Iterator[torch.Tensor]:
    """The tensors as they are stored; a product of factors may overflow to NaN by itself."""
    for module in model.modules():
        for name, tensor in module.state_dict(keep_vars=True).items():
            if "." not in name and name != "weight":
                yield tensor


def _refused_or(read: Callable[[], Any]) -> Any:
    """What `read` returns, or the text of its `ArtifactError`."""
    try:
        return read()
    except ArtifactError as error:
        _expect(bool(str(error)) and "\n" not in str(error), f"a message of several lines: {error}")
        return str(error)
    except (KeyboardInterrupt, Hang):
        raise
    except BaseException as error:  # a panic of a Rust extension is no Exception
        raise Fault(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def _has_nan(header: Any) -> bool:
    return "NaN" in json.dumps(header)


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise Fault(what)


def announced(data: bytes) -> int:
    """Values of the model that the header names; 0 where it names none that can be built."""
    with contextlib.suppress(AtmcError, KeyError, TypeError, ValueError, RuntimeError, OverflowError):
        header = read_header(data)
        name, shape = header["model"], tuple(header["input"])
        outside = name != OWN and ":" in name
        if (
            outside
            or len(shape) != 3
            or not all(0 < side <= 1 << 16 for side in shape)
            or len(str(header["args"])) > 1 << 12
        ):
            return 0
        with torch.device("meta"):
            model = Architecture(name, header["args"], shape, header["classes"]).build()
        return sum(tensor.numel() for tensor in model.state_dict().values())
    return 0


class Hang(Exception):
    """A file took too long."""


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise Hang(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# --- many files


@dataclass
class Ledger:
    """What came of all mutants."""

    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    accepted: collections.Counter[str] = field(default_factory=collections.Counter)
    reasons: collections.Counter[str] = field(default_factory=collections.Counter)
    findings: dict[str, list[int]] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, -1)
    peaks: list[tuple[int, int]] = field(default_factory=list)  # (values announced, bytes that NumPy took at most)

    def line(self, count: int, wall: float) -> str:
        return f"{count:,} mutants in {wall:.0f} s: {sum(self.accepted.values()):,} accepted, {self.total:,} findings"

    @property
    def total(self) -> int:
        return sum(map(len, self.findings.values()))

    def show(self, wall: float) -> None:
        count = sum(self.kinds.values())
        print(self.line(count, wall))
        for kind, n in sorted(self.kinds.items()):
            print(f"  {kind:14} {n:8,}  accepted {self.accepted[kind]:7,}")
        print("refused, by reason")
        for reason, n in self.reasons.most_common(40):
            print(f"  {n:8,}  {reason}")
        print(f"slowest: {self.slowest[0]:.2f} s, mutant {self.slowest[1]}")
        if self.peaks:
            base = max((peak for values, peak in self.peaks if values <= 1 << 12), default=0)
            more = max(((peak - base) / values for values, peak in self.peaks if values > 1 << 16), default=0.0)
            most = max(peak for _, peak in self.peaks)
            print(f"under tracemalloc: {len(self.peaks):,}; at most {most:,} bytes of NumPy and Python at once;")
            print(f"  {base:,} where up to 4,096 values are announced, {more:.1f} a value more where over 65,536 are")
        print(f"resident at most: {most_resident():,.0f} MiB")
        print(f"findings: {self.total}")
        for what, indices in self.findings.items():
            print(f"  {len(indices):,} × {what}; mutants {indices[:5]}")


def fuzz(seed: int, first: int, count: int, seconds: float, hang: int, folder: Path) -> Ledger:
    """Reads `count` mutants, or as many as `seconds` suffice for; what is found is saved in `folder`."""
    sources, ledger, began = sources_of(corpus()), Ledger(), time.perf_counter()
    for source in sources:  # the first of each costs caches
        verdict(sealed(source.version, source.content))
    said = began
    for index in range(first, first + count):
        kind, data = mutant(seed, index, sources)
        (folder / "current.atmc").write_bytes(data)  # what a crash leaves behind
        traced = index % _TRACED == 0
        before = time.perf_counter()
        if traced:
            tracemalloc.start()
        try:
            with time_limit(hang):
                reason = verdict(data)
        except (Fault, Hang) as error:
            reason = f"finding: {error}"
            what = f"{type(error).__name__}: {re.sub('[0-9]+', 'N', str(error))[:160]}"
            ledger.findings.setdefault(what, []).append(index)
            if len(ledger.findings[what]) <= 5:
                (folder / f"{seed}-{index}.atmc").write_bytes(data)
                (folder / f"{seed}-{index}.txt").write_text(traceback.format_exc(), errors="backslashreplace")
        if traced:
            ledger.peaks.append((announced(data), tracemalloc.get_traced_memory()[1]))
            tracemalloc.stop()
        else:
            ledger.slowest = max(ledger.slowest, (time.perf_counter() - before, index))
        ledger.kinds[kind] += 1
        ledger.accepted[kind] += not reason
        if reason:
            ledger.reasons[re.sub(r"'[^']*'|[0-9][0-9,]*|\([^)]*\)", "…", reason)[:110]] += 1
        now = time.perf_counter()
        if now - said > 60:
            print(ledger.line(index - first + 1, now - began), flush=True)
            said = now
        if now - began > seconds:
            break
    (folder / "current.atmc").unlink(missing_ok=True)
    ledger.show(time.perf_counter() - began)
    return ledger


def in_child(arguments: Sequence[str], folder: Path) -> int:
    """Runs this script again with a bound on its memory; a crash is a finding too."""
    code = subprocess.run([sys.executable, __file__, *arguments, "--child"], check=False).returncode
    if code < 0:
        print(f"finding: the reader was ended by signal {-code}; the file is {folder / 'current.atmc'}")
    return 1 if code else 0


def most_resident() -> float:
    """The most memory that this process has held at once, in MiB."""
    # Not getrusage: its maximum is inherited from the process that started this one.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def bound_memory() -> None:
    """So much more address space than the imports took, and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


# --- coverage-guided


def fuzz_guided(seconds: int, seed: int, folder: Path) -> None:
    """Runs atheris on the corpus, with checksums mended after every mutation. Ends the process."""
    import atheris

    files = corpus()
    sources = sources_of(files)

    def read(data: bytes) -> None:
        verdict(data)

    def mended(data: bytes, most: int, number: int) -> bytes:
        draw = random.Random(number)
        if len(data) < _FRAME + 1:
            data = draw.choice(files)
        version = data[4] if data[4] in (1, 2) else 2
        content = data[_FRAME:]
        if draw.random() < 0.5:
            content = bytes(atheris.Mutate(content, max(most - _FRAME, len(content))))
        else:
            with contextlib.suppress(Exception):
                content = draw.choice(list(MUTATIONS.values()))(draw, Source(version, content), sources)
        return sealed(version, content[: max(1, most - _FRAME)])

    with tempfile.TemporaryDirectory() as seeds:
        for i, data in enumerate(files):
            Path(seeds, f"{i}.atmc").write_bytes(data)
        flags = [
            f"-max_total_time={seconds}",
            f"-seed={seed + 1}",
            "-max_len=20000",
            "-timeout=20",
            "-rss_limit_mb=6000",
        ]
        atheris.Setup([sys.argv[0], *flags, f"-artifact_prefix={folder}/", seeds], read, custom_mutator=mended)
        atheris.Fuzz()


# --- the costliest files


def hostile(
    header: Mapping[str, Any], form: str, plan: Plan, fill: Callable[[tuple[int, int]], Any], pad: int
) -> bytes:
    """A file in which every layer has the one form, and every tensor the one plan where it fits it."""
    with torch.device("meta"):
        outline = Architecture(header["model"], header["args"], tuple(header["input"]), header["classes"]).build()
    expected = expectations(outline.to_empty(device="cpu"))
    coder, earlier = Encoder(), list[Margins]()

    def put(shape: tuple[int, int], kernel: tuple[int, int]) -> None:
        matrix = fill(shape)
        fits = shape[1] % (plan.kernel[0] * plan.kernel[1]) == 0
        mine = plan if fits else Plan(plan.kind, plan.half, kernel=(1, 1))
        if mine.full or matrix.all():
            mine = Plan(mine.kind, mine.half, full=True)
        if not matrix.any():
            mine = Plan(Kind.EMPTY)
        code_tensor(coder, shape, kernel, earlier, mine, matrix)
        earlier.append(margins(matrix))

    for name in expected.order:
        if name in expected.layers:
            plain = expected.layers[name]
            rank = 0 if form == "dense" else min(plain.rows, plain.columns)
            layer = FactorisedLayer(plain.module, plain.shape, form, plain.transposed, rank)  # type: ignore[arg-type]
            coder.choice(len(FORMS), FORMS.index(layer.form))
            if form != "dense":
                coder.number(rank)
            for shape in layer.factor_shapes.values():
                put(shape, kernel_of(layer, shape))
        else:
            put((1, expected.others[name].numel()), (1, 1))
    raw, code = coder.getvalue()
    writer = Writer()
    writer.header(json.dumps(header).encode())
    writer.varint(len(raw))
    writer.bytes_(raw + code)
    content = writer.getvalue()
    return sealed(2, content + bytes(max(0, pad - _FRAME - len(content))))


def _all_but_one(shape: tuple[int, int]) -> Any:
    matrix = np.ones(shape, dtype=np.float32)
    matrix[-1, -1] = 0
    return matrix


def _one(shape: tuple[int, int]) -> Any:
    matrix = np.zeros(shape, dtype=np.float32)
    matrix[0, 0] = 1
    return matrix


def _mlp(hidden: list[int], side: int) -> dict[str, Any]:
    return {"model": "mlp", "args": {"hidden": hidden}, "input": [1, 1, side], "classes": 1}


def bombs() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Files at the limits, each made when it is called for."""
    made = partial(partial, hostile)
    floats, codes = Plan(Kind.FLOATS), Plan(Kind.CODEBOOK)
    fine = Plan(Kind.FLOATS, kernel=(1, 128))
    for kb in (2, 20):
        side = int((1024 * 1000 * kb + (1 << 20)) ** 0.5) - 2
        wide = _mlp([side], side)
        yield f"{kb} kB, one layer, all zero", made(wide, "dense", floats, np.zeros, 1000 * kb)
        yield f"{kb} kB, one layer, W = C", made(wide, "dense", codes, _all_but_one, 1000 * kb)
        yield f"{kb} kB, one layer, UV + C", made(wide, "plain", codes, _all_but_one, 1000 * kb)
    for n in (100, 1000, 4000):
        many = _mlp([1, 128] * (n // 2) if n < 4000 else [1] * n, 128)
        for form in ("dense", "plain"):
            yield f"{n:,} tiny layers, {form}", made(many, form, fine, _one, 0)
    deep = {"model": "wide_resnet", "args": {"depth": 1000, "widen_factor": 1}, "input": [1, 4, 4], "classes": 1}
    yield "wide_resnet of depth 1,000, UV + C", made(deep, "plain", floats, _one, 20_000)
    image = {"model": "small_cnn", "args": {"width": 1}, "input": [3, 2048, 2048], "classes": 1}
    yield "small_cnn on 3 × 2048 × 2048", made(image, "dense", floats, _one, 9_000)


def show_bombs(only: str | None) -> int:
    """Prints time and memory of each, read in a process of its own."""
    print(f"{'file':42} {'bytes':>8} {'values':>12} {'build s':>8} {'unpack s':>9} {'MiB':>7}  outcome")
    for name, make in bombs():
        if only and only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bomb.atmc"
            began = time.perf_counter()
            try:
                data = make()
            except ArtifactError as error:
                print(f"{name:42} cannot be made: {error}", flush=True)
                continue
            made = time.perf_counter() - began
            path.write_bytes(data)
            line = subprocess.run(
                [sys.executable, __file__, "--read", str(path)], check=False, capture_output=True, text=True
            )
            values = announced(data)
            print(
                f"{name:42} {len(data):8,} {values:12,} {made:8.1f} {line.stdout.strip() or line.stderr[-300:]}",
                flush=True,
            )
    return 0


def read_one(path: Path) -> None:
    """Prints the time and memory that reading a file takes."""
    data = path.read_bytes()
    unpack(pack(compressed("mlp", {"hidden": [3]}, (1, 2, 3), "none", 0.5, 3)))  # fills caches
    resident = most_resident()
    began, outcome = time.perf_counter(), "a model"
    try:
        unpack(data)
    except ArtifactError as error:
        outcome = str(error)
    wall = time.perf_counter() - began
    print(f"{wall:9.2f} {most_resident() - resident:7,.0f}  {outcome[:90]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--seconds", type=int, default=1 << 30)
    parser.add_argument("--hang", type=int, default=20, help="seconds that a file may take")
    parser.add_argument("--folder", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--atheris", action="store_true", help="guided by coverage")
    parser.add_argument("--bombs", nargs="?", const="", default=None, metavar="WORD", help="the costliest files")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parent))
    if chosen.read:
        read_one(chosen.read)
        return 0
    if chosen.bombs is not None:
        return show_bombs(chosen.bombs)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    if chosen.atheris:
        fuzz_guided(chosen.seconds, chosen.seed, chosen.folder)
        return 0
    if not chosen.child:
        return in_child(sys.argv[1:], chosen.folder)
    bound_memory()
    ledger = fuzz(chosen.seed, chosen.first, chosen.count, chosen.seconds, chosen.hang, chosen.folder)
    return 1 if ledger.total else 0


if __name__ == "__main__":
    sys.exit(main())
