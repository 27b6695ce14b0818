"""Clean and robust accuracy over a set of images, with counts and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atmc_search.attacks import Attack, ThreatModel, perturb
from atmc_search.data import DeviceData
from atmc_search.measure.intervals import wilson_interval
from atmc_search.training import seeded


@dataclass(frozen=True)
class Accuracy:
    """A share of images: `correct` of `n`."""

    correct: int
    n: int

    @property
    def value(self) -> float:
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        return wilson_interval(self.correct, self.n)


@dataclass(frozen=True)
class Measurement:
    """Accuracies of one model on one set of images."""

    clean: Accuracy
    robust: Accuracy

    def metrics(self, prefix: str = "") -> dict[str, float | int]:
        """The figures under their column names."""
        return {
            f"{prefix}clean_accuracy": self.clean.value,
            f"{prefix}robust_accuracy": self.robust.value,
        }

    def intervals(self, prefix: str = "") -> dict[str, float]:
        """The ends of the figures' intervals under their column names."""
        ends: dict[str, float] = {}
        for name, accuracy in (("clean", self.clean), ("robust", self.robust)):
            low, high = accuracy.interval
            ends |= {f"{prefix}{name}_accuracy_low": low, f"{prefix}{name}_accuracy_high": high}
        return ends


@torch.no_grad()
def clean_correct(model: nn.Module, data: DeviceData, batch_size: int) -> Tensor:
    """(n,) bool: which images the model, in eval mode, gets right."""
    model.eval()
    return torch.cat([model(x).argmax(1) == y for x, y in data.batches(batch_size)])


def robust_correct(
    model: nn.Module,
    data: DeviceData,
    attack: Attack | Sequence[Attack],
    threat: ThreatModel,
    *,
    batch_size: int,
    seed: int,
    clean: Tensor,
) -> Tensor:
    """(n,) bool: which images are right both untouched and under every attack.

    An image that is wrong untouched is not attacked: the unperturbed image lies in every threat model. Nor is one that
    is broken attacked again: each attack sees what survived those before it (RobustBench and AutoAttack count so, Croce
    and Hein, arXiv 2003.01690), and may itself stop at an image as soon as that is broken.

    Args:
        model: in eval mode, on data's device.
        data: images in order.
        attack: the adversary, or several, cheap ones best first.
        threat: norm and eps.
        batch_size: images a batch.
        seed: of the attacks' random starts; equal seeds give equal figures.
        clean: (n,) bool, what `clean_correct` gave, or fewer: images that are False are not attacked.
    """
    robust = clean.clone()
    for number, each in enumerate([attack] if isinstance(attack, Attack) else attack):
        # A stream of its own for each attack: with one for all, what an attack finds would depend on its neighbours,
        # and the same attack named twice would start at the same points twice.
        parts = ("evaluate", number) if number else ("evaluate",)
        with seeded(data.labels.device, seed, *parts) as generator:
            start = 0
            for x, y in data.batches(batch_size):
                standing = robust[start : start + len(y)]
                start += len(y)
                chosen = standing.clone()
                if chosen.any():
                    x_adv = perturb(each, model, x[chosen], y[chosen], threat, generator, until_broken=True)
                    with torch.no_grad():
                        standing[chosen] = model(x_adv).argmax(1) == y[chosen]  # a view: `robust` itself
    return robust


def measure(
    model: nn.Module,
    data: DeviceData,
    attack: Attack | Sequence[Attack],
    threat: ThreatModel,
    *,
    batch_size: int,
    seed: int,
) -> Measurement:
    """Clean and robust accuracy of `model` on all of `data`; of several attacks, an image must survive all."""
    clean = clean_correct(model, data, batch_size)
    robust = robust_correct(model, data, attack, threat, batch_size=batch_size, seed=seed, clean=clean)
    n = len(data)
    return Measurement(Accuracy(int(clean.sum()), n), Accuracy(int(robust.sum()), n))
