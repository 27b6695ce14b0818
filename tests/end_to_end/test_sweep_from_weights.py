"""A sweep from a model that its user trained elsewhere: a ResNet-18 saved as people save it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torchvision.models import resnet18

from atmc_search import load_artifact
from atmc_search.artifact import read_header
from atmc_search.data import DataSpec, ImageSet, load_splits
from atmc_search.errors import RunError
from atmc_search.search import run_study
from atmc_search.spec import StudySpec, parse_study

pytestmark = pytest.mark.usefixtures("ray_here")

DATA = {"name": "digits", "train_size": 300, "validation_size": 60, "test_size": 50}
MEAN, STD = 0.3, 0.4  # not those of the data: the user's own


def as_tensors(images: ImageSet) -> tuple[Tensor, Tensor]:
    return torch.tensor(images.images).float() / 255, torch.tensor(images.labels)


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """A ResNet-18 trained without any of this package's code, as its user would: cross-entropy and Adam."""
    torch.manual_seed(0)
    net = resnet18(num_classes=10)
    net.conv1, net.maxpool = nn.Conv2d(1, 64, 3, padding=1, bias=False), nn.Identity()
    x, y = as_tensors(load_splits(DataSpec.model_validate(DATA)).train)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(2):
        for batch in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net((x[batch] - MEAN) / STD), y[batch]).backward()
            optimizer.step()
    return net.eval()


def study(weights: str, **search: Any) -> StudySpec:
    attack = {"attack": {"name": "fgsm"}}
    return parse_study(
        {
            "name": "from-weights",
            "trial": {
                "data": DATA,
                "model": {"name": "resnet18", "normalize": [[MEAN], [STD]]},
                "threat": {"eps": 0.03},
                "dense": {"weights": weights},
                "train": {"epochs": 1, "batch_size": 100, "lr": 0.01, **attack},
                "compress": {"keep": {"choice": [0.2, 0.05]}, "bits": 4},
                "evaluate": {**attack, "masking_images": 0},
            },
            "search": {"trials": 1, "sampler": {"name": "random"}, **search},
        }
    )


def test_a_sweep_starts_from_a_user_s_resnet18(
    theirs: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrapped = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"epoch": 2, "state_dict": wrapped, "arch": "resnet18"}, "theirs.pth")
    with (tmp_path / "said").open("w") as said:
        result = run_study(study("theirs.pth"), runs=tmp_path, console=Console(file=said, width=200))
    trials = pd.read_parquet(result.folder.path / "trials.parquet")
    assert trials["state"].tolist() == ["complete"]

    # The dense row is the model's own accuracy, on the same images by a loop of its user's.
    x, y = as_tensors(load_splits(DataSpec.model_validate(DATA)).validation)
    with torch.no_grad():
        own = int((theirs((x - MEAN) / STD).argmax(1) == y).sum()) / len(y)
    assert own > 0.5
    assert trials["dense_clean_accuracy"].tolist() == [own]
    assert (trials["dense_robust_accuracy"] < own).all()
    assert (trials["dense_epoch"] == 0).all()
    assert (trials["size_bytes"] < trials["dense_size_bytes"] / 5).all()
    lines = (tmp_path / "said").read_text().splitlines()
    (shown,) = [line for line in lines if line.startswith("dense start: ")]
    assert f"dense_clean_accuracy {own:.4g}" in shown
    assert lines.index(shown) < next(i for i, line in enumerate(lines) if line.startswith("trial "))

    # Known by its SHA-256: in the rows, in the artifacts, and when the study is continued.
    (origin,) = set(trials["start"])
    _, name, digest = origin.split()
    artifact = result.folder.path / trials["artifact"][0]
    assert (name, read_header(artifact.read_bytes())["inputs"]) == ("theirs.pth", {"theirs.pth": digest})
    assert load_artifact(artifact)(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    # From here on the start lies in the run: it is not read from its user's place by the workers.
    more = run_study(study("theirs.pth", trials=2), runs=tmp_path, console=Console(file=(tmp_path / "more").open("w")))
    assert more.ran == 1
    shutil.copy("theirs.pth", "kept.pth")
    torch.save(theirs.state_dict(), "theirs.pth")
    with pytest.raises(RunError, match=r"theirs\.pth: is not the file that .* ran with .*; restore it"):
        run_study(study("theirs.pth", trials=3), runs=tmp_path)
