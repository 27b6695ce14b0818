"""An attack with other settings: more steps, another radius. What curves and checks vary lives here."""

from __future__ import annotations

from atmc_search.attacks import Attack, ThreatModel
from atmc_search.errors import AtmcError
from atmc_search.registry import validated


def steps_of(attack: Attack) -> int | None:
    """The attack's number of steps; None for one that has no such setting."""
    steps = getattr(attack, "steps", None)
    return steps if isinstance(steps, int) else None


def with_steps(attack: Attack, steps: int) -> Attack:
    """The attack with this many steps. A step size of its own stays as it is; PGD's default shrinks to match.

    Raises:
        AtmcError: the attack has no steps, or cannot have this many.
    """
    if steps_of(attack) is None:
        name = type(attack).__name__
        raise AtmcError(f"steps = {steps}: {name} takes no number of steps; leave steps out, or use another attack")
    return validated(type(attack), {**attack.model_dump(), "steps": steps}, path="")


def at_radius(attack: Attack, threat: ThreatModel, eps: float) -> Attack:
    """The attack for another radius than the threat model's.

    A step size of its own is meant for the threat model's eps and grows or shrinks with it: with steps too short to
    cross a larger ball the attack would fail, and the failure would look like robustness.
    """
    step_size = getattr(attack, "step_size", None)
    if not isinstance(step_size, float) or not threat.eps or not eps:
        return attack
    return validated(type(attack), {**attack.model_dump(), "step_size": step_size * eps / threat.eps}, path="attack")
