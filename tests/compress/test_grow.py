"""Drop and grow: against sorting by hand, and the share that is exchanged."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atmc_search.compress import GrowSchedule, regrown


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_the_smallest_go_and_zeros_of_the_largest_gradients_come(seed: int, share: float, sloped: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (3, 4), "b": (5,)}
    weights = {
        n: torch.randn(s, generator=generator) * (torch.rand(s, generator=generator) < 0.6) for n, s in shapes.items()
    }
    slopes = {
        n: torch.randn(s, generator=generator) * (torch.rand(s, generator=generator) < sloped)
        for n, s in shapes.items()
    }
    flat = torch.cat([w.flatten() for w in weights.values()]).tolist()
    slope = torch.cat([g.flatten() for g in slopes.values()]).tolist()
    held = sorted((i for i in range(17) if flat[i]), key=lambda i: abs(flat[i]))
    grows = sorted((i for i in range(17) if not flat[i] and slope[i]), key=lambda i: -abs(slope[i]))
    exchanged = min(int(share * len(held)), len(grows))
    expected = {*held[exchanged:], *grows[:exchanged]}
    masks = regrown(weights, slopes, share).masks
    assert {n: m.shape for n, m in masks.items()} == {n: torch.Size(s) for n, s in shapes.items()}
    found = torch.cat([mask.flatten() for mask in masks.values()]).nonzero().flatten().tolist()
    assert set(found) == expected
    assert len(found) == len(held)


@pytest.mark.parametrize(
    ("step", "progress", "share"),
    [(0, 0.2, 0), (4, 0.2, 0.3), (5, 0.2, 0), (8, 0.4, 0.2), (8, 0.1, 0), (12, 0.6, 0), (12, 0.9, 0)],
)
def test_exchanges_are_every_few_steps_of_a_share_that_falls_by_half_a_cosine(step, progress, share):
    """A third of the way to the end (1 + cos 60°) / 2 = 3/4 of it, two thirds of the way 1/4."""
    schedule = GrowSchedule(every=4, share=0.4 if progress == 0.2 else 0.8, begin=0.15, end=0.6)
    assert schedule.share_at(step, progress) == pytest.approx(share)
