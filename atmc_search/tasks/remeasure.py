"""Measuring a run's artifacts again, from their files: on validation images to the digit, on test images once.

`remeasure` repeats figures or measures with another attack; `recurve` draws out robustness curves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from torch import nn

from atmc_search.artifact import Architecture, read_header, unpack
from atmc_search.attacks import Attack, build_attack
from atmc_search.data import DeviceData, Splits, load_splits
from atmc_search.errors import ArtifactError, AtmcError, RunError
from atmc_search.measure import Accuracy, masking_checks, measure, robustness_curve
from atmc_search.models import placed
from atmc_search.registry import refuse_imports, validated
from atmc_search.results import RunFolder
from atmc_search.spec import Component, DataSpec, ThreatModel, TrialSpec
from atmc_search.tasks import task_named
from atmc_search.training import load_tensors

Split = Literal["validation", "test"]

MASKING_IMAGES = 200
"""How many images `remeasure` makes the checks against gradient masking on."""


EPS_SHARES = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4)
"""Radii of `recurve`'s curve unless others are asked for, as multiples of the trial's own eps."""

STEPS = (1, 2, 5, 10, 20, 50)
"""Numbers of steps of its other curve."""

_REMEDY = "if you trust the run folder, add --trust (trust=True)"


@dataclass(frozen=True)
class _Opened:
    """A trial's decoded artifact and all that measuring it takes."""

    row: Mapping[str, Any]
    spec: TrialSpec
    splits: Splits
    size_bytes: int
    model: nn.Module
    data: DeviceData
    name: str
    attack: Attack
    threat: ThreatModel

    @property
    def described(self) -> dict[str, Any]:
        """What was attacked how, in plain values."""
        return {
            "trial": self.row["trial"],
            "size_bytes": self.size_bytes,
            "norm": self.threat.norm,
            "eps": self.threat.eps,
            "images": len(self.data),
            "attack": {"name": self.name, **self.attack.model_dump()},
        }


def remeasure(
    folder: RunFolder,
    trials: pd.DataFrame,
    *,
    split: Split,
    attack: Component | None = None,
    eps: float | None = None,
    checks: bool = False,
    device: str = "cpu",
    trust: bool = False,
) -> Iterator[Mapping[str, Any]]:
    """Decodes and measures each trial's artifact.

    Args:
        folder: the run.
        trials: rows of it that have artifacts.
        split: "validation" with the spec's own attack and eps repeats the figures of the sweep; "test" gives figures
            that no choice has seen.
        attack: in place of the spec's evaluation attack.
        eps: in place of the threat model's; the norm stays.
        checks: whether to look for gradient masking too, on `MASKING_IMAGES` images at most.
        device: torch device.
        trust: whether to import what the folder's spec and artifacts name as "module:attribute", which runs that code.

    Yields:
        trial, size_bytes, norm, eps, images, attack (its name and settings), clean_accuracy and robust_accuracy with
        their intervals, the recorded figures, and with `checks` masking_flags (comma-joined, as in the table),
        masking_findings (a sentence each) and transfer_checked (whether the run still holds the dense start, on which
        images to transfer are made).

    Raises:
        RunError: an artifact is missing, not the one that was measured, or of other images; its trial failed; or code
            would be imported without `trust`.
        ArtifactError: one is damaged.
        SpecError: no such attack, a setting that it has not, an eps that cannot be.
    """
    for opened in _opened(folder, trials, split=split, attack=attack, eps=eps, device=device, trust=trust):
        settings: Mapping[str, Any] = {
            "batch_size": opened.spec.evaluate.batch_size,
            "seed": opened.spec.evaluate.seed,
        }
        figures = measure(opened.model, opened.data, opened.attack, opened.threat, **settings)
        found: dict[str, Any] = {}
        if checks:
            surrogate = _dense_start(folder, opened)
            made = masking_checks(
                opened.model,
                opened.data,
                opened.attack,
                opened.threat,
                surrogate=None if surrogate is None else placed(surrogate, device),
                images=MASKING_IMAGES,
                **settings,
            )
            found = {
                **made.metrics(),
                "masking_findings": dict(made.findings),
                "transfer_checked": surrogate is not None,
            }
        yield {
            **opened.described,
            **figures.metrics(),
            "clean_interval": figures.clean.interval,
            "robust_interval": figures.robust.interval,
            **{f"recorded_{name}": opened.row[name] for name in ("size_bytes", "clean_accuracy", "robust_accuracy")},
            **found,
        }


def recurve(
    folder: RunFolder,
    trials: pd.DataFrame,
    *,
    split: Split,
    eps: Sequence[float] | None = None,
    steps: Sequence[int] | None = None,
    attack: Component | None = None,
    device: str = "cpu",
    trust: bool = False,
) -> Iterator[Mapping[str, Any]]:
    """Decodes each trial's artifact and takes its robustness curves.

    Args:
        folder: the run.
        trials: rows of it that have artifacts.
        split: images to measure on.
        eps: radii; default: shares of the trial's own, from 0 to four times as much.
        steps: numbers of steps, at the trial's own eps; default: 1 to 50, or none for an attack without steps.
        attack: in place of the spec's evaluation attack.
        device: torch device.
        trust: as `remeasure`.

    Yields:
        trial, size_bytes, norm, eps (of the threat model), images, attack, and two lists of points {eps or steps,
        robust_accuracy, robust_interval}: by_eps and by_steps.

    Raises:
        AtmcError: as `remeasure`, and steps of an attack that has none.
    """
    for opened in _opened(folder, trials, split=split, attack=attack, eps=None, device=device, trust=trust):
        has_steps = "steps" in type(opened.attack).model_fields
        curves = robustness_curve(
            opened.model,
            opened.data,
            opened.attack,
            opened.threat,
            eps=default_radii(opened.threat) if eps is None else eps,
            steps=(STEPS if has_steps else ()) if steps is None else steps,
            batch_size=opened.spec.evaluate.batch_size,
            seed=opened.spec.evaluate.seed,
        )
        yield {
            **opened.described,
            "by_eps": [_point("eps", at, accuracy) for at, accuracy in curves.eps],
            "by_steps": [_point("steps", at, accuracy) for at, accuracy in curves.steps],
        }


def _point(name: str, at: float, accuracy: Accuracy) -> dict[str, Any]:
    return {name: at, "robust_accuracy": accuracy.value, "robust_interval": accuracy.interval}


def spread(front: pd.DataFrame, most: int = 4) -> pd.DataFrame:
    """At most `most` rows, evenly over `front` by size, with the smallest and the largest."""
    if len(front) <= most:
        return front.sort_values("size_bytes")
    chosen = [round(i * (len(front) - 1) / (most - 1)) for i in range(most)]
    return front.sort_values("size_bytes").iloc[chosen]


def default_radii(threat: ThreatModel) -> list[float]:
    """The default radii, ascending; for ℓ∞ none beyond 1, the range of a pixel."""
    radii = (round(share * threat.eps, 12) for share in EPS_SHARES)
    return list(dict.fromkeys(min(radius, 1.0) if threat.norm == "linf" else radius for radius in radii))


def _opened(
    folder: RunFolder,
    trials: pd.DataFrame,
    *,
    split: Split,
    attack: Component | None,
    eps: float | None,
    device: str,
    trust: bool,
) -> Iterator[_Opened]:
    study = folder.spec()
    torch.set_num_threads(max(1, int(study.resources.cpu)))  # as in the sweep: sums in the same order
    known: dict[DataSpec, Splits] = {}
    for row in _records(trials, list(study.space)):
        spec = study.fill({path: row[path] for path in study.space})
        if not trust:
            refuse_imports({"task": study.task, "trial": spec.model_dump(mode="json")}, str(folder.spec_path), _REMEDY)
        path = f"{folder.path}: the artifact of trial {row['trial']}"
        if row["artifact"] is None and row["state"] == "failed":
            raise RunError(f"{path} is missing because the trial failed: {row['reason']}; name a trial that did not")
        if row["artifact"] is None and study.storage.keep_artifacts == "front":
            raise RunError(f"{path} is gone, as no front needs it (storage.keep_artifacts: front); name one on a front")
        try:
            data = (folder.path / row["artifact"]).read_bytes()
        except (OSError, TypeError):
            raise RunError(f"{path} is missing; run the study again") from None
        digest = row["artifact_sha256"]
        if digest is not None and digest != hashlib.sha256(data).hexdigest():
            raise RunError(f"{path} is not the file that was measured (another SHA-256); restore it, or see evaluate")
        if spec.data not in known:
            known[spec.data] = load_splits(spec.data)
        splits = known[spec.data]
        chosen = attack or spec.evaluate.attack
        threat = {"norm": spec.threat.norm, "eps": spec.threat.eps if eps is None else eps}
        yield _Opened(
            row=row,
            spec=spec,
            splits=splits,
            size_bytes=len(data),
            model=placed(_model(data, path, spec, splits, trust=trust), device),
            data=DeviceData(splits.validation if split == "validation" else splits.test, device),
            name=chosen.name,
            attack=build_attack(chosen, path="attack"),
            threat=validated(ThreatModel, threat, path=""),
        )


def _model(data: bytes, path: str, spec: TrialSpec, splits: Splits, *, trust: bool) -> nn.Module:
    """The artifact's model, if it takes the images of its trial."""
    try:
        header = read_header(data)
        if not trust:
            refuse_imports({"name": header.get("model")}, path, _REMEDY)
        model = unpack(data, allow_custom_models=trust)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None
    found, wanted = (*header["input"], header["classes"]), (*splits.input_shape, splits.classes)
    if found != wanted:
        raise RunError(
            f"{path} takes images and classes {found}, and {spec.data.name} has {wanted}: it is another study's; "
            "restore it, or run the study again"
        )
    return model


def _dense_start(folder: RunFolder, opened: _Opened) -> nn.Module | None:
    """The dense model that the trial started from, if the run still holds it and its task keeps it as plain weights."""
    spec, splits = opened.spec, opened.splits
    try:
        key = task_named(folder.spec().task).start_key(spec)
        tensors, _ = load_tensors(folder.starts / f"{key}.safetensors")
        model = Architecture(spec.model.name, spec.model.args, splits.input_shape, splits.classes).build()
        model.load_state_dict(tensors)
    except (AtmcError, RuntimeError):  # no such file, or another task's
        return None
    return model.eval()


def _records(trials: pd.DataFrame, parameters: Sequence[str]) -> list[dict[str, Any]]:
    wanted = ["trial", "state", "reason", "artifact", "artifact_sha256"]
    wanted += ["size_bytes", "clean_accuracy", "robust_accuracy", *parameters]
    if absent := [name for name in wanted if name not in trials]:
        raise RunError(f"the reports have no column {absent[0]!r}, so there is nothing to repeat; run the study again")
    plain = trials[wanted].astype(object).where(trials[wanted].notna(), None)
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]
