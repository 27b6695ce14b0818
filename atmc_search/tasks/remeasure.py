"""Measuring a run's artifacts again, from their files: on validation images to the digit, on test images once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pandas as pd
import torch

from atmc_search.artifact import unpack
from atmc_search.attacks import build_attack
from atmc_search.data import DeviceData, load_splits
from atmc_search.errors import RunError
from atmc_search.measure import measure
from atmc_search.results import RunFolder
from atmc_search.spec import Component


def remeasure(
    folder: RunFolder,
    trials: pd.DataFrame,
    *,
    split: Literal["validation", "test"],
    attack: Component | None = None,
    device: str = "cpu",
) -> Iterator[Mapping[str, Any]]:
    """Decodes and measures each trial's artifact.

    Args:
        folder: the run.
        trials: rows of it that have artifacts.
        split: "validation" with the spec's own attack repeats the figures of the sweep; "test" gives figures that
            no choice has seen.
        attack: in place of the spec's evaluation attack.
        device: torch device.

    Yields:
        trial, size_bytes, clean_accuracy, robust_accuracy with their intervals and n, and the recorded figures.

    Raises:
        RunError: an artifact is missing.
        ArtifactError: one is damaged.
    """
    study = folder.spec()
    torch.set_num_threads(max(1, int(study.resources.cpu)))  # as in the sweep: sums in the same order
    for row in _records(trials, list(study.space)):
        spec = study.fill({path: row[path] for path in study.space})
        splits = load_splits(spec.data)
        try:
            data = (folder.path / row["artifact"]).read_bytes()
        except (OSError, TypeError):
            raise RunError(
                f"{folder.path}: the artifact of trial {row['trial']} is missing; run the study again"
            ) from None
        figures = measure(
            unpack(data, allow_custom_models=True).to(device),
            DeviceData(splits.validation if split == "validation" else splits.test, device),
            build_attack(attack or spec.evaluate.attack, path="attack"),
            spec.threat,
            batch_size=spec.evaluate.batch_size,
            seed=spec.evaluate.seed,
        )
        yield {
            "trial": row["trial"],
            "size_bytes": len(data),
            **figures.metrics(),
            "clean_interval": figures.clean.interval,
            "robust_interval": figures.robust.interval,
            "images": figures.clean.n,
            **{f"recorded_{name}": row[name] for name in ("size_bytes", "clean_accuracy", "robust_accuracy")},
        }


def _records(trials: pd.DataFrame, parameters: Sequence[str]) -> list[dict[str, Any]]:
    wanted = ["trial", "artifact", "size_bytes", "clean_accuracy", "robust_accuracy", *parameters]
    plain = trials[wanted].astype(object).where(trials[wanted].notna(), None)
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]
