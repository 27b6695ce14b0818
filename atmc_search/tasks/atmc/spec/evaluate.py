"""The section on measuring."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from atmc_search.spec import Component, Section


class EvaluateSpec(Section):
    """How accuracies are measured, on the decoded artifact and validation images."""

    attack: Component = Field(Component(name="pgd", steps=20), description="the attack of robust_accuracy")
    every: int = Field(1, ge=1, description="epochs between measurements; the last epoch is always measured")
    select: Literal["last", "best"] = Field(
        "last",
        description="measured epoch whose artifact and figures a trial reports; best: so far, by robust accuracy on "
        "validation images, which makes that figure a little optimistic; verify is for test images",
    )
    batch_size: int = Field(500, ge=1, description="images a batch")
    seed: int = Field(0, ge=0, description="seed of the attack's random starts")
    masking_images: int = Field(
        100, ge=0, description="validation images for the checks against gradient masking; 0: no checks"
    )
    runtime: Literal["none", "onnxruntime"] = Field(
        "none", description="where to run the exported model for latency_ms and peak_memory_bytes (adds seconds)"
    )
