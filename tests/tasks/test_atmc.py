from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stages import step_of

from atmc_search.artifact import Architecture, read_header, unpack
from atmc_search.artifact.container import read_contents
from atmc_search.attacks import FGSMRS, PGD, build_attack
from atmc_search.data import DeviceData, Splits
from atmc_search.errors import SpecError, TrialFailed
from atmc_search.export.costs import running_costs
from atmc_search.measure import measure, wilson_interval
from atmc_search.models import placed
from atmc_search.spec import fingerprint
from atmc_search.tasks import Start, start_of
from atmc_search.tasks.atmc import AtmcSpec, AtmcTask
from atmc_search.tasks.atmc.deploy import Deployed
from atmc_search.tasks.atmc.measurer import Measured, Measurer
from atmc_search.training import Guard, load_tensors, save_tensors, train_epoch

Maker = Callable[..., AtmcSpec]
TYPES = {"int64": int, "float64": float, "string": str, "bool": bool}

# Compression settings of every kind, and the least that they must save against the dense model's bytes.
FAMILIES: dict[str, dict[str, Any]] = {
    "none, 3 bits": {"factors": "none", "bits": 3},
    "none, 1 bit, fp32": {"factors": "none", "bits": 1, "floats": "fp32", "codebook_from": 0.0},
    "none, no codebook": {"factors": "none", "bits": 32},
    "none, 8 bits, all weights": {"factors": "none", "bits": 8, "keep": 1.0},
    "uvc, 3 bits": {"factors": "uvc", "bits": 3},
    "uvc, no codebook": {"factors": "uvc", "bits": 32, "keep": 0.05},
    "uvc_plain, 2 bits": {"factors": "uvc_plain", "bits": 2},
}


CUBIC = {"name": "cubic", "from": 0.1, "to": 0.6, "freeze": 0.9}


def task_of(spec: AtmcSpec, data: Splits, start: Start, **meta: Any) -> AtmcTask:
    return AtmcTask(spec, data, start, device="cpu", meta=meta)


def factors_of(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The factors that a file holds."""
    return {name: tensor.numpy() for name, tensor in read_contents(data).compressed.weights.items()}


@pytest.fixture(scope="module", params=FAMILIES)
def finished(
    request: pytest.FixtureRequest, tiny_trial: Maker, tiny_splits: Splits, tiny_start: Start
) -> tuple[AtmcSpec, AtmcTask, dict[str, Any]]:
    """A trial of two epochs of every family, and its last metrics."""
    spec = tiny_trial(train={"epochs": 2}, compress=FAMILIES[request.param])
    task = task_of(spec, tiny_splits, tiny_start, study="tests", trial=7)
    task.step()
    return spec, task, task.step()


def test_the_start_of_these_tests_has_learnt_something(tiny_start):
    assert 0.3 < tiny_start.facts["dense_robust_accuracy"] < tiny_start.facts["dense_clean_accuracy"]


# --- what a step returns


def test_metrics_are_declared_columns_of_their_type(finished):
    _, _, metrics = finished
    columns = {column.name: column for column in AtmcTask.columns}
    # A measured epoch fills them all, but for those that the spec does not ask for.
    assert metrics.keys() == {name for name, column in columns.items() if column.needs is None}
    for name, value in metrics.items():
        assert type(value) is TYPES[columns[name].kind], name
        if columns[name].kind == "string":
            assert value or name == "masking_flags", name
        else:
            assert columns[name].low <= value <= columns[name].high, name


def test_the_size_is_the_file_s(finished):
    _, task, metrics = finished
    assert metrics["size_bytes"] == len(task.artifact()) < metrics["dense_size_bytes"]


def test_a_trial_that_is_to_run_its_export_reports_what_that_costs(tiny_trial, tiny_splits, tiny_start):
    spec = tiny_trial(evaluate={"runtime": "onnxruntime"})
    facts = dict(tiny_start.facts) | {"dense_latency_ms": 0.5}  # the start's own travel along
    task = task_of(spec, tiny_splits, Start(tiny_start.tensors, facts))
    metrics = task.step()
    assert metrics["dense_latency_ms"] == 0.5
    assert 0 < metrics["macs"] <= metrics["dense_macs"]
    model = unpack(task.artifact())
    again = running_costs(model, Architecture("small_cnn", {"width": 4}, tiny_splits.input_shape, 10), "onnxruntime")
    columns = {column.name: column for column in AtmcTask.columns}
    asked = [name for name, column in columns.items() if column.needs and not name.startswith("dense_")]
    assert again.keys() == {"macs", *asked}
    assert {"latency_ms", "peak_memory_bytes"} <= set(asked)
    for name in asked:
        assert type(metrics[name]) is TYPES[columns[name].kind], name
        assert f"dense_{name}" in columns
    for name in ("macs", "peak_memory_bytes"):
        assert metrics[name] == again[name]


def test_a_start_that_is_to_run_its_export_and_the_reference_agree(tiny_trial, tiny_splits):
    spec = tiny_trial(dense={"epochs": 1}, evaluate={"runtime": "onnxruntime"})
    facts = start_of(AtmcTask, spec, tiny_splits, device="cpu", report=lambda row: None).facts
    reference = AtmcTask.reference(spec, tiny_splits)
    for name in ("macs", "peak_memory_bytes"):
        assert facts[f"dense_{name}"] == reference[name]
    assert reference["latency_ms"] > 0
    assert AtmcTask.start_figures_key(spec, tiny_splits) != AtmcTask.start_figures_key(
        tiny_trial(dense={"epochs": 1}), tiny_splits
    )


def test_figures_come_back_to_the_digit_from_the_file_alone(finished, tiny_splits):
    spec, task, metrics = finished
    figures = measure(
        unpack(task.artifact()),
        DeviceData(tiny_splits.validation, "cpu"),
        build_attack(spec.evaluate.attack, path=""),
        spec.threat,
        batch_size=spec.evaluate.batch_size,
        seed=spec.evaluate.seed,
    )
    for kind, accuracy in (("clean", figures.clean), ("robust", figures.robust)):
        assert metrics[f"{kind}_accuracy"] == accuracy.value
        ends = (metrics[f"{kind}_accuracy_low"], metrics[f"{kind}_accuracy_high"])
        assert ends == wilson_interval(accuracy.correct, metrics["validation_images"])
    assert metrics["validation_images"] == len(tiny_splits.validation)


def test_the_file_keeps_the_budget_and_the_codebooks(finished):
    spec, task, metrics = finished
    factors = factors_of(task.artifact())
    counts = {name: int(np.count_nonzero(values)) for name, values in factors.items()}
    budget = round(spec.compress.keep * metrics["dense_weights"])
    assert 0 < sum(counts.values()) <= budget
    assert sum(counts.values()) == metrics["nnz"]
    assert metrics["density"] == metrics["nnz"] / metrics["dense_weights"]
    assert max(len(np.unique(v[v != 0])) for v in factors.values()) <= 2**spec.compress.bits
    assert list(json.loads(metrics["bits_per_tensor"])) == list(factors)


def test_the_header_says_where_the_file_is_from(finished):
    spec, task, _ = finished
    header = read_header(task.artifact())
    assert (header["study"], header["trial"]) == ("tests", 7)
    assert header["threat"] == [spec.threat.norm, spec.threat.eps]
    assert header["fingerprint"] == fingerprint(spec.model_dump(mode="json"))


def test_the_start_is_shared_and_so_left_alone(tiny_trial, tiny_splits, tiny_start):
    before = {name: tensor.clone() for name, tensor in tiny_start.tensors.items()}
    task_of(tiny_trial(), tiny_splits, tiny_start).step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_start.tensors.items())


def test_the_dense_start_is_a_function_of_its_spec_and_reports_its_epochs(tiny_trial, tiny_splits):
    rows: list[Any] = []
    spec = tiny_trial(dense={"epochs": 2}, model={"name": "mlp", "hidden": [16]})
    first = AtmcTask.make_start(spec, tiny_splits, device="cpu", report=rows.append)
    second = AtmcTask.make_start(spec, tiny_splits, device="cpu", report=rows.append)
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert [(row["epoch"], row["epochs"]) for row in rows] == [(1, 2), (2, 2)] * 2
    assert rows[1]["loss"] < rows[0]["loss"]
    mean, std = tiny_splits.channel_stats()
    assert torch.allclose(first.tensors["normalize.mean"].flatten(), torch.tensor(mean, dtype=torch.float32))
    assert torch.allclose(first.tensors["normalize.std"].flatten(), torch.tensor(std, dtype=torch.float32))


@pytest.mark.parametrize(("train", "dense"), [(0.0, 0.9), (0.9, 0.0)])
def test_trials_train_by_the_settings_of_train_and_not_of_dense(tiny_trial, tiny_splits, tiny_start, train, dense):
    spec = tiny_trial(train={"momentum": train}, dense={"momentum": dense})
    task = task_of(spec, tiny_splits, tiny_start)
    task.step()
    assert any(name.startswith("momentum/") for name in task.state_dict()[0]) == (train > 0)


def test_with_every_weight_and_no_codebook_training_goes_on_from_the_dense_start(tiny_trial, tiny_splits, tiny_start):
    """With nothing bound and a vanishing rate, the artifact is the dense start, and its figures those of the start."""
    spec = tiny_trial(train={"lr": 1e-12, "weight_decay": 0.0}, compress={"bits": 32, "keep": 1.0, "floats": "fp32"})
    task = task_of(spec, tiny_splits, tiny_start)
    metrics = task.step()
    for name, tensor in unpack(task.artifact()).state_dict().items():
        assert torch.allclose(tensor, tiny_start.tensors[name], atol=1e-7)
    assert metrics["clean_accuracy"] == metrics["dense_clean_accuracy"]
    assert metrics["robust_accuracy"] == metrics["dense_robust_accuracy"]


@pytest.mark.parametrize(
    ("epochs", "every", "measured"),
    [(4, 1, [1, 2, 3, 4]), (4, 2, [2, 4]), (5, 2, [2, 4, 5]), (3, 7, [3])],
)
def test_epochs_between_measurements(tiny_trial, tiny_splits, tiny_start, epochs, every, measured):
    spec = tiny_trial(train={"epochs": epochs, "batch_size": 128}, evaluate={"every": every})
    task = task_of(spec, tiny_splits, tiny_start)
    found = []
    last = b""
    while not task.done:
        metrics = task.step()
        assert {"loss", "adversarial_train_accuracy", "train_s", "dense_s"} <= metrics.keys()
        measures = {"size_bytes", "clean_accuracy", "robust_accuracy", "nnz"} & metrics.keys()
        assert len(measures) in (0, 4)
        if measures:
            found.append(task.epoch)
            last = task.artifact()
            assert metrics["size_bytes"] == len(last)
        elif last:
            assert task.artifact() == last
    assert (found, task.epoch) == (measured, epochs)


def test_a_diverging_trial_fails_with_a_reason(tiny_trial, tiny_splits, tiny_start):
    task = task_of(tiny_trial(train={"lr": 1e12}), tiny_splits, tiny_start)
    with pytest.raises(TrialFailed, match="diverged"):
        task.step()


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
def test_under_a_schedule_every_measured_file_is_within_the_final_budget(tiny_trial, tiny_splits, tiny_start, factors):
    compress = {"factors": factors, "schedule": CUBIC, "codebook_from": 0.0, "keep": 0.1}
    task = task_of(tiny_trial(train={"epochs": 4}, compress=compress), tiny_splits, tiny_start)
    while not task.done:
        metrics = task.step()
        held = sum(int(weight.count_nonzero()) for weight in task._training.parts.support.weights.values())
        budget = round(0.1 * metrics["dense_weights"])
        assert 0 < metrics["nnz"] <= budget
        assert (held > budget) == (task.epoch < 3)  # training itself comes down to it between epochs two and three


@pytest.mark.parametrize(
    "compress",
    [
        {"factors": "uvc", "schedule": {"name": "grow", "every": 2, "from": 0.0, "to": 0.8}},
        {"factors": "uvc", "schedule": CUBIC, "price": "bytes"},
        {"schedule": CUBIC, "count": "live", "price": "bytes"},
        {"schedule": CUBIC, "count": "live", "importance": "lamp"},
        {"pruning": "hydra", "scores": {"share": 0.5}},
        {"pruning": "hydra", "scores": {"share": 0.6, "budget": "global"}, "count": "live"},
        {"pruning": "harp", "scores": {"share": 0.6}},
    ],
    ids=str,
)
def test_however_the_support_is_found_every_measured_file_is_within_the_budget(
    tiny_trial, tiny_splits, tiny_start, compress
):
    spec = tiny_trial(train={"epochs": 2}, compress={"keep": 0.05, "codebook_from": 0.0} | compress)
    task = task_of(spec, tiny_splits, tiny_start)
    while not task.done:
        metrics = task.step()
        assert 0 < metrics["nnz"] <= round(0.05 * metrics["dense_weights"])


@pytest.mark.parametrize("pruning", ["projected", "one_shot"])
def test_a_budget_of_living_weights_is_all_in_the_file(tiny_trial, tiny_splits, tiny_start, pruning):
    def non_zeros(**compress: Any) -> tuple[int, int]:
        spec = tiny_trial(compress={"bits": 32, "keep": 0.01, "pruning": pruning} | compress)
        metrics = task_of(spec, tiny_splits, tiny_start).step()
        return metrics["nnz"], round(0.01 * metrics["dense_weights"])

    plain, budget = non_zeros()
    assert plain < budget
    assert non_zeros(count="live") == (budget, budget)


def test_without_dense_epochs_trials_start_from_the_initial_weights(tiny_trial, tiny_splits):
    spec = tiny_trial(dense={"epochs": 0, "seed": 3}, train={"epochs": 2}, compress={"schedule": CUBIC})
    start = AtmcTask.make_start(spec, tiny_splits, device="cpu", report=lambda row: None)
    mean, std = tiny_splits.channel_stats()
    initial = Architecture("small_cnn", {"width": 4}, tiny_splits.input_shape, 10).build(mean, std, seed=3)
    assert all(torch.equal(start.tensors[name], tensor) for name, tensor in initial.state_dict().items())
    task = task_of(spec, tiny_splits, start)
    assert task.step()["loss"] > task.step()["loss"]


@pytest.mark.parametrize("stage", ["dense", "train"])
def test_a_stage_s_own_eps_is_the_radius_of_its_attack_and_figures_stay_those_of_the_threat(
    tiny_trial, tiny_splits, tiny_start, stage
):
    """With eps 0.07 beside a threat of 0.05 a stage learns what it learns at a threat of 0.07."""

    def learnt(**changes: Any) -> tuple[dict[str, torch.Tensor], float]:
        spec = tiny_trial(**changes)
        if stage == "dense":
            start = start_of(AtmcTask, spec, tiny_splits, device="cpu", report=lambda row: None)
            return dict(start.tensors), start.facts["dense_robust_accuracy"]
        task = task_of(spec, tiny_splits, tiny_start)
        robust = task.step()["robust_accuracy"]
        return {name: tensor for name, tensor in task.state_dict()[0].items() if name.startswith("model/")}, robust

    own = {"epochs": 2, "lr": 0.05}  # enough for figures that tell the two radii of measuring apart
    apart, measured = learnt(**{stage: own | {"eps": 0.07}})
    wider, other = learnt(**{stage: own}, threat={"eps": 0.07})
    same, _ = learnt(**{stage: own})
    assert all(torch.equal(apart[name], wider[name]) for name in wider)
    assert any(not torch.equal(apart[name], same[name]) for name in same)
    assert measured > other  # the smaller threat's, on equal weights


@pytest.mark.parametrize(("pruning", "keep"), [("projected", 0.95), ("one_shot", 0.5), ("none", 1.0)])
def test_an_average_of_the_weights_is_packed_within_the_budget_and_training_does_not_feel_it(
    tiny_trial, tiny_splits, tiny_start, pruning, keep
):
    compress = {"pruning": pruning, "keep": keep, "bits": 32, "floats": "fp32"}
    train = {"epochs": 2, "lr": 0.05}
    task = task_of(tiny_trial(train=train | {"ema": 0.95}, compress=compress), tiny_splits, tiny_start)
    plain = task_of(tiny_trial(train=train, compress=compress), tiny_splits, tiny_start)
    for _ in range(2):
        metrics, without = task.step(), plain.step()
    assert metrics["loss"] == without["loss"]
    trained, state = plain.state_dict()[0], task.state_dict()[0]
    assert all(torch.equal(state[name], tensor) for name, tensor in trained.items())
    average = {name.removeprefix("average/"): t for name, t in state.items() if name.startswith("average/")}
    entries = sum(int(average[name].count_nonzero()) for name in task._training.parts.support.weights)
    budget = round(keep * metrics["dense_weights"])
    assert metrics["nnz"] <= budget
    assert (entries > budget) == (pruning == "projected")  # supports differ from step to step, unless fixed
    if pruning == "none":
        for name, tensor in unpack(task.artifact()).state_dict().items():
            assert torch.allclose(tensor, average[name], atol=1e-7), name
            assert name.startswith("normalize") or not torch.allclose(tensor, trained[f"model/{name}"], atol=1e-5), name


def scripted(monkeypatch: pytest.MonkeyPatch, robust: list[float]) -> None:
    """Has each measurement of a trial come out with the next of these robust accuracies, and a size to tell it by."""
    found = iter(enumerate(robust, start=1))

    def measured(measurer: Measurer, deployed: Deployed) -> Measured:
        number, value = next(found)
        return Measured(bytes(number), {"size_bytes": number, "robust_accuracy": value, "clean_accuracy": 0.9})

    monkeypatch.setattr(Measurer, "measured", measured)


@pytest.mark.parametrize(
    ("select", "expected"), [("last", [1, 2, 3, 4, 5]), ("best", [1, 2, 2, 4, 4])], ids=["last", "best"]
)
def test_a_row_s_epoch_size_figures_and_artifact_are_of_one_measurement(
    tiny_trial, tiny_splits, tiny_start, tmp_path, monkeypatch, select, expected
):
    values = [0.3, 0.5, 0.4, 0.6, 0.6]  # an equal one does not take over
    scripted(monkeypatch, values)
    spec = tiny_trial(train={"epochs": 5, "batch_size": 256}, evaluate={"select": select})
    task = task_of(spec, tiny_splits, tiny_start)
    for number, epoch in enumerate(expected):
        row = task.step()
        assert (row["measured_epoch"], row["size_bytes"], row["robust_accuracy"]) == (epoch, epoch, values[epoch - 1])
        assert len(task.artifact()) == epoch
        if number == 2:
            save_tensors(tmp_path / "c", *task.state_dict())
            task = task_of(spec, tiny_splits, tiny_start)
            task.load_state_dict(*load_tensors(tmp_path / "c"))


@pytest.mark.parametrize(
    ("patience", "compress", "epochs"),
    [
        (None, {"bits": 32}, 8),
        (1, {"bits": 32}, 3),
        (2, {"bits": 32}, 4),
        (3, {"bits": 32}, 8),  # epoch 5 is better
        (1, {"codebook_from": 0.5}, 6),  # counts from where the codebook has set in: epoch 5 is the first, and better
        (1, {"bits": 32, "schedule": {"name": "cubic", "from": 0.0, "to": 0.7}}, 6),
    ],
)
def test_patience_ends_a_trial_after_so_many_measurements_without_a_better_one(
    tiny_trial, tiny_splits, tiny_start, tmp_path, monkeypatch, patience, compress, epochs
):
    scripted(monkeypatch, [0.3, 0.5, 0.4, 0.5, 0.6, 0.1, 0.2, 0.6])
    spec = tiny_trial(train={"epochs": 8, "batch_size": 256, "patience": patience}, compress=compress)
    task = task_of(spec, tiny_splits, tiny_start)
    while not task.done:
        task.step()
    assert task.epoch == epochs
    save_tensors(tmp_path / "c", *task.state_dict())
    again = task_of(spec, tiny_splits, tiny_start)
    again.load_state_dict(*load_tensors(tmp_path / "c"))
    assert again.done


def test_the_dense_start_is_that_of_its_best_epoch_and_later_ones_leave_it(tiny_trial, tiny_splits):
    """A rate that rises without end undoes what the first epochs learnt."""
    changes = {"epochs": 4, "lr": 1.0, "lr_schedule": "constant", "warmup": 3.9, "batch_size": 16}
    rows: list[Any] = []
    spec = tiny_trial(dense=changes | {"select": "best"})
    best = start_of(AtmcTask, spec, tiny_splits, device="cpu", report=rows.append)
    last = start_of(AtmcTask, tiny_trial(dense=changes), tiny_splits, device="cpu", report=lambda row: None)
    figures = [row["robust_accuracy"] for row in rows]
    epoch = best.facts["dense_epoch"]
    assert figures[epoch - 1] == max(figures) > figures[-1]
    assert last.facts["dense_epoch"] == 4
    assert best.facts["dense_robust_accuracy"] > last.facts["dense_robust_accuracy"]
    model = Architecture("small_cnn", {"width": 4}, tiny_splits.input_shape, 10).build()
    model.load_state_dict(dict(best.tensors))
    again = measure(
        model.eval(), DeviceData(tiny_splits.validation, "cpu"), PGD(steps=10), spec.threat, batch_size=500, seed=0
    )
    assert again.robust.value == max(figures)


def test_the_teacher_is_the_dense_start_on_clean_images(tiny_trial, tiny_splits, tiny_start):
    """Nothing bound, no attack, soft labels alone: at the start itself the divergence from it is nil."""
    train = {"lr": 1e-12, "weight_decay": 0.0, "attack": {"name": "none"}, "distillation": {"weight": 1.0}}
    spec = tiny_trial(train=train, compress={"bits": 32, "keep": 1.0})
    assert task_of(spec, tiny_splits, tiny_start).step()["loss"] == pytest.approx(0.0, abs=1e-6)
    attacked = tiny_trial(train=train | {"attack": {"name": "fgsm"}}, compress={"bits": 32, "keep": 1.0})
    assert task_of(attacked, tiny_splits, tiny_start).step()["loss"] > 0.01


def test_distillation_without_dense_training_is_refused(tiny_trial):
    with pytest.raises(ValueError, match=r"dense.epochs is 0; raise it"):
        tiny_trial(train={"distillation": {"weight": 0.5}}, dense={"epochs": 0})


def collapsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the guard find, epoch by epoch: sound; collapsed (PGD breaks what the attack does not)."""
    found = [(0.6, 0.7), (0.1, 0.9)]

    def collapsed(guard: Guard, model: torch.nn.Module, epoch: int) -> bool:
        monkeypatch.setattr(Guard, "_surviving", lambda self, m, attack: found[epoch - 1][attack == self.attack])
        return whole(guard, model, epoch)

    whole = Guard.collapsed
    monkeypatch.setattr(Guard, "collapsed", collapsed)


def test_a_dense_epoch_that_collapsed_is_undone_and_pgd_goes_on(tiny_trial, tiny_splits, monkeypatch):
    collapsing(monkeypatch)
    rows: list[Any] = []
    spec = tiny_trial(dense={"epochs": 3, "attack": {"name": "fgsm_rs"}, "guard": True})
    start = AtmcTask.make_start(spec, tiny_splits, device="cpu", report=rows.append)
    assert [row["collapsed_epoch"] for row in rows] == [0, 2, 2]
    assert start.facts["dense_collapsed_epoch"] == 2
    mean, std = tiny_splits.channel_stats()
    model = placed(Architecture("small_cnn", {"width": 4}, tiny_splits.input_shape, 10).build(mean, std, seed=0), "cpu")
    data, step = DeviceData(tiny_splits.train, "cpu"), step_of(model, spec.dense, threat=spec.threat)
    for epoch, attack in ((0, FGSMRS()), (2, PGD(steps=7))):
        step.attack = attack
        train_epoch(step, data, epoch=epoch, seed=0, label="dense")
    for name, tensor in model.state_dict().items():
        assert torch.equal(start.tensors[name], tensor), name


def test_a_trial_goes_back_with_all_that_follows_its_weights_and_resumes(
    tiny_trial, tiny_splits, tiny_start, tmp_path, monkeypatch
):
    collapsing(monkeypatch)
    train = {"epochs": 3, "attack": {"name": "fgsm_rs"}, "guard": True, "ema": 0.9}
    spec = tiny_trial(train=train, compress={"codebook_from": 0.0})
    whole = task_of(spec, tiny_splits, tiny_start)
    whole.step()
    good = {name: tensor.clone() for name, tensor in whole.state_dict()[0].items() if not name.startswith("good/")}
    assert whole.step()["collapsed_epoch"] == 2
    assert {"model", "momentum", "average"} <= {name.partition("/")[0] for name in good}
    assert {"copies", "duals", "centres"} <= {name.split("/")[1] for name in good if name.startswith("admm/")}
    now = whole.state_dict()[0]
    assert now.keys() == good.keys()
    assert all(torch.equal(now[name], tensor) for name, tensor in good.items())
    last = whole.step()
    for after in (1, 2):
        task, _ = resumed(spec, tiny_splits, tiny_start, tmp_path / "c", after)
        while not task.done:
            row = task.step()
        assert (row["loss"], row["collapsed_epoch"]) == (last["loss"], 2)
        assert task.artifact() == whole.artifact()


# --- resuming

TIMES = re.compile(r".*_s$")


def resumed(spec: AtmcSpec, data: Splits, start: Start, path: Path, after: int) -> tuple[AtmcTask, list[str]]:
    """A task that goes on from another's checkpoint file, and the tensors that were in it."""
    first = task_of(spec, data, start)
    for _ in range(after):
        first.step()
    save_tensors(path, *first.state_dict())
    del first
    tensors, facts = load_tensors(path)
    task = task_of(spec, data, start)
    task.load_state_dict(tensors, facts)
    return task, list(tensors)


TRADES = {"train": {"loss": {"name": "trades"}}}
EMA = {"train": {"ema": 0.9}}
FAST = {"train": {"attack": {"name": "fgsm_rs"}, "lr_schedule": "cyclic", "guard": True}}
TAUGHT = {"train": {"distillation": {"weight": 0.7, "temperature": 2.0}}}
BEST = {"train": {"lr": 0.1}, "evaluate": {"select": "best"}}


@pytest.mark.parametrize(
    ("technique", "factors"),
    [
        (TRADES, "none"),
        (TRADES, "low_rank"),
        (EMA, "uvc"),
        (EMA, "low_rank"),
        (BEST, "none"),
        (FAST, "none"),
        (FAST, "uvc_plain"),
        (TAUGHT, "uvc"),
    ],
)
def test_techniques_of_training_go_with_forms_and_resume_to_the_bit(
    tiny_trial, tiny_splits, tiny_start, tmp_path, technique, factors
):
    compress = {"factors": factors, "pruning": "none" if factors == "low_rank" else "projected", "codebook_from": 0.3}
    sections = {"train": {"epochs": 2, "batch_size": 60} | technique.get("train", {})}
    spec = tiny_trial(**sections, compress=compress, evaluate=technique.get("evaluate", {}))
    whole = task_of(spec, tiny_splits, tiny_start)
    rows = [whole.step() for _ in range(2)]
    plain = task_of(tiny_trial(train={"epochs": 2, "batch_size": 60}, compress=compress), tiny_splits, tiny_start)
    assert any(plain.step()[name] != row[name] for row in rows for name in ("loss", "size_bytes"))
    task, _ = resumed(spec, tiny_splits, tiny_start, tmp_path / "c", 1)
    again = task.step()
    assert {k: v for k, v in again.items() if not TIMES.match(k)} == {
        k: v for k, v in rows[1].items() if not TIMES.match(k)
    }
    assert task.artifact() == whole.artifact()


@pytest.mark.parametrize(
    ("compress", "after", "admm"),
    [
        ({"factors": "none"}, 2, True),
        ({"factors": "uvc"}, 2, True),
        ({"factors": "uvc_plain"}, 3, True),
        ({"factors": "none", "bits": 5, "keep": 0.6}, 2, True),  # where earlier centres are a better start than others
        ({"factors": "uvc", "codebook_from": 0.7}, 2, False),
        ({"factors": "none", "bits": 32}, 1, False),
        ({"factors": "none", "schedule": CUBIC}, 2, True),
        ({"factors": "uvc", "schedule": CUBIC, "bits": 32}, 1, False),
        ({"factors": "none", "schedule": {"name": "grow", "every": 2}}, 2, True),
        ({"factors": "uvc", "schedule": {"name": "grow", "every": 4}, "bits": 32}, 1, False),
        ({"pruning": "hydra", "scores": {"share": 0.6}, "codebook_from": 0.0}, 2, False),
        ({"pruning": "hydra", "scores": {"share": 0.3, "budget": "global"}, "count": "live"}, 2, True),
        ({"pruning": "harp", "scores": {"share": 0.6}, "codebook_from": 0.0}, 2, False),
        ({"pruning": "harp", "scores": {"share": 0.3}, "keep": 0.05}, 2, True),
        ({"factors": "uvc", "schedule": CUBIC, "price": "bytes"}, 1, False),
        ({"factors": "uvc", "importance": "lamp"}, 2, True),
        ({"factors": "none", "schedule": CUBIC, "count": "live", "keep": 0.02}, 2, True),
        ({"factors": "none", "codebook": "straight_through"}, 2, False),
        ({"factors": "uvc", "codebook": "straight_through", "bit_allocation": "mixed", "schedule": CUBIC}, 3, False),
        ({"factors": "uvc", "code_price": 0.02, "bits": 5}, 2, True),
        ({"factors": "none", "code_price": 0.02, "codebook": "straight_through"}, 2, False),
    ],
)
def test_a_resumed_trial_goes_on_to_the_bit(tiny_trial, tiny_splits, tiny_start, tmp_path, compress, after, admm):
    # 9 steps an epoch and a dual update every 5: the checkpoint falls between two.
    spec = tiny_trial(
        train={"epochs": 4, "batch_size": 30},
        compress={"codebook_from": 0.3, "dual_every": 5, "rho": 0.3} | compress,
    )
    whole = task_of(spec, tiny_splits, tiny_start)
    rows = [whole.step() for _ in range(4)]
    task, names = resumed(spec, tiny_splits, tiny_start, tmp_path / "c", after)
    assert any(name.startswith("admm/duals/") for name in names) == admm
    assert any("/centres/" in name for name in names) == (admm or "codebook" in compress)
    assert any(name.startswith("momentum/") for name in names)
    assert (task.epoch, task.done) == (after, False)
    for row in rows[after:]:
        again = task.step()
        assert {k: v for k, v in again.items() if not TIMES.match(k)} == {
            k: v for k, v in row.items() if not TIMES.match(k)
        }
    assert task.done
    assert task.artifact() == whole.artifact()
    assert task.state_dict()[0].keys() == whole.state_dict()[0].keys()
    for name, tensor in whole.state_dict()[0].items():
        assert torch.equal(task.state_dict()[0][name], tensor), name


def test_seconds_go_on_counting_after_a_resume(tiny_trial, tiny_splits, tiny_start, tmp_path):
    spec = tiny_trial(train={"epochs": 2})
    task, _ = resumed(spec, tiny_splits, tiny_start, tmp_path / "c", 1)
    before = task.state_dict()[1]["seconds"]
    metrics = task.step()
    assert all(metrics[name] > before[name] > 0 for name in ("train_s", "pack_s", "measure_s"))


@pytest.mark.parametrize(("seed", "same"), [(0, True), (1, False)])
def test_trials_follow_from_their_seed(tiny_trial, tiny_splits, tiny_start, seed, same):
    files = []
    for each in (0, seed):
        task = task_of(tiny_trial(seed=each), tiny_splits, tiny_start)
        task.step()
        torch.rand(3)
        files.append(factors_of(task.artifact()))
    assert all(np.array_equal(files[0][name], files[1][name]) for name in files[0]) == same


# --- the start's key


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        ({"seed": 5}, True),
        ({"train": {"lr": 0.5}}, True),
        ({"train": {"epochs": 9}}, True),
        ({"train": {"attack": {"name": "fgsm"}}}, True),
        ({"compress": {"keep": 0.5, "bits": 5, "factors": "uvc"}}, True),
        ({"data": {"seed": 1}}, False),
        ({"data": {"train_size": 128}}, False),
        ({"model": {"width": 5}}, False),
        ({"model": {"name": "mlp"}}, False),
        ({"threat": {"eps": 0.11}}, False),
        ({"threat": {"norm": "l2"}}, False),
        ({"dense": {"epochs": 2}}, False),
        ({"dense": {"seed": 1}}, False),
        ({"dense": {"attack": {"name": "pgd", "steps": 3}}}, False),
        ({"evaluate": {"attack": {"name": "pgd", "steps": 9}}}, True),  # its figures are kept apart
    ],
    ids=str,
)
def test_trials_share_a_start_where_only_their_own_training_differs(tiny_trial, tiny_splits, changes, shared):
    keys = {AtmcTask.start_key(spec, tiny_splits) for spec in (tiny_trial(), tiny_trial(**changes))}
    assert (len(keys) == 1) == shared


# --- what cannot run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"compress": {"keep": 1e-4}},
            "trial.compress.keep = 0.0001: the budget is impossible, 0 non-zeros for 5 layers",
        ),
        (
            {"dense": {"attack": {"name": "pgdd"}}},
            "trial.dense.attack.name = 'pgdd': unknown name; did you mean 'pgd'?",
        ),
        (
            {"train": {"attack": {"name": "pgd", "step": 3}}},
            "trial.train.attack.step: unknown key; did you mean 'steps'?",
        ),
        ({"train": {"attack": {"name": "pgd", "steps": 0}}}, "trial.train.attack.steps = 0: "),
        ({"evaluate": {"attack": {"name": "pgd", "steps": 2.5}}}, "trial.evaluate.attack.steps = 2.5: "),
        ({"evaluate": {"attack": {"name": "fgsm", "steps": 1}}}, "trial.evaluate.attack.steps: unknown key"),
        ({"model": {"name": "small_cnnn"}}, "trial.model.name = 'small_cnnn': unknown name; did you mean 'small_cnn'?"),
        ({"model": {"width": 0}}, "trial.model.width = 0: must be a positive integer"),
        ({"model": {"name": "lenet", "width": 4}}, "trial.model.width: unknown key"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line_with_its_path(tiny_trial, tiny_splits, changes, words):
    with pytest.raises(SpecError) as caught:
        AtmcTask.check(tiny_trial(**changes), tiny_splits)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_runtime_whose_packages_are_missing_is_refused(tiny_trial, tiny_splits, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # an import of it fails
    model = {
        "name": "mlp",
        "hidden": [7],
    }  # which no other test measures: a figure that is known is not asked for again
    AtmcTask.check(tiny_trial(model=model), tiny_splits)
    with pytest.raises(SpecError) as caught:
        AtmcTask.check(tiny_trial(model=model, evaluate={"runtime": "onnxruntime"}), tiny_splits)
    message = str(caught.value)
    assert message.startswith("trial.evaluate.runtime = 'onnxruntime': ")
    assert f"{package} cannot be imported" in message
    assert "pip install 'atmc-search[export]'" in message
    assert "\n" not in message


def test_a_budget_of_bytes_is_impossible_below_the_empty_model_s_and_possible_from_there(tiny_trial, tiny_splits):
    def trial(budget: int) -> AtmcSpec:
        return tiny_trial(compress={"bit_allocation": "mixed", "budget_bytes": budget})

    least = int(AtmcTask.least(tiny_trial(), tiny_splits)["size_bytes"])
    AtmcTask.check(trial(least), tiny_splits)
    with pytest.raises(SpecError, match=rf"^trial.compress.budget_bytes = {least - 1}: impossible, .* raise it$"):
        AtmcTask.check(trial(least - 1), tiny_splits)


@pytest.mark.parametrize("model", [{"width": 4}, {"name": "mlp", "hidden": [1] * 9 + [55] + [1] * 10}], ids=str)
def test_the_remedy_for_an_impossible_budget_is_one(tiny_trial, tiny_splits, model):
    """The second model has 21 layers and 201 weights: 21/201 = 0.1045, which 0.10 would fall short of."""
    with pytest.raises(SpecError) as caught:
        AtmcTask.check(tiny_trial(model=model, compress={"keep": 1e-3}), tiny_splits)
    match = re.search(r"raise it to (\S+) or more", str(caught.value))
    assert match is not None
    AtmcTask.check(tiny_trial(model=model, compress={"keep": float(match[1])}), tiny_splits)


# --- bounds


@pytest.mark.parametrize(
    "compress",
    [{"keep": 0.003, "bits": 1, "factors": factors} for factors in ("none", "uvc", "uvc_plain")],
    ids=lambda c: c["factors"],
)
def test_no_artifact_is_smaller_than_least(tiny_trial, tiny_splits, tiny_start, compress):
    spec = tiny_trial(compress=compress)
    task = task_of(spec, tiny_splits, tiny_start)
    task.step()
    least = AtmcTask.least(spec, tiny_splits)["size_bytes"]
    assert 30 < least < len(task.artifact()) < 12 * least  # a bound, and not an empty one


def test_reference_is_the_dense_model(tiny_trial, tiny_splits, tiny_start):
    reference = AtmcTask.reference(tiny_trial(), tiny_splits)
    weights = sum(t.numel() for name, t in tiny_start.tensors.items() if name.endswith("weight"))
    rest = sum(t.numel() for name, t in tiny_start.tensors.items() if not name.endswith("weight"))
    assert reference == {
        "size_bytes": 4 * (weights + rest),
        "nnz": weights,
        "density": 1,
        "paper_bits": 32 * weights,
        "entropy_bits": 32 * weights,
        "macs": 64 * 9 * (4 + 4 * 8) + 16 * 9 * 8 * 8 + 32 * 64 + 64 * 10,  # three convolutions, two linear layers
    }
    assert tiny_start.facts["dense_size_bytes"] == reference["size_bytes"]
    assert tiny_start.facts["dense_macs"] == reference["macs"]


def test_bounds_are_of_declared_metrics(tiny_trial, tiny_splits):
    names = {column.name for column in AtmcTask.columns}
    assert AtmcTask.least(tiny_trial(), tiny_splits).keys() <= names
    assert AtmcTask.reference(tiny_trial(), tiny_splits).keys() <= names
