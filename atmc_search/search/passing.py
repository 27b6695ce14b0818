"""Which errors may pass: tried again later or on another worker, the same work may succeed."""

from __future__ import annotations

import re

import torch

from atmc_search.errors import AtmcError, StorageError

_OF_A_DEVICE = re.compile(r"CUDA|cuDNN|cuBLAS|NCCL|out of memory|can't allocate memory", re.IGNORECASE)


def may_pass(error: BaseException) -> bool:
    """Whether an error is one of a machine at the time, and not of what was asked for.

    Memory that is used up, on a device too, and storage or a network that is away are of the machine. A mistake in a
    spec, a training that diverges and whatever else a user's code raises are not.
    """
    if isinstance(error, StorageError | OSError | MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, AtmcError):
        return False
    return isinstance(error, RuntimeError) and _OF_A_DEVICE.search(str(error)) is not None
