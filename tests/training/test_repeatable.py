from __future__ import annotations

import pytest
import torch

from atmc_search.training import seeded

CPU = torch.device("cpu")


def stream(*parts: int | str) -> list[float]:
    with seeded(CPU, *parts) as generator:
        return torch.rand(4, generator=generator).tolist()


def test_equal_parts_give_equal_streams_and_different_ones_different():
    parts = [(0, "train", 0), (0, "train", 1), (0, "dense", 0), (1, "train", 0), (0, "train", 10), (0, "evaluate")]
    streams = [stream(*p) for p in parts]
    assert streams == [stream(*p) for p in parts]
    assert len({tuple(s) for s in streams}) == len(parts)


def test_the_global_generator_is_seeded_inside_and_put_back_after():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with seeded(CPU, 0, "train", 0):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(9)
    with seeded(CPU, 0, "train", 0):
        assert torch.equal(torch.rand(3), first)


def test_the_global_generator_is_put_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), seeded(CPU, 1):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
