from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from atmc_search.data import augment


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, channels: int = 2, height: int = 5, width: int = 4) -> torch.Tensor:
    """Positive everywhere and no pixel twice, so that a crop says where it was taken."""
    return torch.rand(n, channels, height, width, generator=seeded(99)) + 0.1


def placed(image: torch.Tensor, shown: torch.Tensor, padding: int) -> list[tuple[int, int, bool]]:
    """Every (rows down, columns right, mirrored?) of a crop of the padded `image` that equals `shown`."""
    padded = F.pad(image, (padding,) * 4)
    height, width = image.shape[1:]
    return [
        (down, right, mirrored)
        for down in range(2 * padding + 1)
        for right in range(2 * padding + 1)
        for mirrored in (False, True)
        for crop in [padded[:, down : down + height, right : right + width]]
        if torch.equal(crop.flip(2) if mirrored else crop, shown)
    ]


@given(
    n=st.integers(0, 9),
    channels=st.integers(1, 3),
    height=st.integers(2, 6),
    width=st.integers(2, 6),
    padding=st.integers(0, 1),
    flip=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_every_image_becomes_a_crop_of_its_own_padded_self(n, channels, height, width, padding, flip, seed):
    x = images(n, channels, height, width)
    before = x.clone()
    shown = augment(x, crop_padding=padding, flip=flip, generator=seeded(seed))
    assert (shown.shape, shown.dtype) == (x.shape, x.dtype)
    assert torch.equal(x, before)
    for original, changed in zip(x, shown, strict=True):
        places = placed(original, changed, padding)
        assert len(places) == 1
        assert flip or not places[0][2]


def test_all_crops_and_both_sides_are_equally_likely():
    n = 18_000
    image = images(1)
    shown = augment(image.expand(n, -1, -1, -1), crop_padding=1, flip=True, generator=seeded())
    counts = [
        int((shown == (crop.flip(2) if mirrored else crop)).flatten(1).all(1).sum())
        for down in range(3)
        for right in range(3)
        for mirrored in (False, True)
        for crop in [F.pad(image[0], (1,) * 4)[:, down : down + 5, right : right + 4]]
    ]
    assert sum(counts) == n
    # Chi-squared of 17 degrees of freedom: above 40.8 once in a thousand.
    assert sum((count - n / 18) ** 2 / (n / 18) for count in counts) < 40.8


def test_a_crop_is_filled_up_with_black():
    shown = augment(torch.ones(200, 1, 3, 3), crop_padding=2, flip=False, generator=seeded())
    assert set(shown.unique().tolist()) == {0.0, 1.0}
    assert int(shown.flatten(1).sum(1).min()) == 1


def test_the_generator_decides_and_the_global_one_is_left_alone():
    x = images(50)
    before = torch.get_rng_state()
    first, again, other = (augment(x, crop_padding=2, flip=True, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_batch_is_drawn_anew():
    x, generator = images(50), seeded()
    first, second = (augment(x, crop_padding=2, flip=True, generator=generator) for _ in range(2))
    assert not torch.equal(first, second)


def test_with_nothing_to_do_the_batch_itself_comes_back_and_nothing_is_drawn():
    x, generator = images(3), seeded()
    before = generator.get_state()
    assert augment(x, crop_padding=0, flip=False, generator=generator) is x
    assert torch.equal(generator.get_state(), before)


def test_gradients_pass():
    x = images(4).requires_grad_()
    augment(x, crop_padding=0, flip=True, generator=seeded()).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_generator_of_the_processor_gives_the_same_images_on_a_gpu():
    x = images(50)
    here, there = (augment(x.to(device), crop_padding=2, flip=True, generator=seeded()) for device in ("cpu", "cuda"))
    assert there.is_cuda
    assert torch.equal(here, there.cpu())
