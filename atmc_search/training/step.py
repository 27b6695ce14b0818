"""One step of training: a batch goes in, the weights move, figures come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from atmc_search.attacks import Attack, ThreatModel, perturb
from atmc_search.training.losses import CrossEntropy, Loss
from atmc_search.training.parts.base import Moment, Part
from atmc_search.training.stage import StageSpec
from atmc_search.training.state import State, grouped, joined

_CROSS_ENTROPY = CrossEntropy()


class StepFigures(NamedTuple):
    """Of a batch, as tensors on its device: nothing waits for them.

    Attributes:
        loss: what was minimised, a scalar.
        hits: how many adversarial images were classified right, a scalar.
    """

    loss: Tensor
    hits: Tensor


@dataclass
class Step:
    """All that turns a batch into a step: attack, loss, precision, parts, optimizer. What makes steps faster goes here.

    x_adv is made by the attack with the model in eval mode, then the step is taken in train mode. Batch norm therefore
    never moves during the attack, normalises the step by the adversarial batch alone, and its running statistics are
    those of adversarial images (of clean ones where the attack is `none`): no clean batch is mixed in, as in the
    original. Evaluation, clean and attacked alike, uses these statistics. A loss that passes clean images too (TRADES)
    says what becomes of batch norm under it.

    Examples may have weights. They weigh in the loss alone: an attack perturbs each example on its own, to make that
    example's own loss large, and a positive factor before it changes neither the signs nor the directions it follows.

    All is computed in the precision of the model's weights.

    Attributes:
        model: images in [0, 1] to logits; parametrised where it is constrained.
        optimizer: over all of the model's parameters.
        stage: its norm of gradients.
        attack: the inner maximisation. It may be exchanged between steps.
        threat: norm and eps.
        loss: of the step, and perhaps what the attack ascends in place of the cross-entropy.
        parts: what else has a say, in this order.
        augment: applied to every batch before the attack, or None.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    stage: StageSpec
    attack: Attack
    threat: ThreatModel
    loss: Loss = _CROSS_ENTROPY
    parts: Sequence[Part] = ()
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None

    def __post_init__(self) -> None:
        names = ["model", "momentum", *(part.name for part in self.parts)]
        assert len(set(names)) == len(names), names

    def __call__(
        self, x: Tensor, y: Tensor, generator: torch.Generator, at: Moment, weights: Tensor | None = None
    ) -> StepFigures:
        """One step on a batch. The model is in train mode, and the optimizer has its learning rate.

        Args:
            x: (n, c, h, w) in [0, 1].
            y: (n,) labels.
            generator: of augmentation and attack, on the model's device.
            at: which step of the stage it is.
            weights: (n,) of the examples, not negative and not all 0; None: all the same.
        """
        if self.augment is not None:
            x = self.augment(x, generator)
        with ExitStack() as seen:
            for part in self.parts:
                seen.enter_context(part.seen(at))
            x_adv = perturb(self.attack, self.model, x, y, self.threat, generator, reference=self.loss.reference)
            if weights is None:
                value, logits = self.loss(self.model, x, x_adv, y)
            else:
                value, logits = self.loss(self.model, x, x_adv, y, weights)
            for part in self.parts:
                value = part.objective(value, x, logits, weights)
            self.optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
        if self.stage.clip_norm is not None:  # before ADMM's pull, which is to stay as strong at a step of large loss
            nn.utils.clip_grad_norm_(self.model.parameters(), self.stage.clip_norm)
        for part in self.parts:
            part.before_step(at)
        self.optimizer.step()
        for part in self.parts:
            part.after_step(at)
        return StepFigures(value.detach(), (logits.detach().argmax(1) == y).sum())

    @contextmanager
    def final(self) -> Iterator[None]:
        """Inside, the model holds what is to be deployed, before it is projected and quantised."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.final())
            yield

    def state(self) -> State:
        """Weights, momentum and every part, as they are now: "model/…", "momentum/…", and "<part>/…" with its facts.

        The tensors are those in use: copy them before training continues.
        """
        groups: dict[str, Mapping[str, Tensor]] = {"model": self.model.state_dict(), "momentum": self._momentum()}
        facts: dict[str, Any] = {}
        for part in self.parts:
            groups[part.name], facts[part.name] = part.state()
        return joined(groups), facts

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave; the tensors are on the model's device, and are left alone.

        A part that the state says nothing of loads nothing: no tensors, no facts.
        """
        groups = grouped({name: tensor.clone() for name, tensor in tensors.items()})
        self.model.load_state_dict(groups["model"])
        momentum = groups.get("momentum", {})
        for name, parameter in self.model.named_parameters():
            self.optimizer.state[parameter].pop("momentum_buffer", None)
            if name in momentum:
                self.optimizer.state[parameter]["momentum_buffer"] = momentum[name]
        for part in self.parts:
            part.load(groups.get(part.name, {}), facts.get(part.name, {}))

    def go_back(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], progress: float) -> None:
        """Loads a state of an earlier time, while training goes on at `progress`, a share of the stage's steps."""
        self.load(tensors, facts)
        for part in self.parts:
            part.catch_up(progress)

    def _momentum(self) -> dict[str, Tensor]:
        state = self.optimizer.state
        found = {name: state[parameter].get("momentum_buffer") for name, parameter in self.model.named_parameters()}
        return {name: tensor for name, tensor in found.items() if tensor is not None}
