"""Checks against gradient masking: signs that a robust accuracy is the attack's failure and not the model's strength.

To add a check: a figure in `MaskingChecks`, its name and sentence in `MaskingChecks.findings`, and a known masking
model in the tests that it catches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atmc_search.attacks import Attack, ThreatModel, perturb
from atmc_search.data import DeviceData, ImageSet
from atmc_search.measure.accuracy import Accuracy, clean_correct, robust_correct
from atmc_search.measure.settings import at_radius, steps_of, with_steps
from atmc_search.training import seeded

MAY_SURVIVE = 0.05
"""The share of images that a sound attack may leave standing at a radius at which all of them can be broken."""

LEVEL = 0.01
"""The level of the paired tests: an honest model is flagged by one of them in less than one of a hundred trials."""


@dataclass(frozen=True)
class Paired:
    """Two attacks on the same images, one of which should be at least as strong as the other.

    Attributes:
        stronger_only: images broken only by the attack that should be the stronger.
        weaker_only: images broken only by the other one.
        n: images in all.
    """

    stronger_only: int
    weaker_only: int
    n: int

    @property
    def p_value(self) -> float:
        """Exact one-sided McNemar test (1947, Psychometrika 12:153-157): how easily chance alone favours the weaker.

        If neither attack were better, each image that only one of them breaks would be a fair coin: the probability of
        at least `weaker_only` heads in `stronger_only + weaker_only` throws.
        """
        throws = self.stronger_only + self.weaker_only
        ways = tail = math.comb(throws, self.weaker_only)
        for heads in range(self.weaker_only, throws):
            ways = ways * (throws - heads) // (heads + 1)
            tail += ways
        return tail / (1 << throws)

    @property
    def upset(self) -> bool:
        """Whether the weaker attack won, beyond chance."""
        return self.p_value < LEVEL


@dataclass(frozen=True)
class MaskingChecks:
    """What the checks found. A check that could not be made (`None`) raises no flag.

    Attributes:
        images: images that were looked at.
        repeats: whether the model gave the same logits twice.
        growth: accuracy under attack at the radius at which every one of these images can be broken; None where there
            is no such image.
        steps: twice the steps (should be the stronger) against those given; None for an attack without steps.
        transfer: the attack itself (should be the stronger) against what it found on the surrogate; None without one.
    """

    images: int
    repeats: bool
    growth: Accuracy | None
    steps: Paired | None
    transfer: Paired | None

    @property
    def findings(self) -> Mapping[str, str]:
        """The checks that failed: short name to one plain sentence."""
        found = {}
        if not self.repeats:
            found["random"] = (
                "the model answers the same image differently from one call to the next, so the attack's gradients "
                "are noise"
            )
        if self.growth is not None and self.growth.interval[0] > MAY_SURVIVE:
            found["eps_growth"] = (
                f"{self.growth.correct} of {self.growth.n} images survive a radius at which all of them can be broken: "
                "the attack fails"
            )
        if self.steps is not None and self.steps.upset:
            found["steps"] = (
                f"with twice the steps {self.steps.weaker_only} images are saved and only {self.steps.stronger_only} "
                "more are broken: the gradients mislead"
            )
        if self.transfer is not None and self.transfer.upset:
            found["transfer"] = (
                f"images made on another model break {self.transfer.weaker_only} images that the attack does not, and "
                f"miss only {self.transfer.stronger_only} that it does: the gradients hide what is there"
            )
        return found

    @property
    def flags(self) -> tuple[str, ...]:
        """Short names of the checks that failed: "random", "eps_growth", "steps", "transfer"; empty when all passed."""
        return tuple(self.findings)

    def metrics(self) -> dict[str, str]:
        """The flags under their column name, joined by commas."""
        return {"masking_flags": ",".join(self.flags)}


def masking_checks(
    model: nn.Module,
    data: DeviceData,
    attack: Attack,
    threat: ThreatModel,
    *,
    surrogate: nn.Module | None = None,
    images: int = 200,
    batch_size: int,
    seed: int,
) -> MaskingChecks:
    """Looks for the known signs of gradient masking (Athalye et al., arXiv 1802.00420; Carlini et al., 1902.06705).

    1. *random*: the model must give the same logits twice.
    2. *eps_growth*: robust accuracy must fall to about 0 as eps grows. At ℓ∞ radius 1/2, or ℓ2 radius √d / 2, every
       image reaches mid-grey. All images whose label is not the class that the model gives to mid-grey can thus be
       broken for certain, by one known point, and an attack that leaves more than `MAY_SURVIVE` of them standing
       (lower end of Wilson's interval) has failed. Other images are left out, because they may be safe in truth: a
       model that gives one class to everything is robust, if useless, and passes.
    3. *steps*: more steps must not save images: doubled steps against the given ones, paired image by image.
    4. *transfer*: what the attack finds on `surrogate` must not beat what it finds on the model itself, paired alike.

    Passing proves nothing. A model that fails has a robust accuracy that is not to be believed, be it the model's doing
    or that of an attack too weak to measure with: one that does not grow with eps (`none`, or `wrm`, whose reach is set
    by gamma) fails *eps_growth* on honest models too.

    Costs: with a the gradients that the attack takes an image (PGD: steps × restarts), at most 5 a gradients for each
    of `images` images: a as given, a at the large radius, 2 a with doubled steps, a on the surrogate. Images that are
    wrong untouched cost none; broken ones no more than the attack itself makes them. Forward passes of attacks that
    also search without gradients (Square in AutoAttack) are needed 4 times over likewise.

    Args:
        model: images in [0, 1] to logits (n, classes), on data's device; as decoded from its artifact.
        data: images in order; only the first `images` are used (a split's order is random).
        attack: the one that gives the robust accuracy.
        threat: norm and eps.
        surrogate: another model for the same images, on the same device: the dense start, say. None: not checked.
        images: how many images to look at, at least 1.
        batch_size: images a batch.
        seed: of random starts; equal seeds give equal figures.
    """
    assert images >= 1, images
    chosen = ImageSet(data.images[:images].cpu().numpy(), data.labels[:images].cpu().numpy())
    data = DeviceData(chosen, data.labels.device)
    with seeded(data.labels.device, seed, "masking"):  # a model's own noise would come from torch's global stream
        repeats = _repeats(model, data, batch_size)
        clean = clean_correct(model, data, batch_size)

        def survivors(attack: Attack, threat: ThreatModel, among: Tensor) -> Tensor:
            return robust_correct(model, data, attack, threat, batch_size=batch_size, seed=seed, clean=among)

        radius = max(threat.eps, 0.5 * (1.0 if threat.norm == "linf" else math.sqrt(data.images[0].numel())))
        breakable = clean & (data.labels != _grey_class(model, data))
        growth = None
        if breakable.any():
            ball = ThreatModel(norm=threat.norm, eps=radius)
            left = survivors(at_radius(attack, threat, radius), ball, breakable)
            growth = Accuracy(int(left.sum()), int(breakable.sum()))

        given = steps_of(attack)
        own = survivors(attack, threat, clean) if given is not None or surrogate is not None else clean
        steps = None
        if given is not None:
            doubled = survivors(with_steps(attack, 2 * given), threat, clean)
            steps = _paired(clean, stronger=doubled, weaker=own)
        transfer = None
        if surrogate is not None:
            moved = _transferred(model, surrogate, data, attack, threat, batch_size=batch_size, seed=seed, clean=clean)
            transfer = _paired(clean, stronger=own, weaker=moved)
    return MaskingChecks(len(data), repeats, growth, steps, transfer)


@torch.no_grad()
def _grey_class(model: nn.Module, data: DeviceData) -> int:
    grey = torch.full_like(data.images[:1], 0.5, dtype=torch.float32)
    return int(model(grey).argmax(1))


@torch.no_grad()
def _repeats(model: nn.Module, data: DeviceData, batch_size: int) -> bool:
    model.eval()
    for x, _ in data.batches(batch_size):
        first, second = model(x), model(x)
        # Not to the bit: some GPU kernels add in any order.
        tolerance = 1e-3 * float(first.abs().nan_to_num(0, 0).max())
        if not torch.allclose(first, second, rtol=0, atol=tolerance, equal_nan=True):
            return False
    return True


def _transferred(
    model: nn.Module,
    surrogate: nn.Module,
    data: DeviceData,
    attack: Attack,
    threat: ThreatModel,
    *,
    batch_size: int,
    seed: int,
    clean: Tensor,
) -> Tensor:
    """(n,) bool: which images `model` still gets right after the attack worked on `surrogate`."""
    robust = clean.clone()
    with seeded(data.labels.device, seed, "transfer") as generator:
        start = 0
        for x, y in data.batches(batch_size):
            standing = robust[start : start + len(y)]
            start += len(y)
            chosen = standing.clone()
            if chosen.any():
                # Not until broken: an image that just fools the surrogate need not fool the model; one far beyond may.
                x_adv = perturb(attack, surrogate, x[chosen], y[chosen], threat, generator)
                with torch.no_grad():
                    standing[chosen] = model(x_adv).argmax(1) == y[chosen]
    return robust


def _paired(clean: Tensor, *, stronger: Tensor, weaker: Tensor) -> Paired:
    """From which images survived each of two attacks."""
    return Paired(
        stronger_only=int((weaker & ~stronger).sum()),
        weaker_only=int((stronger & ~weaker).sum()),
        n=int(clean.sum()),
    )
