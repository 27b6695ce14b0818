"""Equal seeds give equal results: generators seeded by names, and deterministic algorithms where torch has them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def make_repeatable(device: str) -> None:
    """Has torch compute the same result every time on this device, as far as it can be told to.

    On the CPU nothing is to be set: equal numbers of threads give equal results. On a GPU cuDNN and cuBLAS take
    deterministic algorithms, and so do torch's own operations that have one. What remains: operations that have none
    (torch warns of each, once), and other GPU models, drivers or versions of torch, which round differently.
    """
    if torch.device(device).type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first matrix product is made
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


@contextmanager
def seeded(device: torch.device, *parts: int | str) -> Iterator[torch.Generator]:
    """A generator on `device` seeded by `parts`; torch's global one (dropout's) is seeded too, and put back after.

    The two are seeded apart, so that what they draw has nothing to do with each other.
    """
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    ours, globally = (int.from_bytes(digest[start : start + 8], "little") >> 1 for start in (0, 8))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(globally)
        yield torch.Generator(device=device).manual_seed(ours)
