"""Files made by hand, hostile ones and honest ones of format 1, by what the fuzzer makes its own of."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from atmc_search.artifact import CompressedModel
from atmc_search.artifact.version1 import Mode

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from fuzzing import handmade
from fuzzing.handmade import Values, floats, frame, headed, sealed, stream, varint

__all__ = ["floats", "frame", "sealed", "stream", "varint", "version1", "with_header"]


def with_header(header: Any, rest: bytes = b"", version: int = 2) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return sealed(headed(text, rest, version), version)


def version1(model: CompressedModel, mode: Mode | None = None) -> bytes:
    """A file of format 1; every tensor that can be is in `mode`, all others hold gaps and floats."""

    def mode_of(flat: Values) -> Mode:
        few = len(np.unique(flat[flat != 0])) <= 256
        return mode if mode is not None and (few or not mode.coded) else Mode.GAPS_FLOATS

    return handmade.version1(model, mode_of)
