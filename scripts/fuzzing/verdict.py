"""What a reader of hostile files must do with one file, and how large the model is that it names."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from atmc_search.artifact import Architecture, annotated, describe, read_header, unpack
from atmc_search.errors import ArtifactError, AtmcError

from .bounds import Hang
from .corpus import OWN

NEVER = ("this", "antigravity", "fuzz_trap")
"""Modules that mutants name and nothing imports."""


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
