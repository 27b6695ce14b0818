"""ONNX by torch's exporter (`torch.export`, opset 18), checked by ONNX's own checker and run by ONNX Runtime."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from atmc_search.errors import AtmcError
from atmc_search.export.about import About
from atmc_search.export.checks import check_logits, probes

_NEEDED = ("onnx", "onnxruntime", "onnxscript")
# The first that torch's exporter writes without converting, and so the one that most runtimes read.
_OPSET = 18


def to_onnx(model: nn.Module, about: About) -> bytes:
    """An ONNX model: input `images` (batch, channels, height, width), output `logits` (batch, classes).

    Batch norm may be folded into convolutions, so logits agree to rounding, not to the bit.

    Raises:
        AtmcError: a package is missing, the model cannot be exported, or does not come back the same.
    """
    absent = [name for name in _NEEDED if not _importable(name)]
    if absent:
        raise AtmcError(
            f"to = 'onnx': needs {', '.join(_NEEDED)}, and {', '.join(absent)} cannot be imported; install them by: "
            "pip install 'atmc-search[export]'"
        )
    # Not at the top: they are optional, and take a second to import.
    import onnx
    import onnxruntime

    try:
        with _silence():
            program = torch.onnx.export(
                model,
                (probes(about.input_shape)[:2],),  # two images: torch.export would take one for a constant
                dynamo=True,
                opset_version=_OPSET,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        assert program is not None
        proto = program.model_proto
        _strip(proto)
        onnx.helper.set_model_props(proto, about.texts())
        onnx.checker.check_model(proto, full_check=True)
        data: bytes = proto.SerializeToString()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # three other libraries, on code of a user's
        cause: BaseException = error
        while cause.__cause__ is not None:  # the exporter wraps what happened in advice on itself
            cause = cause.__cause__
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:200]
        raise AtmcError(f"to = 'onnx': torch cannot export the model ({reason}); try another format") from error

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    check_logits(model, run, about.input_shape, "onnx")
    return data


def _strip(proto: object) -> None:
    """Removes what the exporter notes of the code that it came from: names of Python objects, lines, stack traces."""
    graph = proto.graph  # type: ignore[attr-defined]
    parts = [proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    parts += [node for function in proto.functions for node in (function, *function.node)]  # type: ignore[attr-defined]
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""


def _importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps the exporter's progress, warnings and log lines, which concern its own making, off the user's screen."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),  # graphs with the user's source lines, where it fails
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
