"""An artifact's model in formats that need nothing of ours: images in [0, 1], float32 NCHW, to logits.

To add one, write a file with a function `(model, about) -> bytes`, which reads its own result back by `checks` before
it returns it, and list it in `TARGETS`. Normalisation is a layer of the model, and so comes along.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from atmc_search.channels import slimmed
from atmc_search.errors import AtmcError, did_you_mean
from atmc_search.export.about import About, Target
from atmc_search.export.checks import check_logits
from atmc_search.export.onnx import to_onnx
from atmc_search.export.safetensors import to_safetensors
from atmc_search.export.state_dict import to_state_dict
from atmc_search.export.torchscript import to_torchscript

__all__ = ["BLOCK", "RUNNING", "TARGETS", "About", "Target", "export"]

TARGETS: Mapping[str, Target] = {
    "onnx": to_onnx,
    "safetensors": to_safetensors,
    "state_dict": to_state_dict,
    "torchscript": to_torchscript,
}


RUNNING = ("onnx", "torchscript")
"""The targets that hold the architecture too, and so can do without a model's dead channels."""


BLOCK = 16
"""Channels that runtimes compute at once. Convolutions keep dead channels up to a multiple of it: on the demo's models
fewer were up to twice slower than the whole, in ONNX Runtime on one core."""


def export(model: nn.Module, about: About, target: str, *, slim: bool = True) -> bytes:
    """A model as the bytes of a file in another format, read back and compared with it.

    Args:
        model: as `artifact.unpack` gave it: in eval mode, on the CPU.
        about: what it is; travels along where the format has a place for it.
        target: a key of `TARGETS`.
        slim: whether targets of `RUNNING` are given the model without the channels that have no effect. The others
            keep them: who reads those has the architecture in code.

    Raises:
        AtmcError: no such target, packages that it needs are missing, the model cannot be put in that format, or does
            not come back the same.
    """
    if target not in TARGETS:
        raise AtmcError(f"to = {target!r}: unknown format; {did_you_mean(target, list(TARGETS))}")
    return TARGETS[target](_slim(model, about, target) if slim and target in RUNNING else model, about)


def _slim(model: nn.Module, about: About, target: str) -> nn.Module:
    thin = slimmed(model, about.input_shape, multiple=BLOCK)
    try:
        check_logits(model, torch.no_grad()(thin), about.input_shape, target)
    except AtmcError as error:
        raise AtmcError(f"{error}; or export it whole, by --whole or slim=False") from None
    return thin
