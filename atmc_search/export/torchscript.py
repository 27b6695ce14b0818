"""TorchScript: one file that plain `torch.jit.load` runs, from Python or C++.

Torch has deprecated it in favour of `torch.export`, and still loads and runs it; for C++ it remains the simplest file.
"""

from __future__ import annotations

import io
import warnings
import zipfile

import torch
from torch import Tensor, nn

from atmc_search.errors import AtmcError
from atmc_search.export.about import About
from atmc_search.export.checks import check_logits, probes


def to_torchscript(model: nn.Module, about: About) -> bytes:
    """The traced and frozen model; extra files `architecture.json` and `provenance.json`.

    Raises:
        AtmcError: the model cannot be traced, or does not come back the same for another number of images.
    """
    extra = {f"{name}.json": text for name, text in about.texts().items()}
    file = io.BytesIO()
    with warnings.catch_warnings(record=True) as warned, torch.no_grad():
        warnings.simplefilter("always")
        try:
            traced = torch.jit.trace(model, probes(about.input_shape)[:2], check_trace=False)  # type: ignore[no-untyped-call]
            # Without its numeric optimisations, which fold batch norm into weights: logits stay ours to the bit.
            frozen = torch.jit.freeze(traced, optimize_numerics=False)
            torch.jit.save(frozen, file, _extra_files=extra)
        except Exception as error:  # code of a user's may do anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise AtmcError(f"to = 'torchscript': the model cannot be traced ({reason}); try another format") from error
        # A trace keeps one way through a branch, and answers by it for all images.
        for warning in warned:
            if warning.category.__name__ == "TracerWarning":  # torch does not export the class
                reason = " ".join(str(warning.message).split(". ")[0].split())
                raise AtmcError(f"to = 'torchscript': the model decides by its input ({reason}); try another format")
        data = _without_sources(file.getvalue())
        reread = torch.jit.load(io.BytesIO(data))  # type: ignore[no-untyped-call]

        def run(images: Tensor) -> Tensor:
            logits: Tensor = reread(images)
            return logits

        check_logits(model, run, about.input_shape, "torchscript")
    return data


def _without_sources(archive: bytes) -> bytes:
    """The archive without torch's debug records, which hold the paths and source lines of whoever exported it."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                new.writestr(entry, old.read(entry))
    return out.getvalue()
