"""The attack contract, and the one way to run an attack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn.utils import parametrize

from atmc_search.attacks.threat import ThreatModel, clip

Reference = Callable[[nn.Module, Tensor], Tensor]
"""(model in eval mode, x) -> (n, classes) log-probabilities, from which an attack is to lead the model away."""


class Attack(BaseModel, ABC):
    """Looks for images within the threat model that the model gets wrong.

    The fields of a subclass are its settings, validated. It may assume that the model is in eval mode and that its
    weights do not change during the call. Randomness comes from the generator alone. It should stay inside the
    threat model; the caller clips all the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @abstractmethod
    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        generator: torch.Generator,
        *,
        until_broken: bool = False,
    ) -> Tensor:
        """Adversarial images for `x`.

        Args:
            model: images in [0, 1] to logits (n, classes), in eval mode.
            x: (n, c, h, w) in [0, 1].
            y: (n,) true labels.
            threat: the norm and eps.
            generator: on x's device.
            until_broken: set when measuring: an image that the model gets wrong needs no more work, and may be given
                back as soon as it is found. Unset (training), every image is to raise the loss as far as it can.

        Returns:
            (n, c, h, w), same dtype and device as x.
        """

    @property
    def can_diverge(self) -> bool:
        """Whether `diverge` is there for these settings."""
        return False

    def diverge(
        self, model: nn.Module, x: Tensor, reference: Tensor, threat: ThreatModel, generator: torch.Generator
    ) -> Tensor:
        """Images whose predictions are far from `reference` in KL divergence; called only where `can_diverge`.

        Args as of `__call__`, but reference: (n, classes) log-probabilities. Returns as `__call__`.
        """
        raise NotImplementedError


def perturb(
    attack: Attack,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    generator: torch.Generator,
    *,
    until_broken: bool = False,
    reference: Reference | None = None,
) -> Tensor:
    """Runs an attack: eval mode during it, effective weights once, no gradients left behind, result clipped.

    Args and returns as `Attack.__call__`; with `reference` it is `Attack.diverge` that runs, and y is not looked at.
    The model's mode (train or eval) is put back, so batch norm statistics never move during an attack.
    """
    if threat.eps == 0:
        return x
    with _eval_mode(model), frozen_weights(model):
        if reference is None:
            x_adv = attack(
                model, x.clone(), y, threat, generator, until_broken=until_broken
            ).detach()  # a copy: some attacks write into their input
        else:
            with torch.no_grad():
                predictions = reference(model, x)
            x_adv = attack.diverge(model, x.clone(), predictions, threat, generator).detach()
    return clip(threat, x, torch.where(x_adv.isfinite(), x_adv, x))


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def frozen_weights(model: nn.Module) -> Iterator[None]:
    """While open, parametrised weights are computed once, without a graph, and parameters take no gradients.

    Torch's `parametrize.cached` alone would keep the graph of the first forward pass; filling the cache under
    `no_grad` makes every later pass of the attack as cheap as that of a plain model.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        with parametrize.cached():
            with torch.no_grad():
                for module in model.modules():
                    if isinstance(module, nn.Module) and parametrize.is_parametrized(module):
                        for name in module.parametrizations:  # type: ignore[union-attr]
                            getattr(module, name)
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
