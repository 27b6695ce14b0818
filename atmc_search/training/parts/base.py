"""The contract of a part of training: a thing that has a say in every step, and a state of its own."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from atmc_search.training.state import State


@dataclass(frozen=True)
class Moment:
    """A step of a stage, from 0, and how many steps the stage has."""

    step: int
    steps: int

    @property
    def progress(self) -> float:
        """Share of the stage's steps that are done before this one."""
        return self.step / self.steps

    @property
    def after(self) -> float:
        """Share of the stage's steps that are done after this one."""
        return (self.step + 1) / self.steps


class Part(ABC):
    """A part of training. Every hook has a default that does nothing.

    `begin` of each comes first. A step (`training.Step`) calls the hooks of all parts in the order of its list:

    1. `seen` of each, one within the other. Inside: the attack, the loss, `objective` of each, the backward pass.
    2. The gradient is clipped. `before_step` of each.
    3. The optimizer moves the weights. `after_step` of each.

    A part may hold references to parts before it in the list, and ask them. A later part finds what the earlier ones
    did in the same hook: the codebook's penalty, for one, finds whether the support's search is over.

    The file that ships is packed from `Support.chosen`, inside `final` of each. A part whose rule must hold in the file
    has to hold in that too: a search by scores, for one, chooses among weights of its own.

    Laws: a part changes only weights and gradients that it was given, and only in its hooks. What it does in a step
    follows from the weights, the gradients, the moment and its own state. `load` of what `state` gave makes another
    part of equal settings continue to the bit; what the weights themselves show is no state.
    """

    name: ClassVar[str]
    """Under which a checkpoint holds its state. No two parts of a list share one."""

    def begin(self) -> None:
        """Training starts: called once, before the first step, of all parts in order. The weights are the start's."""

    def seen(self, at: Moment) -> AbstractContextManager[None]:
        """Inside, the network is what the step attacks and differentiates. On leaving, the weights are as before."""
        return nullcontext()

    def objective(self, value: Tensor, x: Tensor, logits: Tensor, weights: Tensor | None) -> Tensor:
        """The loss, perhaps with a term of this part's.

        Args:
            value: the loss so far, a scalar with its graph.
            x: (n, c, h, w) in [0, 1], images before the attack.
            logits: (n, classes), of the attacked images.
            weights: (n,) of the examples; None: all the same.
        """
        return value

    def before_step(self, at: Moment) -> None:
        """Gradients are there, clipped; the weights have not moved. A parameter whose gradient is None will not."""

    def after_step(self, at: Moment) -> None:
        """The weights have moved."""

    def final(self) -> AbstractContextManager[None]:
        """Inside, the network holds what is to be deployed, before it is projected and quantised."""
        return nullcontext()

    def state(self) -> State:
        """What a checkpoint holds of it. The tensors may be the part's own: copy them before training continues."""
        return {}, {}

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave. The model has loaded its weights. The tensors are the part's to keep."""

    def catch_up(self, progress: float) -> None:
        """Follows `load` where the loaded state is of an earlier time and training goes on at `progress` all the same.

        What should have ended in between ends here.
        """
