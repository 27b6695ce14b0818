"""The table of columns: each declared once, with a meaning that travels into the file."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from atmc_search.errors import SpecError
from atmc_search.results import STUDY_COLUMNS, Column, parameter_columns, schema_of
from atmc_search.tasks.atmc.columns import ATMC_COLUMNS

DECLARED = [*STUDY_COLUMNS, *ATMC_COLUMNS]


def test_no_column_is_declared_twice() -> None:
    names = [column.name for column in DECLARED]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("column", DECLARED, ids=lambda column: column.name)
def test_a_column_says_what_it_holds(column: Column) -> None:
    assert len(column.meaning) > 5
    assert column.meaning == column.meaning.strip()
    assert column.low <= column.high
    assert (column.low, column.high) == (0, 1) or column.unit != "share" or column.name == "density"
    assert not column.name.endswith("_bytes") or column.unit == "bytes"
    assert not column.name.endswith("_bits") or column.unit == "bits"
    assert not column.name.endswith("_s") or column.unit == "s"


@pytest.mark.parametrize(
    ("distribution", "kind", "words"),
    [
        (IntDistribution(1, 4), "int64", "[1, 4]"),
        (FloatDistribution(0.1, 0.9), "float64", "[0.1, 0.9]"),
        (FloatDistribution(0.001, 0.1, log=True), "float64", "[0.001, 0.1] on a log scale"),
        (CategoricalDistribution(["none", "uvc"]), "string", "{none, uvc}"),
        (CategoricalDistribution([None, "uvc"]), "string", "{None, uvc}"),
        (CategoricalDistribution([2, 4]), "int64", "{2, 4}"),
        (CategoricalDistribution([None, 4]), "int64", "{None, 4}"),
        (CategoricalDistribution([2, 4.5]), "float64", "{2, 4.5}"),
        (CategoricalDistribution([True, False]), "bool", "{True, False}"),
    ],
)
def test_a_sampled_value_has_the_type_of_what_its_distribution_gives(
    distribution: BaseDistribution, kind: str, words: str
) -> None:
    (column,) = parameter_columns({"trial.x": distribution})
    assert (column.name, column.kind) == ("trial.x", kind)
    assert words in column.meaning


@pytest.mark.parametrize("choices", [[2, "auto"], [True, 3], [0.5, "none"], [True, "yes"]])
def test_a_choice_that_no_column_can_hold_is_refused(choices: list[Any]) -> None:
    with pytest.raises(SpecError, match=r"^trial\.x\.choice = .*mixes .*write all"):
        parameter_columns({"trial.x": CategoricalDistribution(choices)})


def test_the_schema_keeps_order_types_units_and_meanings() -> None:
    columns = [
        Column("when", "timestamp", "UTC", "a time"),
        Column("n", "int64", "images", "a count"),
        Column("x", "float64", "s", "a number"),
        Column("yes", "bool", "", "a truth"),
        Column("word", "string", "", "a word"),
    ]
    schema = schema_of(columns)
    assert schema.names == ["when", "n", "x", "yes", "word"]
    assert schema.types == [pa.timestamp("us", tz="UTC"), pa.int64(), pa.float64(), pa.bool_(), pa.string()]
    for column, field in zip(columns, schema, strict=True):
        assert field.metadata == {
            b"unit": column.unit.encode(),
            b"meaning": column.meaning.encode(),
        }
