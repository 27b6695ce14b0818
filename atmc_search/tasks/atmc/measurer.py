"""Measuring a trial's file: the figures are those of what it decodes to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from atmc_search.artifact import annotated, unpack
from atmc_search.attacks import build_attack
from atmc_search.data import DeviceData, Splits
from atmc_search.export.costs import running_costs
from atmc_search.measure import masking_checks
from atmc_search.models import placed
from atmc_search.tasks.atmc.build import architecture_of, dense_model, measured_as_asked
from atmc_search.tasks.atmc.deploy import Deployed
from atmc_search.tasks.atmc.spec import AtmcSpec
from atmc_search.tasks.start import Start


@dataclass(frozen=True)
class Measured:
    """A file and its figures, by column name."""

    artifact: bytes
    metrics: Mapping[str, Any]


class Measurer:
    """Measures files on validation images, as the spec's section `evaluate` asks."""

    def __init__(self, spec: AtmcSpec, data: Splits, start: Start, *, device: torch.device) -> None:
        self._spec = spec
        self._validation = DeviceData(data.validation, device)
        self._architecture = architecture_of(spec, data)
        self._attack = build_attack(spec.evaluate.attack, path="trial.evaluate.attack")
        self._start = start
        self._device = device

    def measured(self, deployed: Deployed) -> Measured:
        """Decodes the file and measures what comes out; the file then carries its figures."""
        decoded = unpack(deployed.artifact, allow_custom_models=True)
        costs = running_costs(decoded, self._architecture, self._spec.evaluate.runtime)
        placed(decoded, self._device)
        figures = measured_as_asked(self._spec, decoded, self._validation)
        correct = {"clean": figures.clean.correct, "robust": figures.robust.correct}
        artifact = annotated(deployed.artifact, figures_in_header(self._spec, figures.clean.n, **correct))
        # At every measurement: a scheduler may make any of them the trial's last.
        flags = self._masking_flags(decoded) if self._spec.evaluate.masking_images else None
        sizes = deployed.sizes
        metrics = {
            "size_bytes": len(artifact),
            **figures.metrics(),
            **figures.intervals(),
            "validation_images": figures.clean.n,
            "masking_flags": flags,
            "nnz": sizes.nnz,
            "density": sizes.density,
            "dense_weights": sizes.dense_weights,
            "paper_bits": sizes.paper_bits,
            "entropy_bits": sizes.entropy_bits,
            **costs,
            "bits_per_tensor": json.dumps(sizes.bits_per_tensor),
            "batch_norm_reestimated": deployed.batch_norm_reestimated,
        }
        return Measured(artifact, metrics)

    def _masking_flags(self, decoded: nn.Module) -> str:
        settings = self._spec.evaluate
        checks = masking_checks(
            decoded,
            self._validation,
            self._attack,
            self._spec.threat,
            surrogate=dense_model(self._architecture, self._start, self._device),
            images=settings.masking_images,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
        return ",".join(checks.flags)


def figures_in_header(spec: AtmcSpec, images: int, clean: int = 0, robust: int = 0) -> dict[str, Any]:
    """The figures that travel in an artifact: how many validation images are right, untouched and attacked."""
    attack = spec.evaluate.attack.model_dump(mode="json")
    figures = {"split": "validation", "images": images, "clean": clean, "robust": robust, "attack": attack}
    return {"measured": figures}


def figures_to_come(spec: AtmcSpec, images: int) -> dict[str, Any]:
    """Figures that stand in an artifact until it is measured: of a budget that is to be met, as long as any."""
    most = images if spec.compress.sized_in_bytes else 0
    return figures_in_header(spec, images, most, most)
