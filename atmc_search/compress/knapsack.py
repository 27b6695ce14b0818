"""The multiple-choice knapsack: one option an item, the least distortion that a budget pays for.

Bits per tensor and ranks per layer are both chosen by it. Greedy on the convex hulls (Sinha and Zoltners, 1979): an
item's options that no mix of two others beats, taken in order of distortion saved per unit of cost; what is left then
goes to options beside the hulls. Off from the best by less than the first step that did not fit.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

Option = tuple[float, float]
"""(cost, distortion) of one way to store an item."""


def allocate(items: Sequence[Sequence[Option]], budget: float) -> list[int] | None:
    """Which option of each item to take.

    Args:
        items: the options of each item, at least one, in any order.
        budget: the most that the chosen costs may add up to.

    Returns:
        the index of each item's option; None if not even the cheapest options fit.
    """
    hulls = [_hull(options) for options in items]
    taken = [0] * len(items)
    spent = sum(items[i][hull[0]][0] for i, hull in enumerate(hulls))
    if spent > budget:
        return None
    queue: list[tuple[float, int]] = []

    def offer(i: int) -> None:
        if taken[i] + 1 < len(hulls[i]):
            (cost, distortion), (next_cost, next_distortion) = (items[i][hulls[i][taken[i] + j]] for j in (0, 1))
            heapq.heappush(queue, (-(distortion - next_distortion) / (next_cost - cost), i))

    for i in range(len(items)):
        offer(i)
    while queue:
        _, i = heapq.heappop(queue)
        extra = items[i][hulls[i][taken[i] + 1]][0] - items[i][hulls[i][taken[i]]][0]
        if spent + extra > budget:
            continue  # this item is settled: its later steps save less and cost more; others may still fit
        spent += extra
        taken[i] += 1
        offer(i)
    return _with_the_rest(items, [hull[position] for hull, position in zip(hulls, taken, strict=True)], budget - spent)


def _with_the_rest(items: Sequence[Sequence[Option]], chosen: list[int], left: float) -> list[int]:
    """What the hulls left over, spent on the options beside them: the one that saves most first, while one fits."""
    while True:
        steps = [
            (items[i][j][1] - options[k][1], -(options[k][0] - items[i][j][0]), i, k)
            for i, (j, options) in enumerate(zip(chosen, items, strict=True))
            for k in range(len(options))
            if options[k][1] < items[i][j][1] and options[k][0] - items[i][j][0] <= left
        ]
        if not steps:
            return chosen
        _, saved, i, k = max(steps)
        chosen[i], left = k, left + saved


def _hull(options: Sequence[Option]) -> list[int]:
    """Indices of the options on the lower convex hull: cheapest first, distortion falling."""
    order = sorted(range(len(options)), key=lambda j: options[j])
    hull: list[int] = []
    for j in order:
        cost, distortion = options[j]
        if hull and distortion >= options[hull[-1]][1]:
            continue
        while len(hull) > 1:
            (c0, d0), (c1, d1) = options[hull[-2]], options[hull[-1]]
            if (d0 - d1) * (cost - c1) >= (d1 - distortion) * (c1 - c0):
                break
            hull.pop()
        hull.append(j)
    return hull
