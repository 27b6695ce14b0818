"""Every Parquet column, declared once: name, type, unit, meaning. `atmc-search columns` prints this table.

A row of `reports/` is one report; a row of `trials.parquet` is a trial's last report; `front.parquet` holds the
nondominated ones. All three have the same columns: those below, a task's own, and one for every distribution of the
spec under its dotted path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from atmc_search.errors import SpecError, written

Kind = Literal["bool", "int64", "float64", "string", "timestamp"]

_ARROW: Mapping[Kind, pa.DataType] = {
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
        log: whether differences of this metric are best read as ratios (sizes): plots and hypervolume take its log.
        low, high: the least and greatest value it can have.
        needs: a setting's path and the value without which trials do not report it; None where all do.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    log: bool = False
    low: float = float("-inf")
    high: float = float("inf")
    needs: tuple[str, str] | None = None


def _share(name: str, meaning: str) -> Column:
    return Column(name, "float64", "share", meaning, low=0, high=1)


def _runtime(name: str, kind: Kind, unit: str, meaning: str) -> Column:
    needs = ("trial.evaluate.runtime", "onnxruntime")
    return Column(name, kind, unit, meaning, log=True, low=0, needs=needs)


STUDY_COLUMNS: tuple[Column, ...] = (
    Column("report", "int64", "", "number of the report in its study, from 0, by arrival; no two reports share one"),
    Column("trial", "int64", "", "number of the trial in its study, from 0"),
    Column("state", "string", "", "running, complete, stopped (by the scheduler), failed, or interrupted"),
    Column("reason", "string", "", "why a trial failed or was stopped; empty otherwise"),
    Column("epoch", "int64", "epochs", "epochs of the trial's own training that are done (0: just started)"),
    Column("epochs", "int64", "epochs", "epochs that the trial was to run"),
    Column("seed", "int64", "", "seed of the trial: the spec's plus the trial's number"),
    Column("artifact", "string", "", "path of the trial's artifact, relative to the run folder"),
    Column("artifact_sha256", "string", "", "SHA-256 of that file"),
    Column("fingerprint", "string", "", "12 hex digits of all that defines the study's results"),
    Column("trial_fingerprint", "string", "", "12 hex digits of the trial's own spec"),
    Column("started_at", "timestamp", "UTC", "when the trial started"),
    Column("reported_at", "timestamp", "UTC", "when this report arrived"),
    Column("elapsed_s", "float64", "s", "wall time from the trial's start to this report"),
    Column("host", "string", "", "host name of the worker"),
    Column("device", "string", "", "torch device the trial ran on"),
    Column("atmc_search_version", "string", "", "version of this package"),
    Column("torch_version", "string", "", "version of torch"),
    Column("ray_version", "string", "", "version of ray"),
    Column("optuna_version", "string", "", "version of optuna"),
    Column("python_version", "string", "", "version of python"),
)

ATMC_COLUMNS: tuple[Column, ...] = (
    Column("size_bytes", "int64", "bytes", "length of the artifact file, from which all is measured", log=True, low=1),
    _share("clean_accuracy", "accuracy of the decoded artifact on validation images"),
    _share("robust_accuracy", "accuracy of the decoded artifact on attacked validation images"),
    _share("clean_accuracy_low", "lower end of the 95 % Wilson interval of clean_accuracy"),
    _share("clean_accuracy_high", "upper end of that interval"),
    _share("robust_accuracy_low", "lower end of the 95 % Wilson interval of robust_accuracy"),
    _share("robust_accuracy_high", "upper end of that interval"),
    Column("measured_epoch", "int64", "epochs", "epoch of training that the artifact and its figures are of", low=1),
    Column("validation_images", "int64", "images", "n of both accuracies"),
    Column(
        "masking_flags",
        "string",
        "",
        "checks against gradient masking that the artifact fails; empty: passes all; missing: not checked",
    ),
    Column("nnz", "int64", "weights", "non-zeros in all factors together", log=True, low=0),
    Column("density", "float64", "share", "nnz / dense_weights", log=True, low=0),
    Column("dense_weights", "int64", "weights", "weights of the compressed layers before compression"),
    Column(
        "paper_bits",
        "int64",
        "bits",
        "sum of nnz x bits, the ATMC paper's size: no positions, no codebooks",
        log=True,
        low=0,
    ),
    Column(
        "entropy_bits", "float64", "bits", "zero-order entropy of all factors' symbols, zeros included", log=True, low=0
    ),
    Column(
        "bits_per_tensor",
        "string",
        "JSON",
        "bits of a value in each factor: b of its codebook of 2^b (0: all zero, 32: no codebook)",
    ),
    Column("macs", "int64", "MACs", "multiply-accumulates of an image, without dead channels", log=True, low=0),
    _runtime(
        "latency_ms",
        "float64",
        "ms",
        "median time of an image in ONNX Runtime on one thread of the worker's CPU, at work and not waiting",
    ),
    _runtime("latency_ms_low", "float64", "ms", "lower quartile of those times"),
    _runtime("latency_ms_high", "float64", "ms", "upper quartile"),
    _runtime(
        "peak_memory_bytes",
        "int64",
        "bytes",
        "most that ONNX Runtime's allocator had in use for an image: weights and intermediate results",
    ),
    _share("target_shortfall", "by how much the accuracy of compress.target is missed (0: held, or no target)"),
    Column("batch_norm_reestimated", "bool", "", "whether batch norm statistics were gathered anew"),
    Column("loss", "float64", "nats", "mean training loss of the epoch, as trial.train.loss has it"),
    _share("adversarial_train_accuracy", "accuracy on the epoch's adversarial training images"),
    Column(
        "collapsed_epoch",
        "int64",
        "epochs",
        "epoch that trial.train.guard undid; 0: none",
        low=0,
    ),
    Column("dense_collapsed_epoch", "int64", "epochs", "epoch that trial.dense.guard undid; 0: none", low=0),
    Column("dense_epoch", "int64", "epochs", "epoch of dense training that the dense start is of", low=0),
    Column("dense_size_bytes", "int64", "bytes", "the dense model's state at 4 bytes a value"),
    Column("dense_macs", "int64", "MACs", "macs of the dense start"),
    _runtime("dense_latency_ms", "float64", "ms", "latency_ms of the dense start, on the worker that trained it"),
    _runtime("dense_latency_ms_low", "float64", "ms", "lower quartile of those times"),
    _runtime("dense_latency_ms_high", "float64", "ms", "upper quartile"),
    _runtime("dense_peak_memory_bytes", "int64", "bytes", "peak_memory_bytes of the dense start"),
    _share("dense_clean_accuracy", "clean_accuracy of the dense start"),
    _share("dense_robust_accuracy", "robust_accuracy of the dense start"),
    _share("dense_clean_accuracy_low", "lower end of the 95 % Wilson interval of dense_clean_accuracy"),
    _share("dense_clean_accuracy_high", "upper end of that interval"),
    _share("dense_robust_accuracy_low", "lower end of the 95 % Wilson interval of dense_robust_accuracy"),
    _share("dense_robust_accuracy_high", "upper end of that interval"),
    Column("dense_s", "float64", "s", "training and measuring the dense start (once, shared by trials)"),
    Column("train_s", "float64", "s", "training of this trial so far"),
    Column("pack_s", "float64", "s", "final projection and packing so far"),
    Column("measure_s", "float64", "s", "decoding and measuring so far"),
)


def parameter_columns(space: Mapping[str, BaseDistribution]) -> tuple[Column, ...]:
    """A column for every distribution of a spec, typed by what it can give.

    Raises:
        SpecError: a choice between values that no one type of column can hold.
    """
    return tuple(
        Column(path, _kind_of(path, distribution), "", f"sampled from {_describe(distribution)}")
        for path, distribution in space.items()
    )


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """The Arrow schema of these columns; unit and meaning travel as field metadata."""
    return pa.schema(
        [
            pa.field(column.name, _ARROW[column.kind], metadata={"unit": column.unit, "meaning": column.meaning})
            for column in columns
        ]
    )


def _kind_of(path: str, distribution: BaseDistribution) -> Kind:
    if isinstance(distribution, IntDistribution):
        return "int64"
    if not isinstance(distribution, CategoricalDistribution):
        return "float64"
    kinds = {type(choice) for choice in distribution.choices if choice is not None}
    if kinds <= {bool}:
        return "bool"
    if kinds <= {int}:
        return "int64"
    if kinds <= {int, float}:
        return "float64"
    if kinds <= {str}:
        return "string"
    raise SpecError(
        f"{path}.choice = {written(list(distribution.choices))}: mixes numbers, words or true/false, which one column "
        "cannot hold; write all of them as numbers, or all as words"
    )


def _describe(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return "{" + ", ".join(str(choice) for choice in distribution.choices) + "}"
    scale = " on a log scale" if getattr(distribution, "log", False) else ""
    return f"[{getattr(distribution, 'low', '')}, {getattr(distribution, 'high', '')}]{scale}"
