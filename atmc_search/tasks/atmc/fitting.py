"""Solving for a size: the largest whole number whose measured size is within a budget, in few measurements.

A measurement is a projection and a real packing, which takes seconds for a large model; sizes grow about linearly, but
neither exactly nor always monotonically (codebooks are local optima, dead channels come and go).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

_MOST_TRIES = 16
_STILL = 0.002
"""Numbers that differ by less than this share are as good as equal."""


@dataclass(frozen=True)
class Fit:
    """The number found, and its size."""

    k: int
    size: int


def largest_within(
    size: Callable[[int], int], budget: float, *, guess: int, most: int, base: float, slack: float
) -> Fit | None:
    """The largest k in 1..most with size(k) ≤ budget, up to `slack`.

    By regula falsi between the largest that is known to fit and the smallest that is known not to, halving where it is
    slow.

    Args:
        size: measures a k; about monotone.
        budget: the most that size may be.
        guess: where to look first.
        most: the largest k there is.
        base: about size(0).
        slack: a k whose size is at least (1 − slack)·budget is good enough.

    Returns:
        the best that was found; None if even one is over the budget.
    """
    low, low_size, high, high_size = 0, base, most + 1, math.inf
    best: Fit | None = None
    k = min(max(1, guess), most)
    aim = budget * (1 - slack / 2)
    for attempt in range(_MOST_TRIES):
        found = size(k)
        if found <= budget:
            if best is None or found > best.size:
                best = Fit(k, found)
            low, low_size = k, float(found)
        else:
            high, high_size = k, float(found)
        if high - low <= max(1, _STILL * low) or (best is not None and best.size >= (1 - slack) * budget):
            break
        if math.isinf(high_size):  # on the line through (0, base)
            slope = max(low_size - base, 1.0) / low
            k = low + math.ceil(max(aim - low_size, 1.0) / slope)
        elif attempt % 4 == 3:
            k = (low + high) // 2
        else:
            k = low + round((aim - low_size) / max(high_size - low_size, 1.0) * (high - low))
        k = min(max(k, low + 1), high - 1)
    return best
