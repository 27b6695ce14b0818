"""Safetensors: the tensors by name in a format that many frameworks read, architecture and provenance as metadata."""

from __future__ import annotations

import safetensors.torch
from torch import nn

from atmc_search.export.about import About
from atmc_search.export.checks import check_tensors
from atmc_search.export.state_dict import plain_tensors


def to_safetensors(model: nn.Module, about: About) -> bytes:
    """Every tensor of the model by name; metadata `architecture` and `provenance` are JSON."""
    state = plain_tensors(model)
    data = safetensors.torch.save(state, metadata={"format": "pt", **about.texts()})
    check_tensors(state, safetensors.torch.load(data), "safetensors")
    return data
