"""The metrics that an ATMC trial reports."""

from __future__ import annotations

from typing import Any

from atmc_search.results import Column
from atmc_search.results.columns import Kind

START = "dense start"
"""What trials start from and are compared with."""


def _compared(name: str) -> dict[str, Any]:
    """Settings of a column whose dense start's value stands in a column of its own."""
    return {"baseline": f"dense_{name}", "baseline_name": START}


def _share(name: str, meaning: str, **more: Any) -> Column:
    return Column(name, "float64", "share", meaning, low=0, high=1, **more)


def _accuracy(name: str, meaning: str) -> Column:
    return _share(name, meaning, better="max", samples="validation_images", **_compared(name))


def _runtime(name: str, kind: Kind, unit: str, meaning: str, **more: Any) -> Column:
    needs = ("trial.evaluate.runtime", "onnxruntime")
    return Column(name, kind, unit, meaning, log=True, low=0, needs=needs, **more)


ATMC_COLUMNS: tuple[Column, ...] = (
    Column(
        "size_bytes",
        "int64",
        "bytes",
        "length of the artifact file, from which all is measured",
        log=True,
        low=1,
        better="min",
        **_compared("size_bytes"),
    ),
    _accuracy("clean_accuracy", "accuracy of the decoded artifact on validation images"),
    _accuracy("robust_accuracy", "accuracy of the decoded artifact on attacked validation images"),
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
        warning="it fails checks against gradient masking ({}), its robust accuracy may be a mirage",
        heading="fails masking checks",
    ),
    Column("nnz", "int64", "weights", "non-zeros in all factors together", log=True, low=0, better="min"),
    Column("density", "float64", "share", "nnz / dense_weights", log=True, low=0, better="min"),
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
    Column(
        "macs",
        "int64",
        "MACs",
        "multiply-accumulates of an image, without dead channels",
        log=True,
        low=0,
        better="min",
        **_compared("macs"),
    ),
    _runtime(
        "latency_ms",
        "float64",
        "ms",
        "median time of an image in ONNX Runtime on one thread of the worker's CPU, at work and not waiting",
        better="min",
        **_compared("latency_ms"),
    ),
    _runtime("latency_ms_low", "float64", "ms", "lower quartile of those times"),
    _runtime("latency_ms_high", "float64", "ms", "upper quartile"),
    _runtime(
        "peak_memory_bytes",
        "int64",
        "bytes",
        "most that ONNX Runtime's allocator had in use for an image: weights and intermediate results",
        better="min",
        **_compared("peak_memory_bytes"),
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
