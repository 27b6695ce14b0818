"""Which epoch counts, and when to stop: adversarial training overfits robustly (Rice et al., arXiv 2002.11569).

Robust accuracy on held-out images peaks well before training ends. The figure of a best epoch is the largest of
several noisy ones and so a little optimistic; images that chose nothing (`verify`, on test images) have the last word.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Selection:
    """The best measurement so far and how many have come since without being better.

    Attributes:
        best: its (robust, clean) accuracy; clean accuracy decides between equals. None before the first.
        since: measurements since the best, of those that count towards patience.
    """

    best: tuple[float, float] | None = None
    since: int = 0

    def take(self, robust: float, clean: float, *, counts: bool = True) -> bool:
        """Takes in a measurement; whether it is the best so far. One that equals the best is not."""
        better = self.best is None or (robust, clean) > self.best
        if better:
            self.best, self.since = (robust, clean), 0
        elif counts:
            self.since += 1
        return better
