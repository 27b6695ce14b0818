"""Measuring an artifact again, from its bytes: on validation images to the digit, on test images once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from atmc_search.artifact import Architecture, read_header, unpack
from atmc_search.attacks import Attack, ThreatModel, attack_in_words, build_attack, checked_threat
from atmc_search.data import DataSpec, DeviceData, ImageSet, Splits, load_splits
from atmc_search.errors import AtmcError, RunError
from atmc_search.export.costs import running_costs
from atmc_search.measure import Accuracy, Measurement, masking_checks, measure, robustness_curve
from atmc_search.models import placed
from atmc_search.registry import refuse_imports, validated
from atmc_search.spec import Component
from atmc_search.tasks.atmc.spec import AtmcSpec, EvaluateSpec
from atmc_search.tasks.remeasured import Figure, Remeasured
from atmc_search.tasks.start import Start

MASKING_IMAGES = 200
"""How many images `remeasure` makes the checks against gradient masking on."""

EPS_SHARES = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4)
"""Radii of a curve unless others are asked for, as multiples of the trial's own eps."""

STEPS = (1, 2, 5, 10, 20, 50)
"""Numbers of steps of the other curve."""

_REMEDY = "if you trust the run folder, add --trust (trust=True)"


@dataclass(frozen=True)
class _Setting:
    """A decoded model, the images to measure it on, and how."""

    model: nn.Module
    data: DeviceData
    split: str
    name: str
    attack: Attack
    threat: ThreatModel
    batch_size: int
    seed: int

    def measured(self) -> Measurement:
        return measure(self.model, self.data, self.attack, self.threat, batch_size=self.batch_size, seed=self.seed)

    @property
    def described(self) -> dict[str, Any]:
        """What was attacked how, in plain values."""
        return {
            "norm": self.threat.norm,
            "eps": self.threat.eps,
            "images": len(self.data),
            "attack": {"name": self.name, **self.attack.model_dump()},
        }


def remeasured(
    artifact: bytes,
    spec: AtmcSpec,
    splits: Splits,
    *,
    split: str,
    options: Mapping[str, Any],
    start: Callable[[], Start | None],
    device: str,
    trust: bool,
) -> Remeasured:
    """`Task.remeasure`: with the spec's own attack and eps on validation images it repeats the sweep's figures.

    Options: `attack`, a Component in place of the spec's; `eps`, in place of the threat's; `checks`, whether to look
    for gradient masking too, on `MASKING_IMAGES` images at most.
    """
    setting = _setting(artifact, spec, splits, split, options, device, trust=trust)
    figures = setting.measured()
    warnings: dict[str, str] = {}
    notes: list[str] = []
    found: dict[str, Any] = {}
    if options.get("checks"):
        surrogate = _dense_model(spec, splits, start())
        checks = masking_checks(
            setting.model,
            setting.data,
            setting.attack,
            setting.threat,
            surrogate=None if surrogate is None else placed(surrogate, device),
            images=MASKING_IMAGES,
            batch_size=setting.batch_size,
            seed=setting.seed,
        )
        warnings = dict(checks.findings)
        notes.append(f"masking: checked on {min(len(setting.data), MASKING_IMAGES)} images")
        if surrogate is None:
            notes.append("the run holds no dense start of theirs, so images were not transferred from it")
        found = {**checks.metrics(), "masking_findings": warnings, "transfer_checked": surrogate is not None}
    row = {"size_bytes": len(artifact), **setting.described, **_plain(figures), **found}
    return dataclasses.replace(_remeasured(setting, figures, row), warnings=warnings, notes=tuple(notes))


def curves(
    artifact: bytes,
    spec: AtmcSpec,
    splits: Splits,
    *,
    split: str,
    options: Mapping[str, Any],
    device: str,
    trust: bool,
) -> Mapping[str, Any]:
    """`Task.curves`.

    Options: `attack` in place of the spec's; `eps`, radii (default: shares of the trial's own, from 0 to four times as
    much); `steps`, numbers of steps at the trial's own eps (default: 1 to 50, or none for an attack without steps).

    Returns:
        size_bytes, norm, eps (of the threat model), images, attack, and two lists of points {eps or steps,
        robust_accuracy, robust_interval}: by_eps and by_steps.
    """
    radii, steps = options.get("eps"), options.get("steps")
    own = {key: value for key, value in options.items() if key == "attack"}
    setting = _setting(artifact, spec, splits, split, own, device, trust=trust)
    has_steps = "steps" in type(setting.attack).model_fields
    found = robustness_curve(
        setting.model,
        setting.data,
        setting.attack,
        setting.threat,
        eps=default_radii(setting.threat) if radii is None else radii,
        steps=(STEPS if has_steps else ()) if steps is None else steps,
        batch_size=setting.batch_size,
        seed=setting.seed,
    )
    return {
        "size_bytes": len(artifact),
        **setting.described,
        "by_eps": [_point("eps", at, accuracy) for at, accuracy in found.eps],
        "by_steps": [_point("steps", at, accuracy) for at, accuracy in found.steps],
    }


def evaluated(
    artifact: bytes, *, data: Mapping[str, Any], split: str, options: Mapping[str, Any], device: str, trust: bool
) -> Remeasured:
    """`Task.evaluate`: a single file on images of the user's.

    Options: `attack`; `threat`, a ThreatModel (the caller knows what the file says); `runtime`, whether to run the ONNX
    export too.
    """
    header = read_header(artifact)
    splits = load_splits(validated(DataSpec, data, path="trial.data"))
    check_match(header, str(data["name"]), splits)
    model = unpack(artifact, allow_custom_models=trust)
    costs = {}
    if options.get("runtime"):
        architecture = Architecture(header["model"], header["args"], tuple(header["input"]), header["classes"])
        try:
            costs = running_costs(model, architecture, "onnxruntime")
        except AtmcError as error:
            raise AtmcError(f"--runtime: {error}") from error
    component, settings = options["attack"], EvaluateSpec()
    setting = _Setting(
        model=placed(model, device),
        data=DeviceData(_images(splits, split), device),
        split=split,
        name=component.name,
        attack=build_attack(component, path="--attack"),
        threat=options["threat"],
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    figures = setting.measured()
    row = {"data": data["name"], "split": split, **setting.described, **_plain(figures), **costs}
    found = _remeasured(setting, figures, row)
    return dataclasses.replace(found, notes=_cost_lines(costs) if costs else ())


def default_radii(threat: ThreatModel) -> list[float]:
    """The default radii, ascending; for ℓ∞ none beyond 1, the range of a pixel."""
    radii = (round(share * threat.eps, 12) for share in EPS_SHARES)
    return list(dict.fromkeys(min(radius, 1.0) if threat.norm == "linf" else radius for radius in radii))


def check_match(header: Mapping[str, Any], name: str, splits: Splits) -> None:
    """Passes if the model of an artifact can take the dataset's images and has its classes.

    Raises:
        AtmcError: it cannot.
    """
    wanted, found = tuple(header["input"]), splits.input_shape
    if wanted != found:
        raise AtmcError(
            f"--data {name}: its images are {_by_axes(found)}, and the file takes {_by_axes(wanted)} (channels × "
            "height × width); name the dataset that it was trained for, or for image_folder set --image-size"
        )
    if header["classes"] != splits.classes:
        raise AtmcError(
            f"--data {name}: it has {splits.classes} classes, and the file tells {header['classes']} apart; "
            "name the dataset that it was trained for"
        )


def _setting(
    artifact: bytes, spec: AtmcSpec, splits: Splits, split: str, options: Mapping[str, Any], device: str, *, trust: bool
) -> _Setting:
    chosen: Component = options.get("attack") or spec.evaluate.attack
    eps = options.get("eps")
    threat = spec.threat if eps is None else checked_threat(spec.threat.norm, eps)
    return _Setting(
        model=placed(_model(artifact, spec, splits, trust=trust), device),
        data=DeviceData(_images(splits, split), device),
        split=split,
        name=chosen.name,
        attack=build_attack(chosen, path="attack"),
        threat=threat,
        batch_size=spec.evaluate.batch_size,
        seed=spec.evaluate.seed,
    )


def _images(splits: Splits, split: str) -> ImageSet:
    return {"test": splits.test, "validation": splits.validation, "train": splits.train}[split]


def _model(artifact: bytes, spec: AtmcSpec, splits: Splits, *, trust: bool) -> nn.Module:
    """The artifact's model, if it takes the images of its trial."""
    header = read_header(artifact)
    if not trust:
        refuse_imports({"name": header.get("model")}, "the artifact", _REMEDY)
    model = unpack(artifact, allow_custom_models=trust)
    found, wanted = (*header["input"], header["classes"]), (*splits.input_shape, splits.classes)
    if found != wanted:
        raise RunError(
            f"takes images and classes {found}, and {spec.data.name} has {wanted}: it is another study's; "
            "restore it, or run the study again"
        )
    return model


def _dense_model(spec: AtmcSpec, splits: Splits, start: Start | None) -> nn.Module | None:
    """The dense model that the trial started from; None where it is not known."""
    if start is None:
        return None
    try:
        model = Architecture(spec.model.name, spec.model.args, splits.input_shape, splits.classes).build()
        model.load_state_dict(dict(start.tensors))
    except (AtmcError, RuntimeError):  # not of this trial
        return None
    return model.eval()


def _remeasured(setting: _Setting, figures: Measurement, row: Mapping[str, Any]) -> Remeasured:
    ends = (("clean_accuracy", figures.clean), ("robust_accuracy", figures.robust))
    return Remeasured(
        figures=tuple(Figure(name, accuracy.value, *accuracy.interval) for name, accuracy in ends),
        samples=(len(setting.data), f"{setting.split} images"),
        conditions=attack_in_words(**{key: setting.described[key] for key in ("attack", "norm", "eps")}),
        row=row,
    )


def _plain(figures: Measurement) -> dict[str, Any]:
    return {
        **figures.metrics(),
        "clean_interval": figures.clean.interval,
        "robust_interval": figures.robust.interval,
    }


def _cost_lines(costs: Mapping[str, Any]) -> tuple[str, ...]:
    quartiles = f"{costs['latency_ms_low']:.4g} to {costs['latency_ms_high']:.4g}"
    return (
        f"latency {costs['latency_ms']:.4g} ms   quartiles {quartiles}",
        f"memory  {costs['peak_memory_bytes']:,} bytes at the peak: weights and intermediate results",
        f"MACs    {costs['macs']:,}",
        "of one image in ONNX Runtime, on one thread",
    )


def _point(name: str, at: float, accuracy: Accuracy) -> dict[str, Any]:
    return {name: at, "robust_accuracy": accuracy.value, "robust_interval": accuracy.interval}


def _by_axes(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
