"""PyTorch's own file of plain tensors, `torch.load(path, weights_only=True)`, for users who have the model's code."""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn

from atmc_search.export.about import About
from atmc_search.export.checks import check_tensors


def to_state_dict(model: nn.Module, about: About) -> bytes:
    """Every tensor of the model by name; `normalize.mean` and `normalize.std` are the first layer's."""
    state = plain_tensors(model)
    file = io.BytesIO()
    torch.save(state, file)
    data = file.getvalue()
    check_tensors(state, torch.load(io.BytesIO(data), weights_only=True), "state_dict")
    return data


def plain_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's state as tensors that own their memory and need no gradient."""
    return {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
