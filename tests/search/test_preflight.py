"""What is refused before anything runs, and what a study that passed carries with it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from toys import Toy, toy_study

from atmc_search.artifact import Architecture
from atmc_search.errors import DataError, SpecError
from atmc_search.export.costs import dense_costs
from atmc_search.results import Column
from atmc_search.search import prepare
from atmc_search.search.server import KEPT_DATA
from atmc_search.spec import StudySpec
from atmc_search.tasks.atmc import AtmcTask

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


def test_an_impossible_budget_is_named_with_its_extreme(make_study: MakeStudy) -> None:
    with pytest.raises(SpecError) as error:
        prepare(make_study(compress={"keep": {"uniform": [1e-6, 0.5]}}))
    message = str(error.value)
    assert "trial.compress.keep = 1e-06" in message
    assert "(at trial.compress.keep = 1e-06)" in message
    with pytest.raises(SpecError) as error:
        prepare(make_study(compress={"keep": 1e-6}))
    assert "(at " not in str(error.value)  # it is wrong everywhere


def test_an_extreme_that_breaks_only_there_is_found(make_study: MakeStudy) -> None:
    with pytest.raises(SpecError, match=r"trial\.model.*\(at trial\.model\.width = 0\)"):
        prepare(make_study(model={"width": {"choice": [4, 8, 0]}}))


def test_the_least_size_is_of_the_smallest_extreme(make_study: MakeStudy) -> None:
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
    assert names[-3:] == list(prepared.trials.distributions)
    assert len(names) == len(set(names))
    assert prepared.column("size_bytes").log
    assert prepared.column("trial.compress.bits").kind == "int64"


def test_data_of_every_extreme_is_loaded(make_study: MakeStudy) -> None:
    prepared = prepare(make_study(data={"train_size": {"choice": [256, 300]}}))
    assert sorted(len(splits.train) for splits in prepared.data.values()) == [256, 300]
    specs = [prepared.trials.fill(config) for _, config in prepared.trials.extremes()]
    assert {AtmcTask.load_key(spec): spec.data.train_size for spec in specs} == {
        key: len(splits.train) for key, splits in prepared.data.items()
    }


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


def metric(name: str, **settings: Any) -> Column:
    return Column(name, settings.pop("kind", "float64"), "", "a figure", **settings)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ([metric("epoch")], "column 'epoch': is a column that every study has; rename it"),
        ([metric("trial", kind="int64")], "column 'trial': is a column that every study has; rename it"),
        ([metric("start")], "column 'start': is a column that every study has; rename it"),
        ([metric("cost"), metric("cost", kind="int64")], "column 'cost': is declared twice; rename one of them"),
        ([metric("trial.toy.start")], "column 'trial.toy.start': names that begin with 'trial.' are those of sampled"),
        ([metric("when", kind="timestamp")], "column 'when': kind = 'timestamp': a metric is bool, int64, float64 or"),
        ([metric("size", kind="int32")], "column 'size': kind = 'int32': a metric is bool, int64, float64 or string"),
        ([metric("cost", samples="n")], "column 'cost' refers to a column 'n', which the task does not declare; dec"),
        ([metric("cost", baseline="plain")], "column 'cost' refers to a column 'plain', which the task does not dec"),
        ([metric("cost", low=1, high=0)], "column 'cost': low = 1 is above high = 0; exchange them"),
    ],
)
def test_columns_that_cannot_stand_in_a_table_are_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, columns: list[Column], words: str
) -> None:
    monkeypatch.setattr(Toy, "columns", (*columns, metric("least")))
    monkeypatch.setattr(Toy, "loads", 0)
    with pytest.raises(SpecError) as error:
        prepare(toy_study(objectives={"least": "min"}))
    assert str(error.value).startswith(f"task Toy: {words}")
    assert "\n" not in str(error.value)
    assert Toy.loads == 0


def test_columns_may_refer_to_each_other_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = (metric("cost", samples="n", baseline="plain"), metric("n", kind="int64"), metric("plain"))
    monkeypatch.setattr(Toy, "columns", columns)
    assert prepare(toy_study()).column("cost").baseline == "plain"


def test_no_more_than_a_few_tables_are_held_however_many_the_space_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is loaded once, checked, and makes room; `Toy.check` refuses another's table."""
    tables: list[weakref.ref[Any]] = []
    load = Toy.load.__func__  # type: ignore[attr-defined]

    def noted(cls: type[Toy], spec: Any) -> Any:
        tables.append(weakref.ref(table := load(cls, spec)))
        assert sum(each() is not None for each in tables) <= KEPT_DATA + 1
        return table

    monkeypatch.setattr(Toy, "load", classmethod(noted))
    prepared = prepare(toy_study(trial={"toy": {"table": {"choice": list(range(12))}, "start": 0}}))
    assert len(tables) == 12
    gc.collect()
    assert sum(each() is not None for each in tables) == len(prepared.data) == KEPT_DATA
    assert {key: int(table[0]) for key, table in prepared.data.items()} == {f"table {n}": n for n in range(8, 12)}
