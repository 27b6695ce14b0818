"""Every method on every kind of model: trained, packed, decoded and measured on tiny data."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_digits
from stages import PLAIN_SGD
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from atmc_search.artifact import unpack
from atmc_search.attacks import build_attack
from atmc_search.compress import factorisable, layers_to_compress
from atmc_search.data import DeviceData, ImageSet
from atmc_search.errors import SpecError, TrialFailed
from atmc_search.measure import measure
from atmc_search.spec import parse_study
from atmc_search.tasks import Start, TrialSpace
from atmc_search.tasks.atmc import AtmcTask
from atmc_search.tasks.atmc.data import AtmcData
from atmc_search.tasks.atmc.methods import METHODS
from atmc_search.tasks.atmc.spec import AtmcSpec
from atmc_search.training import AttackedBatches, attacked_loss

Finished = tuple[AtmcSpec, AtmcData, AtmcTask, dict[str, Any]]
# Every method on the small model; on those with batch norm, residuals and depthwise layers one of each kind of method.
PAIRS = [
    *((method, "lenet") for method in METHODS),
    *((method, "resnet18") for method in ("al0", "alr", "atmc_mixed")),
    *((method, "mobilenet_v2") for method in ("da", "atmc")),
]
KEEP, BITS = 0.03, 3
TEMPLATE: dict[str, Any] = {
    "data": {"name": "digits"},
    "threat": {"eps": 0.05},
    "dense": {**PLAIN_SGD, "epochs": 1, "lr": 0.02, "batch_size": 32, "attack": {"name": "fgsm"}},
    "train": {"epochs": 1, "lr": 0.01, "batch_size": 32, "attack": {"name": "fgsm"}},
    "compress": {
        "keep": KEEP,
        "bits": {"choice": [BITS, 8]},
        "dual_every": 1,
        "codebook_from": 0.0,
    },
    "evaluate": {"attack": {"name": "pgd", "steps": 2}, "masking_images": 8},
}


def spec_of(method: str, model: str, **compress: Any) -> AtmcSpec:
    """The trial of a study that mixes all methods."""
    template = {
        **TEMPLATE,
        "method": {"choice": list(METHODS)},
        "model": {"name": model},
        "compress": TEMPLATE["compress"] | compress,
    }
    if model == "mobilenet_v2":
        template["model"] = {"name": model, "width_mult": 0.5}
        # At KEEP so few steps leave it dead or alive by a rounding.
        template["compress"] = {**TEMPLATE["compress"], "keep": 2 * KEEP, **compress}
    space = TrialSpace.of(parse_study({"name": "mixed", "trial": template, "search": {"trials": 1}}))
    return space.fill({"trial.method": method, "trial.compress.bits": BITS})


@pytest.fixture(scope="module")
def splits() -> AtmcData:
    """The digits at 16×16 in three colours: small, and large enough for every model."""
    digits = load_digits()
    images = np.kron(digits.images[:, None] * (255 / 16), np.ones((1, 3, 2, 2))).astype(np.uint8)
    parts = [ImageSet(images[a:b], digits.target[a:b].astype(np.int64)) for a, b in ((0, 96), (96, 136), (136, 160))]
    return AtmcData(*parts, classes=10)


@pytest.fixture(scope="module")
def starts() -> dict[str, Start]:
    return {}


def start_for(spec: AtmcSpec, splits: AtmcData, starts: dict[str, Start]) -> Start:
    key = AtmcTask.start_key(spec, splits)
    if key not in starts:
        start = AtmcTask.make_start(spec, splits, device="cpu", report=lambda row: None)
        # One epoch leaves layers at the scale that they were born with, and a global budget would kill whole layers.
        even = {
            name: t * (0.05 / t.std()) if t.dim() > 1 and name.endswith("weight") else t
            for name, t in start.tensors.items()
        }
        starts[key] = replace(start, tensors=even)
    return starts[key]


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def finished(request: pytest.FixtureRequest, splits: AtmcData, starts: dict[str, Start]) -> Finished:
    spec = spec_of(*request.param)
    AtmcTask.check(spec, splits)
    task = AtmcTask(spec, splits, start_for(spec, splits, starts), device="cpu", meta={})
    metrics = {}
    while not task.done:
        metrics = task.step()
    return spec, splits, task, metrics


def test_what_is_reported_is_what_the_file_decodes_to(finished: Finished) -> None:
    spec, splits, task, metrics = finished
    data = task.artifact()
    assert metrics["size_bytes"] == len(data)
    attack = build_attack(spec.evaluate.attack, path="attack")
    model = unpack(data)
    again = measure(model, DeviceData(splits.validation, "cpu"), attack, spec.threat, batch_size=500, seed=0)
    assert again.metrics().items() <= metrics.items()
    assert metrics["masking_flags"] is not None
    if metrics["batch_norm_reestimated"]:
        assert any(isinstance(module, _BatchNorm) for module in model.modules())


def test_every_method_keeps_what_it_promises(finished: Finished) -> None:
    spec, _, task, metrics = finished
    decoded = unpack(task.artifact())
    weights = {layer.weight: decoded.get_parameter(layer.weight) for layer in layers_to_compress(decoded)}
    sizes = json.loads(metrics["bits_per_tensor"])
    trained = {name.rpartition(".")[2] for name in task._training.parts.support.weights} - {"weight"}
    bits = {b for b in sizes.values() if b}
    total = sum(w.numel() for w in weights.values())
    assert metrics["dense_weights"] == total
    expected: dict[str, tuple[set[str], set[int]]] = {
        "nap": (set(), {32}),
        "da": (set(), {32}),
        "ap": (set(), {32}),
        "al0": (set(), {32}),
        "alr": ({"U", "V"}, {32}),
        "atmc_32": ({"U", "V", "C"}, {32}),
        "atmc": ({"U", "V", "C"}, {BITS}),
        "atmc_mixed": ({"U", "V", "C"}, set(range(1, 9))),
        "continuous": (set(), {BITS}),
    }
    factors, widths = expected[spec.method or ""]
    assert trained == factors
    assert {name.rpartition(".")[2] for name in sizes} <= factors | {"weight"}  # or their product, where it is smaller
    assert bits <= widths
    if not isinstance(decoded.get_submodule("net"), torchvision.models.ResNet):  # that one dies in so few steps
        assert bits
    if spec.method == "da":
        assert metrics["density"] == 1
    elif spec.method == "alr":  # never below rank 1; grouped convolutions stay whole
        assert metrics["nnz"] <= max(round(spec.compress.keep * total), rank_one(decoded))
    else:
        assert metrics["nnz"] <= round(spec.compress.keep * total)
    if spec.method == "atmc":
        whole = [layer.weight for layer in task._training.layers if layer.form == "dense"]  # grouped convolutions
        for name in whole:
            assert len(weights[name][weights[name] != 0].unique()) <= 2**BITS, name


def rank_one(model: nn.Module) -> int:
    return sum(
        layer.rows + layer.columns if factorisable(model, layer) else layer.rows * layer.columns
        for layer in layers_to_compress(model)
    )


def test_nap_trains_on_clean_images_from_a_clean_start(splits: AtmcData) -> None:
    spec = spec_of("nap", "lenet")
    assert spec.dense.attack.name == spec.train.attack.name == "none"
    assert AtmcTask.start_key(spec, splits) != AtmcTask.start_key(spec_of("al0", "lenet"), splits)
    assert AtmcTask.start_key(spec_of("ap", "lenet"), splits) == AtmcTask.start_key(spec_of("al0", "lenet"), splits)


def test_ap_never_moves_a_weight_that_it_pruned(splits: AtmcData, starts: dict[str, Start]) -> None:
    spec = spec_of("ap", "lenet")
    start = start_for(spec, splits, starts)
    task = AtmcTask(spec, splits, start, device="cpu", meta={})
    task.step()
    decoded = unpack(task.artifact())
    names = [layer.weight for layer in layers_to_compress(decoded)]
    before = torch.cat([start.tensors[name].flatten() for name in names]).abs()
    after = torch.cat([decoded.get_parameter(name).flatten() for name in names])
    k = round(KEEP * len(before))
    assert not after[before < before.sort().values[-k]].any()
    assert 0.4 * k < int((after != 0).sum()) <= k  # what has no effect is left out of the file


@pytest.mark.parametrize(
    ("model", "budget", "least"), [("lenet", 7_000, 0.9), ("lenet", 9_500, 0.9), ("mobilenet_v2", 88_000, 0.6)]
)
def test_mixed_bits_meet_a_budget_of_bytes(
    model: str, budget: int, least: float, splits: AtmcData, starts: dict[str, Start]
) -> None:
    """Never above; below by what the last rounding leaves without effect, which is a lot where half the net is dead."""
    spec = spec_of("atmc_mixed", model, keep=0.1)
    spec = spec.model_copy(update={"compress": spec.compress.model_copy(update={"budget_bytes": budget})})
    task = AtmcTask(spec, splits, start_for(spec, splits, starts), device="cpu", meta={})
    metrics = task.step()
    assert least * budget <= metrics["size_bytes"] <= budget


@pytest.mark.parametrize(("bits", "budget"), [(32, 30_000), (32, 90_000), (4, 8_000), (4, 16_000)])
def test_ranks_meet_a_budget_of_bytes(bits: int, budget: int, splits: AtmcData, starts: dict[str, Start]) -> None:
    spec = spec_of("alr", "lenet")
    compress = spec.compress.model_copy(update={"budget_bytes": budget, "bits": bits})
    spec = spec.model_copy(update={"method": None, "compress": compress})
    task = AtmcTask(spec, splits, start_for(spec, splits, starts), device="cpu", meta={})
    metrics = task.step()
    assert 0.85 * budget <= metrics["size_bytes"] <= budget


@pytest.mark.parametrize("method", ["alr", "atmc_mixed"])
def test_a_budget_that_nothing_meets_is_a_failed_trial(method: str, splits: AtmcData, starts: dict[str, Start]) -> None:
    spec = spec_of(method, "lenet")
    spec = spec.model_copy(update={"compress": spec.compress.model_copy(update={"budget_bytes": 900})})
    with pytest.raises(TrialFailed, match=r"^budget_bytes = 900: .*; raise it"):
        AtmcTask(spec, splits, start_for(spec, splits, starts), device="cpu", meta={}).step()


def test_ranks_by_energy_keep_the_energy(splits: AtmcData, starts: dict[str, Start]) -> None:
    spec = spec_of("alr", "lenet")
    start = start_for(spec, splits, starts)
    densities = []
    for energy in (0.5, 0.95):
        wanted = spec.model_copy(update={"compress": spec.compress.model_copy(update={"energy": energy})})
        task = AtmcTask(wanted, splits, start, device="cpu", meta={})
        kept = total = 0.0
        for layer in task._training.layers:
            squares = torch.linalg.svdvals(layer.to_matrix(start.tensors[layer.weight])).square()
            kept += float(squares[: layer.rank or None].sum())  # rank 0: stored whole
            total += float(squares.sum())
            assert layer.rank * (layer.rows + layer.columns) < layer.rows * layer.columns
        assert kept >= energy * total
        densities.append(task.step()["density"])
    assert densities[0] < densities[1]


@pytest.mark.parametrize(("setting", "anew"), [("kept", False), ("reestimated", True)])
def test_batch_norm_statistics_are_gathered_anew_when_asked(
    setting: str, anew: bool, splits: AtmcData, starts: dict[str, Start]
) -> None:
    spec = spec_of("al0", "resnet18", batch_norm=setting)
    metrics = AtmcTask(spec, splits, start_for(spec, splits, starts), device="cpu", meta={}).step()
    assert metrics["batch_norm_reestimated"] is anew


def test_the_better_statistics_are_deployed(splits: AtmcData) -> None:
    """Better: with the lower loss on attacked training images."""
    starts: dict[str, Start] = {}
    for epochs in (1, 3):
        files, losses = {}, {}
        for setting in ("kept", "reestimated", "best"):
            spec = spec_of("al0", "wide_resnet", keep=0.3, batch_norm=setting)
            train = spec.train.model_copy(update={"epochs": epochs})
            model = spec.model.model_copy(update={"depth": 10, "widen_factor": 1})
            spec = spec.model_copy(update={"model": model, "train": train})
            task = AtmcTask(spec, splits, start_for(spec, splits, starts), device="cpu", meta={})
            while not task.done:
                metrics = task.step()
            attack = build_attack(spec.train.attack, path="attack")
            batches = AttackedBatches(DeviceData(splits.train, "cpu"), attack, spec.threat, 32, spec.seed)
            decoded = unpack(task.artifact())
            files[setting] = [tensor.clone() for tensor in decoded.state_dict().values()]
            losses[setting] = attacked_loss(decoded, batches, 8)
        better = min(("kept", "reestimated"), key=lambda setting: losses[setting])
        assert losses["kept"] != losses["reestimated"]
        assert all(torch.equal(a, b) for a, b in zip(files["best"], files[better], strict=True))
        assert metrics["batch_norm_reestimated"] is (better == "reestimated")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "atcm"}, "trial.method = 'atcm': unknown method; did you mean 'atmc'?"),
        (
            {"compress": {"keep": 0.1, "bit_allocation": "mixed"}},
            "bit_allocation mixed spreads the bytes of a codebook; set bits to 1 to 8",
        ),
        ({"compress": {"keep": 0.1, "energy": 0.5}}, "energy sets the ranks of low_rank and factors is none"),
        ({"compress": {"keep": 0.1, "budget_bytes": 500}}, "budget_bytes needs something to set"),
        (
            {"compress": {"keep": 0.1, "factors": "low_rank", "energy": 0.5, "budget_bytes": 9}},
            "energy and budget_bytes both set the ranks",
        ),
        (
            {"compress": {"budget_bytes": 500}, "evaluate": {"select": "best"}},
            "compress.budget_bytes is met by the file of the last epoch, and evaluate.select best may report that of "
            "another; remove one of them",
        ),
        (
            {"compress": {"budget_bytes": 500}, "train": {"epochs": 1, "patience": 2}},
            "and train.patience may report that of another",
        ),
        (
            {"compress": {"keep": 0.1, "pruning": "harp", "importance": "lamp"}},
            "importance lamp chooses among magnitudes and pruning is harp; remove importance",
        ),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], message: str) -> None:
    trial = {
        "data": {"name": "digits"},
        "model": {"name": "lenet"},
        "threat": {"eps": 0.1},
        "dense": {"epochs": 1},
        "train": {"epochs": 1},
        "compress": {"keep": 0.1},
    }
    with pytest.raises(SpecError) as caught:
        TrialSpace.of(parse_study({"name": "x", "trial": trial | change, "search": {"trials": 1}}))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_method_overrules_what_the_template_says_and_only_that() -> None:
    spec = spec_of("nap", "lenet", bits=4)
    assert (spec.train.attack.name, spec.compress.bits, spec.compress.keep) == ("none", 32, KEEP)
    assert spec_of("atmc", "lenet", bits=4).compress.bits == 4


def test_every_value_is_tried_beside_every_method_before_anything_runs() -> None:
    choices = {"method": {"choice": ["atmc", "atmc_mixed"]}, "compress": {"keep": 0.1, "bits": {"choice": [4, 32]}}}
    trial = {**TEMPLATE, "model": {"name": "lenet"}} | choices
    with pytest.raises(SpecError, match="bit_allocation mixed spreads the bytes of a codebook"):
        TrialSpace.of(parse_study({"name": "mixed", "trial": trial, "search": {"trials": 1}}))


@pytest.mark.parametrize(
    ("setting", "value", "uses"), [("energy", 0.9, {"alr"}), ("budget_bytes", 9000, {"alr", "atmc_mixed"})]
)
def test_settings_of_some_methods_may_stand_in_a_study_of_all(setting: str, value: float, uses: set[str]) -> None:
    for method in METHODS:
        spec = spec_of(method, "lenet", **{setting: value})
        assert getattr(spec.compress, setting) == (value if method in uses else None)


def test_bytes_in_place_of_keep_are_for_methods_that_can_meet_them():
    template = deepcopy({**TEMPLATE, "model": {"name": "lenet"}})
    del template["compress"]["keep"]
    template["compress"] |= {"budget_bytes": 9000, "bits": 4}

    def space(method: str) -> TrialSpace:
        trial = template | {"method": method}
        return TrialSpace.of(parse_study({"name": "x", "trial": trial, "search": {"trials": 1}}))

    for method in ("continuous", "atmc_mixed"):
        spec = space(method).fill({})
        assert (spec.compress.budget_bytes, spec.compress.keep) == (9000, None)
    for method in ("al0", "atmc"):
        with pytest.raises(
            SpecError, match=rf"9000: method {method} takes its size from keep; give keep, or use one of"
        ):
            space(method)


def test_only_what_its_method_uses_is_a_trial_s_config() -> None:
    template = {**TEMPLATE, "model": {"name": "lenet"}, "method": {"choice": ["al0", "atmc"]}}
    space = TrialSpace.of(parse_study({"name": "mixed", "trial": template, "search": {"trials": 1}}))
    assert list(space.distributions) == ["trial.compress.bits", "trial.method"]
    assert list(space.active({"trial.method": "al0"})) == ["trial.method"]
    assert list(space.active({"trial.method": "atmc"})) == ["trial.compress.bits", "trial.method"]
    one = {"name": "one", "trial": {**template, "method": "al0"}, "search": {"trials": 1}}
    alone = TrialSpace.of(parse_study(one))
    assert list(alone.distributions) == []
    assert alone.fill({}).compress.bits == 32


def test_a_trial_that_is_not_what_its_method_says_is_refused() -> None:
    document = spec_of("al0", "lenet").model_dump()
    document["compress"]["bits"] = 4
    with pytest.raises(
        ValueError, match=r"compress\.bits is 4, which method al0 fixes to 32; remove it, or the method"
    ):
        AtmcSpec.model_validate(document)
