"""Names of dense starts: equal for trials that can share one, different where training or measuring it differs."""

from __future__ import annotations

from atmc_search.spec import fingerprint
from atmc_search.tasks.atmc.data import AtmcData
from atmc_search.tasks.atmc.spec import AtmcSpec


def start_key(spec: AtmcSpec, data: AtmcData) -> str:
    """By what makes the weights: images, model, dense stage, and the threat where the stage trains against it.

    How robustness is measured has no part in it, unless that chooses the epoch.
    """
    made_by = spec.model_dump(mode="json", include={"data", "model", "dense"})
    if spec.dense.epochs:
        made_by["threat"] = spec.threat.model_dump(mode="json")
    if spec.dense.epochs and spec.dense.select == "best":
        made_by["chosen_by"] = [spec.evaluate.batch_size, spec.evaluate.seed]
    if data.weights is not None:
        made_by["dense"]["weights"] = data.weights.sha256
    return fingerprint(made_by)


def start_figures_key(spec: AtmcSpec) -> str:
    """By what measures it: the threat, and how accuracies and costs are measured."""
    measured_by = spec.model_dump(mode="json", include={"threat", "evaluate"})
    of_trials = ("every", "select", "masking_images")
    measured_by["evaluate"] = {k: v for k, v in measured_by["evaluate"].items() if k not in of_trials}
    return fingerprint(measured_by)


def earlier_start_keys(spec: AtmcSpec) -> tuple[str, ...]:
    """Until release 0.1 a start and its figures were one, under one key."""
    if spec.dense.weights is not None or spec.model.normalize != "data":
        return ()
    parts = spec.model_dump(mode="json", include={"data", "model", "threat", "dense", "evaluate"})
    of_trials = ("masking_images", "select")
    return (fingerprint(parts | {"evaluate": {k: v for k, v in parts["evaluate"].items() if k not in of_trials}}),)
