"""Confidence intervals of a share."""

from __future__ import annotations

import math


def wilson_interval(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval for a binomial share (Wilson, 1927; JASA 22:209-212), 95 % by default.

    Args:
        successes: 0 to n.
        n: trials, at least 1.
        z: normal quantile of the level.
    """
    share = successes / n
    scale = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and n successes one end is the share itself, which rounding would miss by 1e-18.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
