from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmc_search.data import ImageSet, Splits, split
from atmc_search.errors import DataError

ALL = {"train_size": None, "validation_size": None, "test_size": None, "seed": 0}


def numbered(counts: list[int], *, start: int = 0) -> ImageSet:
    """`counts[c]` images of class c, sorted by class, whose four bytes spell each image's number."""
    labels = np.repeat(np.arange(len(counts)), counts)
    numbers = np.arange(start, start + len(labels), dtype="<u4")
    return ImageSet(numbers.view(np.uint8).reshape(-1, 1, 2, 2), labels)


def numbers(data: ImageSet) -> list[int]:
    return np.ascontiguousarray(data.images).reshape(len(data), 4).view("<u4")[:, 0].tolist()


def parts(splits: Splits) -> list[list[int]]:
    return [numbers(part) for part in (splits.train, splits.validation, splits.test)]


@st.composite
def cuts(draw: st.DrawFn) -> tuple[list[int], list[int] | None, dict[str, int]]:
    counts = draw(st.lists(st.integers(5, 40), min_size=2, max_size=5))
    test_counts = draw(st.none() | st.lists(st.integers(1, 20), min_size=len(counts), max_size=len(counts)))
    pool = sum(counts) - (0 if test_counts else sum(counts) // 5)
    validation = draw(st.integers(1, pool // 2))
    sizes = {
        "validation_size": validation,
        "train_size": draw(st.integers(pool // 2, pool - validation)),
        "test_size": draw(st.integers(1, sum(test_counts) if test_counts else sum(counts) // 5)),
        "seed": draw(st.integers(0, 2**64)),
    }
    return counts, test_counts, sizes


@given(cuts())
@settings(max_examples=60, deadline=None)
def test_parts_are_disjoint_exact_stratified_and_deterministic(cut):
    counts, test_counts, sizes = cut
    pool = numbered(counts)
    test = None if test_counts is None else numbered(test_counts, start=10_000)

    splits = split(pool, test, **sizes, classes=len(counts))

    train, validation, tested = parts(splits)
    assert [len(train), len(validation), len(tested)] == [
        sizes[name] for name in ("train_size", "validation_size", "test_size")
    ]
    everything = train + validation + tested
    assert len(set(everything)) == len(everything)
    labels = dict(zip(numbers(pool), pool.labels, strict=True))
    if test is not None:
        labels |= dict(zip(numbers(test), test.labels, strict=True))
    for part in (splits.train, splits.validation, splits.test):
        assert [labels[number] for number in numbers(part)] == part.labels.tolist()
    # Every class has its share of what a part was drawn from, up to rounding.
    if test is not None:
        for part, source in ((splits.validation, counts), (splits.test, test_counts)):
            shares = len(part) * np.array(source) / sum(source)
            assert np.all(np.abs(np.bincount(part.labels, minlength=len(counts)) - shares) < 1)
    assert parts(split(pool, test, **sizes, classes=len(counts))) == parts(splits)


def test_defaults_take_a_fifth_to_validate_and_everything_else_to_train():
    splits = split(numbered([50, 50]), numbered([5, 5], start=1000), **ALL, classes=2)
    train, validation, test = parts(splits)
    assert (len(train), len(validation)) == (80, 20)
    assert sorted(train + validation) == list(range(100))
    assert test == list(range(1000, 1010))


def test_default_validation_is_at_most_five_thousand():
    splits = split(numbered([20_000, 20_000]), numbered([1, 1]), **ALL, classes=2)
    assert len(splits.validation) == 5_000


def test_seed_moves_validation_and_train_size_does_not():
    pool, test = numbered([50, 50]), numbered([5, 5])
    first, other_size, other_seed = (
        numbers(split(pool, test, **(ALL | change), classes=2).validation)
        for change in ({}, {"train_size": 30}, {"seed": 1})
    )
    assert first == other_size
    assert sorted(first) != sorted(other_seed)


def test_held_out_test_set_depends_on_neither_seed_nor_other_sizes():
    pool = numbered([50, 50])
    reference = parts(split(pool, None, **ALL, classes=2))[2]
    changed = {"train_size": 20, "validation_size": 3, "seed": 5}
    assert parts(split(pool, None, **(ALL | changed), classes=2))[2] == reference
    assert len(reference) == 20


def test_a_prefix_of_a_part_is_a_fair_sample_of_a_pool_sorted_by_class():
    validation = split(numbered([500, 500]), None, **ALL, classes=2).validation
    assert 20 < validation.labels[:80].sum() < 60


def test_the_cut_is_this_one_on_every_machine():
    # Guards against a change that would move every result: these are the numbers of the first release.
    splits = split(numbered([6, 6]), None, **ALL, classes=2)
    assert parts(splits) == [[6, 5, 4, 11, 9, 1, 10, 2], [8, 0], [7, 3]]


def test_a_gigantic_seed_is_as_good_as_any():
    cut = parts(split(numbered([9, 9]), None, **(ALL | {"seed": 2**200}), classes=2))
    assert sorted(number for part in cut for number in part) == list(range(18))
    assert cut != parts(split(numbered([9, 9]), None, **(ALL | {"seed": 2**200 + 1}), classes=2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"validation_size": 100}, ["trial.data.validation_size = 100", "ask for 1 to 99"]),
        ({"validation_size": 0}, ["trial.data.validation_size = 0", "ask for 1 to 99"]),
        ({"train_size": 81}, ["trial.data.train_size = 81", "80 images are left", "ask for 1 to 80"]),
        ({"test_size": 11}, ["trial.data.test_size = 11", "10 test images", "ask for 1 to 10"]),
        ({"train_size": 1}, ["trial.data.train_size = 1", "class 1 without a training image", "ask for more"]),
        ({"validation_size": 99}, ["trial.data.validation_size = 99", "without a training image", "ask for less"]),
    ],
)
def test_sizes_that_cannot_be_had_are_one_line(change, words):
    with pytest.raises(DataError) as caught:
        split(numbered([50, 50]), numbered([5, 5]), **(ALL | change), classes=2)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_channel_stats_agree_with_numpy():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 3, 5, 4), dtype=np.uint8)
    data = ImageSet(images, np.zeros(40, np.int64))
    mean, std = Splits(data, data, data, 2).channel_stats()
    assert mean == pytest.approx((images / 255).mean(axis=(0, 2, 3)), rel=1e-12)
    assert std == pytest.approx((images / 255).std(axis=(0, 2, 3)), rel=1e-12)


def test_a_constant_channel_can_be_divided_by():
    data = ImageSet(np.full((3, 1, 2, 2), 255, np.uint8), np.zeros(3, np.int64))
    assert Splits(data, data, data, 2).channel_stats() == ((1.0,), (1.0,))


def test_input_shape_is_that_of_one_image():
    data = ImageSet(np.zeros((3, 1, 2, 5), np.uint8), np.zeros(3, np.int64))
    assert Splits(data, data, data, 2).input_shape == (1, 2, 5)
