"""The studies that come along: each can be loaded, has trials that could run, and says what it is for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atmc_search.api.runs import load_study
from atmc_search.data import ImageSet
from atmc_search.spec import StudySpec
from atmc_search.tasks import TrialSpace
from atmc_search.tasks.atmc import AtmcTask
from atmc_search.tasks.atmc.columns import ATMC_COLUMNS
from atmc_search.tasks.atmc.data import AtmcData
from atmc_search.tasks.atmc.methods import METHODS

FILES = sorted((Path(__file__).parent.parent / "search_spaces").glob("*.yaml"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)

# Image shape and classes of each dataset, and the dense model's 32-bit size as the paper's tables have it (Gui et al.,
# arXiv 1902.03538, and its code): weights of convolutions and linear layers.
DATA: dict[str, tuple[tuple[int, int, int], int, int | None]] = {
    "digits": ((1, 8, 8), 10, None),
    "fashion_mnist": ((1, 28, 28), 10, 13_776_000),
    "mnist": ((1, 28, 28), 10, 13_776_000),
    "cifar10": ((3, 32, 32), 10, 680_482_816),
    "cifar100": ((3, 32, 32), 100, 681_957_376),
    "svhn": ((3, 32, 32), 10, 350_533_120),
}


def splits(study: StudySpec) -> AtmcData:
    """One blank image a class, of the shape of the study's dataset."""
    shape, classes, _ = DATA[study.trial["data"]["name"]]
    images = ImageSet(np.zeros((classes, *shape), np.uint8), np.arange(classes))
    return AtmcData(images, images, images, classes)


def test_there_are_the_studies_of_the_paper() -> None:
    names = {path.stem for path in FILES}
    assert {f"paper_{data}" for data in DATA if data != "digits"} <= names
    assert {"digits_quickstart", "fashion_lenet", "fashion_methods"} <= names


@every_file
def test_a_study_can_be_loaded_and_every_corner_of_it_could_run(path: Path) -> None:
    study = load_study(path)
    assert study.name.replace("-", "_") == path.stem
    assert path.read_text().startswith("# ")
    assert set(study.objectives) <= {column.name for column in ATMC_COLUMNS}
    seen = set()
    trials = TrialSpace.of(study)
    for _, config in trials.extremes():
        trial = trials.fill(config)
        kind = (trial.method, trial.compress.keep)
        if kind not in seen:  # what the check looks at
            AtmcTask.check(trial, splits(study))
        seen.add(kind)


@every_file
def test_the_dense_model_has_the_paper_s_size(path: Path) -> None:
    study = load_study(path)
    _, _, bits = DATA[study.trial["data"]["name"]]
    trials = TrialSpace.of(study)
    trial = trials.fill(next(trials.extremes())[1])
    if bits is not None:
        assert AtmcTask.reference(trial, splits(study))["paper_bits"] == bits


@pytest.mark.parametrize("path", [p for p in FILES if "methods" in p.stem or "paper" in p.stem], ids=lambda p: p.stem)
def test_the_paper_s_studies_mix_all_its_methods(path: Path) -> None:
    assert set(TrialSpace.of(load_study(path)).presets) == set(METHODS) - {"continuous"}
