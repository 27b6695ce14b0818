"""AutoAttack: APGD-CE, APGD-T, FAB-T and Square in turn (Croce & Hein, arXiv 2003.01690), by `pyautoattack`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from atmc_search.attacks.apgd_t import APGDT
from atmc_search.attacks.base import Attack
from atmc_search.attacks.threat import ThreatModel


class AutoAttack(Attack):
    """The ensemble that reported robust accuracies rest on. The defaults are the published ones.

    Always works until broken: each attack gets what the ones before left standing. An image that stands to the end may
    be given back as it was. Version `plus` adds more restarts and the untargeted attacks. The package's `rand` is
    left out: a model in eval mode draws no random numbers.

    The targeted DLR loss needs four classes, the untargeted three. With fewer, `apgd_t` of this package, which has a
    loss for them, takes that place. In l2, Square fails on images that are not square or narrower than 5 pixels, and
    is left out for them.
    """

    version: Literal["standard", "plus"] = Field("standard", description="which attacks, how many restarts")
    steps: int = Field(100, ge=1, description="gradient steps of APGD and FAB; 100 is the standard")
    square_queries: int = Field(5000, ge=1, description="forward passes of Square; 5000 is the standard")

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
        # One a batch, which is what the package seeds each of its attacks with.
        seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
        if not len(x):
            return x  # the package takes maxima over the batch
        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        x_adv = self._ensemble(model, x, y, threat, classes, seed)
        if classes < 4:
            with torch.no_grad():
                right = model(x_adv).argmax(1) == y
            if right.any():
                attack = APGDT(steps=self.steps)
                x_adv[right] = attack(model, x[right], y[right], threat, generator, until_broken=True)
        return x_adv

    def _ensemble(self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, classes: int, seed: int) -> Tensor:
        from pyautoattack import AutoAttack as Ensemble  # not needed to import atmc_search

        def predict(images: Tensor) -> Tensor:  # the package works in float32 whatever it is given
            logits: Tensor = model(images.to(x.dtype))
            return logits.float()

        with _undisturbed(x.device):
            ensemble = Ensemble(
                predict,
                eps=threat.eps,
                norm={"linf": "Linf", "l2": "L2"}[threat.norm],
                version=self.version,
                seed=seed,
                device=x.device,
            )
            for attack in (ensemble.apgd, ensemble.apgd_targeted):
                # What its __init__ makes of n_iter.
                attack.n_iter = attack.n_iter_orig = self.steps
                attack.n_iter_2, attack.n_iter_min, attack.size_decr = (
                    max(int(share * self.steps), 1) for share in (0.22, 0.06, 0.03)
                )
            ensemble.fab.n_iter = self.steps
            ensemble.square.n_queries = self.square_queries
            for attack in (ensemble.apgd_targeted, ensemble.fab):
                attack.n_target_classes = min(9, classes - 1)
            impossible = {
                "apgd-t": classes < 4,
                "apgd-dlr": classes < 3,
                "square": threat.norm == "l2" and not x.shape[2] == x.shape[3] >= 5,
            }
            ensemble.attacks_to_run = [name for name in ensemble.attacks_to_run if not impossible.get(name)]
            x_adv: Tensor
            x_adv, _ = ensemble.run_standard_evaluation(x.float(), y, batch_size=len(x))
        return x_adv.to(x.dtype)


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Keeps what pyautoattack reaches for: the global random state, the trace function, the log.

    It seeds torch's global generators, resets `sys.settrace` (so that a debugger or a coverage count would stop
    there), and warns in every batch about what is settled here or is no fault, such as too many target classes.
    """
    # It seeds the current CUDA device, which need not be the images'. Where CUDA was never used there is no state.
    cuda = {torch.cuda.current_device()} if torch.cuda.is_initialized() else set()  # type: ignore[no-untyped-call]
    if device.type == "cuda":
        cuda.add(device.index if device.index is not None else torch.cuda.current_device())
    logger, trace = logging.getLogger("auto-attack"), sys.gettrace()
    disabled, logger.disabled = logger.disabled, True
    try:
        with torch.random.fork_rng(devices=sorted(cuda)):
            yield
    finally:
        logger.disabled = disabled
        sys.settrace(trace)
