"""The constraint contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeAlias, TypeVar

from torch import Tensor

Weights: TypeAlias = Mapping[str, Tensor]
"""Constrained tensors by name, in a fixed order: the factors of every compressed layer together."""

State = TypeVar("State")


class Constraint(ABC, Generic[State]):
    """A set of allowed weights, with a projection onto it.

    Laws, tested for every constraint: after `project` the `violation` is 0; projecting twice changes nothing. Both are
    computed in the tensors' own precision: 0.3 in Python is less than 0.3 in float32.
    Implementations are immutable and keep no state of their own: what a projection learns (a codebook, say) is
    returned, plain data that a checkpoint can hold.
    """

    @abstractmethod
    def init(self, weights: Weights) -> State:
        """The state before the first projection of `weights`."""

    @abstractmethod
    def project(self, weights: Weights, state: State) -> tuple[dict[str, Tensor], State]:
        """A nearest point of the set (new tensors, the input is left alone) and the state to pass next time."""

    @abstractmethod
    def violation(self, weights: Weights) -> float:
        """How far `weights` are from allowed, ≥ 0, in a unit that the subclass states; 0 exactly on the set."""
