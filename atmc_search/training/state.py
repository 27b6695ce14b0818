"""States as plain data: tensors by path, and facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, and plain facts that JSON can hold."""


def joined(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of several groups by "group/name"."""
    return {f"{group}/{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}


def grouped(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What `joined` joined; a group without a tensor is missing."""
    groups: dict[str, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        group, _, name = path.partition("/")
        groups.setdefault(group, {})[name] = tensor
    return groups
