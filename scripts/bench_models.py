"""The models that scripts/bench_artifact.py packs: trained once by the package's own task, kept as plain tensors.

Beside each artifact lies a safetensors file with the model's factors and other tensors, so that a later version of the
format packs the same weights anew.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from atmc_search.artifact import Architecture, CompressedModel
from atmc_search.compress import Codebook, FactorisedLayer, GlobalL0, constrained_weights, factorise
from atmc_search.registry import validated
from atmc_search.tasks import Start, start_of
from atmc_search.tasks.atmc import AtmcSpec, AtmcTask
from atmc_search.training import load_tensors, make_repeatable, save_tensors

Tell = Callable[[str], None]

DENSITIES = (0.2, 0.05, 0.01, 0.003)
BITS = (2, 4, 8)
# LeNet takes images of at least 16 × 16; on digits, 8 × 8, the small CNN stands in.
SMALL_MODELS: Mapping[str, Mapping[str, Any]] = {
    "fashion_mnist": {"name": "lenet"},
    "digits": {"name": "small_cnn", "width": 16},
}
# By model: epochs of the dense start, and under the constraints.
_EPOCHS = {"lenet": (4, 3), "small_cnn": (24, 10), "resnet18": (2, 2)}
# What the tables of docs/artifact-size.md were made with, whatever the defaults are.
_PLAIN_SGD = {"lr_schedule": "cosine", "warmup": 0.0, "nesterov": False, "clip_norm": None}
_OF_THE_PAPER = {"schedule": None, "count": "all", "codebook": "admm", "codebook_from": 0.5}
_PGD = {"name": "pgd", "steps": 5}


@dataclass(frozen=True)
class Trained:
    """One row of the benchmark: what is trained, and the name of its files."""

    name: str
    trial: Mapping[str, Any]


def rows(data: str) -> list[Trained]:
    """All models: the small one at every density and width, once in UV + C form, and a ResNet-18 on digits."""
    small = SMALL_MODELS[data]
    found = [_row(data, small, density, bits) for density, bits in itertools.product(DENSITIES, BITS)]
    return [*found, _row(data, small, 0.05, 4, "uvc"), _row("digits", {"name": "resnet18"}, 0.05, 4)]


def trained(row: Trained, folder: Path, tell: Tell) -> CompressedModel:
    """The model of a row, from `folder` if it is there, else trained and kept there."""
    path = folder / f"{row.name.replace(' ', '-').replace('%', 'pc')}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        tell(f"training {row.name}")
        artifact, model = _train(row, folder, tell)
        path.with_suffix(".atmc").write_bytes(artifact)
        _save(path, model)
    return _load(path)


def synthetic() -> CompressedModel:
    """A ResNet-34 of random weights, 5 % kept and on 16 values a tensor: only its times mean anything."""
    architecture = Architecture("resnet34", {}, (3, 32, 32), 10)
    net = architecture.build()
    layers = factorise(net, "none")
    weights = constrained_weights(net, layers)
    kept, _ = GlobalL0(math.floor(0.05 * sum(weight.numel() for weight in weights.values()))).project(weights, None)
    quantised, _ = Codebook(4).project(kept, {})
    return CompressedModel.of(net.eval(), layers, architecture, weights=quantised)


def _row(data: str, model: Mapping[str, Any], density: float, bits: int, factors: str = "none") -> Trained:
    fashion = data == "fashion_mnist"
    images = {"train_size": 10_000, "validation_size": 1_000} if fashion else {}
    stage = {**_PLAIN_SGD, "lr": 0.05, "batch_size": 128 if fashion else 64, "attack": _PGD}
    dense, epochs = _EPOCHS[model["name"]]
    trial = {
        "data": {"name": data, **images},
        "model": dict(model),
        "threat": {"norm": "linf", "eps": 0.1},
        "dense": {"epochs": dense, **stage},
        "train": {"epochs": epochs, **stage},
        "compress": {"factors": factors, "keep": density, "bits": bits, **_OF_THE_PAPER},
        "evaluate": {"attack": {"name": "pgd", "steps": 10}, "every": epochs, "masking_images": 0},
    }
    form = "" if factors == "none" else f" {factors}"
    return Trained(f"{model['name']} {density:.1%} {bits} bit{form}", trial)


def _train(row: Trained, folder: Path, tell: Tell) -> tuple[bytes, CompressedModel]:
    """The artifact that the task measured, and what it holds."""
    from atmc_search.artifact.container import read_contents  # of the task's own bytes, so always of today's format

    make_repeatable("cpu")
    spec = validated(AtmcSpec, dict(row.trial), path="trial")
    data = AtmcTask.load(spec)
    AtmcTask.check(spec, data)
    task = AtmcTask(spec, data, _start(spec, data, folder, tell), device="cpu", meta={"study": "bench-artifact"})
    metrics: Mapping[str, Any] = {}
    while not task.done:
        metrics = task.step()
    tell(f"  clean {metrics['clean_accuracy']:.3f}, robust {metrics['robust_accuracy']:.3f}")
    return task.artifact(), read_contents(task.artifact()).compressed


def _start(spec: AtmcSpec, data: Any, folder: Path, tell: Tell) -> Start:
    """The dense start, shared by all rows of one model."""
    keys = AtmcTask.start_key(spec, data), AtmcTask.start_figures_key(spec, data)
    path = folder / f"start-{'-'.join(keys)}.safetensors"
    if not path.exists():
        made = start_of(AtmcTask, spec, data, device="cpu", report=lambda row: tell(f"  dense {dict(row)}"))
        path.write_bytes(made.to_bytes())
    return Start.from_bytes(path.read_bytes())


def _save(path: Path, model: CompressedModel) -> None:
    tensors = {f"weights/{name}": tensor for name, tensor in model.weights.items()}
    tensors |= {f"others/{name}": tensor for name, tensor in model.others.items()}
    facts = {
        "architecture": dataclasses.asdict(model.architecture),
        "layers": [dataclasses.asdict(layer) for layer in model.layers],
        "meta": dict(model.meta),
        "names": {"weights": list(model.weights), "others": list(model.others)},  # safetensors sorts its own
    }
    save_tensors(path, tensors, facts)


def _load(path: Path) -> CompressedModel:
    tensors, facts = load_tensors(path)
    architecture = Architecture(**facts["architecture"] | {"input_shape": tuple(facts["architecture"]["input_shape"])})
    layers = tuple(FactorisedLayer(**layer | {"shape": tuple(layer["shape"])}) for layer in facts["layers"])
    weights, others = (dict(_named(part, facts["names"][part], tensors)) for part in ("weights", "others"))
    return CompressedModel.of(architecture.build(), layers, architecture, weights, others, facts["meta"])


def _named(part: str, names: list[str], tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    for name in names:
        yield name, tensors[f"{part}/{name}"]
