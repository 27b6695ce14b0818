from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atmc_search.data import DeviceData, ImageSet


def data(n: int) -> DeviceData:
    """n images whose label is their number."""
    images = np.arange(n * 6, dtype=np.int64).astype(np.uint8).reshape(n, 1, 2, 3)
    return DeviceData(ImageSet(images, np.arange(n)), "cpu")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(n=st.integers(1, 50), batch_size=st.integers(1, 60), seed=st.none() | st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_a_pass_covers_every_image_once_in_batches_fit_for_batch_norm(n, batch_size, seed):
    held = data(n)
    batches = list(held.batches(batch_size, None if seed is None else seeded(seed)))
    labels = torch.cat([y for _, y in batches]).tolist()
    assert sorted(labels) == list(range(n))
    for x, y in batches:
        assert torch.equal(x, held.images[y].to(torch.float32) / 255)
    sizes = [len(y) for _, y in batches]
    assert len(sizes) == held.steps(batch_size)
    assert max(sizes) <= batch_size + 1
    assert 1 not in sizes or batch_size == 1 or n == 1


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"), [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (8, 4, [4, 4]), (3, 4, [3]), (1, 4, [1])]
)
def test_sizes_of_batches(n, batch_size, sizes):
    assert [len(y) for _, y in data(n).batches(batch_size)] == sizes
    assert [len(y) for _, y in data(n).batches(batch_size, seeded(0))] == sizes


def test_types_and_range():
    x, y = next(iter(data(50).batches(50)))
    assert (x.dtype, x.shape) == (torch.float32, (50, 1, 2, 3))
    assert y.dtype == torch.int64
    assert (x.min().item(), x.max().item()) == (0.0, 1.0)


def test_without_a_generator_the_order_is_that_of_the_set():
    assert [y.tolist() for _, y in data(5).batches(2)] == [[0, 1], [2, 3, 4]]


def test_the_order_follows_from_the_generator_and_changes_with_each_pass():
    held = data(40)

    def order(generator: torch.Generator) -> list[int]:
        return [label for _, y in held.batches(7, generator) for label in y.tolist()]

    generator = seeded(3)
    first, second = order(generator), order(generator)
    assert first == order(seeded(3))
    assert first != second
    assert first != order(seeded(4))


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    list(data(9).batches(2, seeded(0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_images_stay_bytes_and_read_only_arrays_are_copied_without_a_warning():
    images, labels = np.zeros((4, 1, 2, 2), np.uint8), np.zeros(4, np.int64)
    images.flags.writeable = labels.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        held = DeviceData(ImageSet(images, labels), torch.device("cpu"))
    assert held.images.dtype == torch.uint8
    assert len(held) == 4
    held.images += 1
    assert images.max() == 0
