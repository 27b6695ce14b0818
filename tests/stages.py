"""Training as plain as can be, for tests that write a step down or count what a constraint did."""

from __future__ import annotations

from typing import Any

from atmc_search.training.stage import StageSpec

PLAIN_SGD: dict[str, Any] = {"lr": 0.05, "lr_schedule": "cosine", "warmup": 0.0, "nesterov": False, "clip_norm": None}
PAPER: dict[str, Any] = {"schedule": None, "count": "all", "codebook": "admm"}
"""Of the constraints: at every step all of them, and codebooks by ADMM."""


def plain_stage(**settings: Any) -> StageSpec:
    """A stage of momentum, a rate that falls by half a cosine and weight decay, but for `settings`."""
    return StageSpec(**PLAIN_SGD | settings)
