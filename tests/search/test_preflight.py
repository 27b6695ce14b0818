"""What is refused before anything runs, and what a study that passed carries with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from atmc_search.artifact import Architecture
from atmc_search.errors import DataError, SpecError
from atmc_search.export.costs import dense_costs
from atmc_search.search import prepare
from atmc_search.spec import StudySpec

MakeStudy = Callable[..., StudySpec]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objectives": {"size_byte": "min"}}, "objectives.size_byte: not a metric .* did you mean 'size_bytes'"),
        ({"objectives": {"state": "min"}}, "objectives.state: not a metric"),  # a column of the study, not of the task
        ({"objectives": {"bits_per_tensor": "min"}}, "objectives.bits_per_tensor: not a metric"),  # no number
        ({"constraints": {"accuracy": {"min": 0.5}}}, "constraints.accuracy: not a metric"),
        ({"constraints": {"clean_accuracy": {"min": 1.5}}}, r"clean_accuracy.min = 1.5: impossible, the most .* is 1;"),
        ({"constraints": {"clean_accuracy": {"max": -0.5}}}, r"clean_accuracy.max = -0.5: impossible, .* is 0;"),
        ({"constraints": {"size_bytes": {"max": 10}}}, r"size_bytes.max = 10: impossible, the least it can be is \d+;"),
        (
            {"objectives": {"latency_ms": "min"}},
            "^objectives.latency_ms: .* trial.evaluate.runtime = 'none'; set trial",
        ),
        (
            {"constraints": {"peak_memory_bytes": {"max": 1e6}}},
            "^constraints.peak_memory_bytes: .*; set trial.evaluate.runtime: onnxruntime, or remove constraints",
        ),
        (  # some trials would measure it
            {
                "objectives": {"latency_ms": "min"},
                "evaluate": {"runtime": {"choice": ["onnxruntime", "none"]}},
            },
            "trials do not measure it",
        ),
        ({"task": "atcm"}, "task = 'atcm': unknown name"),
        ({"task": "json:dumbs"}, "task = 'json:dumbs': 'json' has no attribute"),
        ({"data": {"name": "digitz"}}, "trial.data.name = 'digitz': unknown name"),
        ({"model": {"name": "small_cm"}}, "trial.model.name = 'small_cm': unknown name; did you mean 'small_cnn'"),
        ({"model": {"depth": 3}}, "trial.model.*depth"),
        ({"train": {"attack": {"name": "pgd", "step": 3}}}, "trial.train.attack.*step"),
        ({"evaluate": {"attack": {"name": "gpd"}}}, "trial.evaluate.attack.*gpd"),
        ({"dense": {"attack": {"name": "gpd"}}}, "trial.dense.attack.*gpd"),
        ({"model": {"width": {"choice": [4, "wide"]}}}, "trial.model.width.*wide"),
    ],
)
def test_a_mistake_is_named_before_anything_runs(make_study: MakeStudy, changes: dict[str, Any], words: str) -> None:
    with pytest.raises((SpecError, DataError), match=words) as error:
        prepare(make_study(**changes))
    assert "\n" not in str(error.value)


def test_an_impossible_budget_is_named_with_its_corner(make_study: MakeStudy) -> None:
    with pytest.raises(SpecError) as error:
        prepare(make_study(compress={"keep": {"uniform": [1e-6, 0.5]}}))
    message = str(error.value)
    assert "trial.compress.keep = 1e-06" in message
    assert "(at trial.compress.keep = 1e-06)" in message
    with pytest.raises(SpecError) as error:
        prepare(make_study(compress={"keep": 1e-6}))
    assert "(at " not in str(error.value)  # it is wrong everywhere


def test_a_corner_that_breaks_only_there_is_found(make_study: MakeStudy) -> None:
    with pytest.raises(SpecError, match=r"trial\.model.*\(at trial\.model\.width = 0\)"):
        prepare(make_study(model={"width": {"choice": [4, 8, 0]}}))


def test_the_least_size_is_of_the_smallest_corner(make_study: MakeStudy) -> None:
    def least(width: object) -> int:
        with pytest.raises(SpecError) as error:
            prepare(make_study(model={"width": width}, constraints={"size_bytes": {"max": 1}}))
        return int(str(error.value).split("the least it can be is ")[1].split(";")[0])

    assert least({"choice": [16, 4]}) == least(4) < least(16)
    # on the limit is possible, one below is not
    prepare(make_study(constraints={"size_bytes": {"max": least(4)}}))
    with pytest.raises(SpecError, match="impossible"):
        prepare(make_study(constraints={"size_bytes": {"max": least(4) - 1}}))


def test_bounds_at_the_edge_are_possible(make_study: MakeStudy) -> None:
    prepared = prepare(make_study(constraints={"clean_accuracy": {"min": 1.0}, "robust_accuracy": {"max": 0.0}}))
    assert set(prepared.spec.constraints) == {"clean_accuracy", "robust_accuracy"}
    for bounds in ({"clean_accuracy": {"min": 1.001}}, {"robust_accuracy": {"max": -0.001}}):
        with pytest.raises(SpecError, match="impossible"):
            prepare(make_study(constraints=bounds))


def test_the_columns_are_the_study_s_the_task_s_and_the_space_s(make_study: MakeStudy) -> None:
    prepared = prepare(make_study())
    names = [column.name for column in prepared.columns]
    assert names[:3] == ["report", "trial", "state"]
    assert names[-3:] == list(prepared.spec.space)
    assert len(names) == len(set(names))
    assert prepared.column("size_bytes").log
    assert prepared.column("trial.compress.bits").kind == "int64"


def test_data_of_every_corner_is_loaded(make_study: MakeStudy) -> None:
    prepared = prepare(make_study(data={"train_size": {"choice": [256, 300]}}))
    assert sorted(len(splits.train) for splits in prepared.data.values()) == [256, 300]
    assert {spec.train_size for spec in prepared.data} == {256, 300}


def test_the_reference_point_is_the_dense_model_and_no_accuracy(make_study: MakeStudy) -> None:
    prepared = prepare(make_study())
    (splits,) = prepared.data.values()
    model = Architecture("small_cnn", {"width": 4}, splits.input_shape, splits.classes).build()
    tensors = [t for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")]
    dense = 4 * sum(tensor.numel() for tensor in tensors)
    assert prepared.reference == {"size_bytes": dense, "clean_accuracy": 0, "robust_accuracy": 0}


def test_the_reference_point_is_the_largest_of_the_space(make_study: MakeStudy) -> None:
    def reference(width: object) -> Mapping[str, float] | None:
        objectives = {"size_bytes": "min", "macs": "min", "clean_accuracy": "max"}
        return prepare(make_study(model={"width": width}, objectives=objectives)).reference

    assert reference({"choice": [4, 9, 6]}) == reference(9) != reference(4)


def test_costs_of_running_are_objectives_where_trials_measure_them(make_study: MakeStudy) -> None:
    study = make_study(
        objectives={"latency_ms": "min", "peak_memory_bytes": "min", "macs": "min"},
        constraints={"peak_memory_bytes": {"max": 1e6}},
        evaluate={"runtime": "onnxruntime"},
    )
    prepared = prepare(study)
    assert prepared.reference is not None
    assert prepared.reference["macs"] == 32640
    (splits,) = prepared.data.values()
    costs = dense_costs(Architecture("small_cnn", {"width": 4}, splits.input_shape, splits.classes), "onnxruntime")
    assert prepared.reference == {name: costs[name] for name in study.objectives}
    assert all(prepared.column(name).log for name in study.objectives)


def test_a_minimised_accuracy_is_counted_from_one(make_study: MakeStudy) -> None:
    prepared = prepare(make_study(objectives={"clean_accuracy": "min", "density": "min"}))
    assert prepared.reference == {"clean_accuracy": 1, "density": 1}


@pytest.mark.parametrize("objective", [{"loss": "min"}, {"size_bytes": "min", "train_s": "min"}])
def test_no_reference_without_a_worst_value(make_study: MakeStudy, objective: dict[str, str]) -> None:
    assert prepare(make_study(objectives=objective)).reference is None
