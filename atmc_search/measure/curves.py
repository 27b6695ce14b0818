"""Robustness curves: robust accuracy over the radius of the attack and over its number of steps, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from atmc_search.attacks import Attack, ThreatModel
from atmc_search.data import DeviceData
from atmc_search.measure.accuracy import Accuracy, clean_correct, robust_correct
from atmc_search.measure.settings import at_radius, with_steps
from atmc_search.registry import validated


@dataclass(frozen=True)
class RobustnessCurves:
    """Robust accuracies of one model on one set of images.

    Attributes:
        eps: (radius, accuracy) by ascending radius, with the steps that the attack has; never rises.
        steps: (number of steps, accuracy) by ascending number, at the threat model's eps. Each was run by itself, so
            this curve can rise, and a clear rise is a sign of gradient masking.
    """

    eps: tuple[tuple[float, Accuracy], ...]
    steps: tuple[tuple[int, Accuracy], ...]


def robustness_curve(
    model: nn.Module,
    data: DeviceData,
    attack: Attack,
    threat: ThreatModel,
    *,
    eps: Sequence[float] | None = None,
    steps: Sequence[int] | None = None,
    batch_size: int,
    seed: int,
) -> RobustnessCurves:
    """Robust accuracy of `model` at each radius and at each number of steps.

    Balls nest: an image that is broken at some radius is broken at every larger one, and is not attacked again there.
    A radius of 0 gives clean accuracy. At the threat model's own eps the figure may differ from that of `measure` by a
    few images whose fate hangs on the random start, since fewer images draw theirs. Over steps nothing is carried
    on: every number of steps faces every image that is right untouched.

    Args:
        model: in eval mode, on data's device; as decoded from its artifact.
        data: images in order.
        attack: the adversary. A step size of its own is scaled with the radius, and kept over steps; PGD's default is
            2.5 eps / steps at every point.
        threat: the norm, the eps of the curve over steps, and the eps that a step size of the attack's own is for.
        eps: radii, in any order; None or empty: no such curve.
        steps: numbers of steps, in any order; None or empty: no such curve.
        batch_size: images a batch.
        seed: of random starts, the same at every point; equal seeds give equal figures.

    Raises:
        AtmcError: a radius below 0, a number of steps that the attack cannot have, or an attack without steps.
    """
    # All settings before any work: a mistake at the end of a list must not cost the time of its beginning.
    balls = [validated(ThreatModel, {"norm": threat.norm, "eps": float(e)}, path="") for e in sorted(set(eps or ()))]
    attacks = [(number, with_steps(attack, number)) for number in sorted(set(steps or ()))]
    clean = clean_correct(model, data, batch_size)

    def survivors(attack: Attack, threat: ThreatModel, among: Tensor) -> Tensor:
        return robust_correct(model, data, attack, threat, batch_size=batch_size, seed=seed, clean=among)

    by_eps = []
    standing = clean
    for ball in balls:
        standing = survivors(at_radius(attack, threat, ball.eps), ball, standing)
        by_eps.append((ball.eps, Accuracy(int(standing.sum()), len(data))))
    by_steps = [
        (number, Accuracy(int(survivors(stepped, threat, clean).sum()), len(data))) for number, stepped in attacks
    ]
    return RobustnessCurves(tuple(by_eps), tuple(by_steps))
