"""Tensors and a few plain facts in one safetensors file: nothing here is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from atmc_search.errors import RunError
from atmc_search.results import write_atomic


def tensors_to_bytes(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """A safetensors document whose metadata carries `facts` as JSON."""
    # Tensors may be views of one buffer (the parts of a projection); safetensors wants each whole.
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, metadata={"facts": json.dumps(facts)})


def tensors_from_bytes(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts that `tensors_to_bytes` wrote."""
    tensors = safetensors.torch.load(data)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return tensors, json.loads(header["__metadata__"]["facts"])


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes the file whole or not at all."""
    write_atomic(path, tensors_to_bytes(tensors, facts))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `save_tensors` wrote.

    Raises:
        RunError: missing, or no such file of ours.
    """
    try:
        return tensors_from_bytes(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (safetensors.SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise RunError(f"{path}: no checkpoint of ours ({error}); delete it or name another") from None
