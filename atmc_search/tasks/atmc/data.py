"""What an ATMC trial reads from files: images, and the weights that it starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from atmc_search.data import Splits, load_splits
from atmc_search.errors import DataError
from atmc_search.spec import fingerprint
from atmc_search.tasks.atmc.spec import AtmcSpec
from atmc_search.tasks.atmc.weights import WeightsFile


@dataclass(frozen=True, eq=False)
class AtmcData(Splits):
    """The images, and the file that the dense start begins with; None where the spec names none."""

    weights: WeightsFile | None = None


def load(spec: AtmcSpec) -> AtmcData:
    """`Task.load`."""
    weights = None if spec.dense.weights is None else WeightsFile.read(spec.dense.weights)
    splits = load_splits(spec.data)
    return AtmcData(splits.train, splits.validation, splits.test, splits.classes, weights)


def load_to_measure(spec: AtmcSpec) -> AtmcData:
    """`Task.load_to_measure`: without the file of weights where it is gone, for which images alone are measured."""
    try:
        return load(spec)
    except DataError:
        if spec.dense.weights is None or Path(spec.dense.weights).exists():
            raise
        return load(spec.model_copy(update={"dense": spec.dense.model_copy(update={"weights": None})}))


def load_key(spec: AtmcSpec) -> str:
    """`Task.load_key`."""
    data = spec.data.model_dump(mode="json")
    return fingerprint(data if spec.dense.weights is None else [data, spec.dense.weights])


def inputs(spec: AtmcSpec, data: AtmcData) -> dict[str, str]:
    """`Task.inputs`."""
    return {} if data.weights is None else {data.weights.name: data.weights.sha256}
