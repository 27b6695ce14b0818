"""What a Parquet column is, and those that every study has. `atmc-search columns` prints them.

A row of `reports/` is one report; a row of `trials.parquet` is a trial's last report; `front.parquet` holds the
nondominated ones. All three have the same columns: those below, those of the study's task, and one for every
distribution of the spec under its dotted path (`parameters`). A column describes itself: all that tables and figures
need to know of it travels in the Parquet file, as metadata of its field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import pyarrow as pa

from atmc_search.errors import printable

Kind = Literal["bool", "int64", "float64", "string", "timestamp"]
Role = Literal["study", "metric", "parameter"]

ARROW: Mapping[Kind, pa.DataType] = {
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: as in Parquet.
        kind: its type.
        unit: of its values, "" where there is none.
        meaning: a sentence.
        role: of the study itself, a metric of its task, or a sampled value.
        log: whether differences of this metric are best read as ratios (sizes): plots and hypervolume take its log.
        low, high: the least and greatest value that it can have.
        better: the direction in which it is better, "" where neither is.
        samples: the column with the number of samples that it was measured on, "" where that makes no sense. Such a
            metric has an interval, which ends at the columns <name>_low and <name>_high.
        baseline: the column with the value of what trials are compared with, such as the dense model; "" for none.
        baseline_name: what that is called.
        warning: of a text, what to say where it is not empty; {} stands for the text. "" where it is no warning.
        heading: in tables, in place of the name.
        order: all values that it can have, in the order in which figures show them as groups; () for no groups.
        needs: a setting's path and the value without which trials do not report it; None where all do.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    role: Role = "metric"
    log: bool = False
    low: float = float("-inf")
    high: float = float("inf")
    better: Literal["min", "max", ""] = ""
    samples: str = ""
    baseline: str = ""
    baseline_name: str = ""
    warning: str = ""
    heading: str = ""
    order: tuple[str, ...] = ()
    needs: tuple[str, str] | None = None

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers, so that they can be ranked."""
        return self.kind in ("int64", "float64")

    def described(self) -> dict[str, str]:
        """What travels in a file, as text: all but the name, the type and `needs`. What says nothing is left out."""
        found = {"unit": self.unit, "meaning": self.meaning}
        if self.role != "metric":
            found["role"] = self.role
        for name in _OPTIONAL:
            value = getattr(self, name)
            if value != _DEFAULTS[name]:
                found[name] = json.dumps(value)
        return found

    @classmethod
    def from_described(cls, name: str, kind: Kind, described: Mapping[str, str]) -> Column:
        """The column that `described` gave, with words that can be printed.

        What is no description of ours is left out: files may be a stranger's.
        """
        values: dict[str, Any] = {key: printable(described.get(key, "")) for key in ("unit", "meaning")}
        if described.get("role") in ("study", "metric", "parameter"):
            values["role"] = described["role"]
        for key in _OPTIONAL:
            try:
                value = json.loads(described[key])
            except (KeyError, ValueError, RecursionError):
                continue
            if key == "order":
                value = tuple(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else None
            elif key in ("low", "high"):
                value = _end(value)
            elif key in ("baseline_name", "warning", "heading") and isinstance(value, str):
                value = printable(value)
            if type(value) is type(_DEFAULTS[key]) and (key != "better" or value in ("min", "max")):
                values[key] = value
        return cls(name, kind, **values)


def _end(value: object) -> float | None:
    """A described end of a column's range; None where it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        end = float(value)
    except OverflowError:
        return None
    return None if math.isnan(end) else end


_DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in fields(Column)}
_OPTIONAL = tuple(
    field.name for field in fields(Column) if field.name not in ("name", "kind", "unit", "meaning", "role", "needs")
)


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """The Arrow schema of these columns, each with its description."""
    return pa.schema([pa.field(column.name, ARROW[column.kind], metadata=column.described()) for column in columns])


def columns_of(schema: pa.Schema) -> tuple[Column, ...]:
    """The columns that a file describes; those of a type that no column of ours has are left out."""
    found = []
    for field in schema:
        kind = _kind(field.type)
        if kind is not None:
            metadata = {
                k.decode(errors="replace"): v.decode(errors="replace") for k, v in (field.metadata or {}).items()
            }
            found.append(Column.from_described(field.name, kind, metadata))
    return tuple(found)


def _kind(arrow: pa.DataType) -> Kind | None:
    if pa.types.is_boolean(arrow):
        return "bool"
    if pa.types.is_integer(arrow):
        return "int64"
    if pa.types.is_floating(arrow):
        return "float64"
    if pa.types.is_string(arrow) or pa.types.is_large_string(arrow):
        return "string"
    return "timestamp" if pa.types.is_timestamp(arrow) else None


def _study(name: str, kind: Kind, unit: str, meaning: str) -> Column:
    return Column(name, kind, unit, meaning, role="study")


STUDY_COLUMNS: tuple[Column, ...] = (
    _study("report", "int64", "", "number of the report in its study, from 0, by arrival; no two reports share one"),
    _study("trial", "int64", "", "number of the trial in its study, from 0"),
    _study("state", "string", "", "running, complete, stopped (by the scheduler), failed, or interrupted"),
    _study("reason", "string", "", "why a trial failed or was stopped; empty otherwise"),
    _study("epoch", "int64", "epochs", "epochs of the trial's own training that are done (0: just started)"),
    _study("epochs", "int64", "epochs", "epochs that the trial was to run"),
    _study("seed", "int64", "", "seed of the trial: the spec's plus the trial's number"),
    _study(
        "start", "string", "", "what the trial started from: none, trained, file NAME SHA-256, or trial NUMBER SHA-256"
    ),
    _study("artifact", "string", "", "path of the trial's artifact, relative to the run folder"),
    _study("artifact_sha256", "string", "", "SHA-256 of that file"),
    _study("fingerprint", "string", "", "12 hex digits of all that defines the study's results"),
    _study("trial_fingerprint", "string", "", "12 hex digits of the trial's own spec"),
    _study("started_at", "timestamp", "UTC", "when the trial started"),
    _study("reported_at", "timestamp", "UTC", "when this report arrived"),
    _study("elapsed_s", "float64", "s", "wall time from the trial's start to this report"),
    _study("host", "string", "", "host name of the worker"),
    _study("device", "string", "", "torch device the trial ran on"),
    _study("atmc_search_version", "string", "", "version of this package"),
    _study("torch_version", "string", "", "version of torch"),
    _study("ray_version", "string", "", "version of ray"),
    _study("optuna_version", "string", "", "version of optuna"),
    _study("python_version", "string", "", "version of python"),
)
