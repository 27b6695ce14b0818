"""Images as plain arrays, and the one seeded, stratified way to cut them into train, validation and test.

The cut is the same on every machine and with every version of numpy: it sorts by raw PCG64 output, a stream that
numpy guarantees (NEP 19), where `Generator.permutation` may change between versions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atmc_search.errors import DataError

# The streams that random orders are drawn from, so that no part's cut moves when another part's does.
_POOL, _TEST, _HELD_OUT = 0, 1, 2


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images; the arrays may be read-only.

    Attributes:
        images: uint8, (n, channels, height, width), 0 to 255.
        labels: int64, (n,), 0 to classes - 1.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class RawData:
    """What a loader returns: a dataset before it is split.

    Attributes:
        train: the images that training and validation are drawn from.
        test: the dataset's own test images, None where it has none.
        classes: number of classes.
    """

    train: ImageSet
    test: ImageSet | None
    classes: int


@dataclass(frozen=True, eq=False)
class Splits:
    """Three disjoint sets: train to fit, validation to search and select, test to report once."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    classes: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def channel_stats(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel over the training images, in units of [0, 1].

        Summed in integers, so that they are the same to the bit everywhere. A constant channel gets a standard
        deviation of 1, by which one can divide.
        """
        means, deviations = [], []
        for channel in range(self.input_shape[0]):
            counts = np.zeros(256, dtype=np.int64)
            for image in np.array_split(self.train.images[:, channel], len(self.train) // 4096 + 1):
                counts += np.bincount(image.ravel(), minlength=256)
            histogram = [int(count) for count in counts]
            n = sum(histogram)
            total = sum(value * count for value, count in enumerate(histogram))
            squares = sum(value**2 * count for value, count in enumerate(histogram))
            variance = (n * squares - total**2) / (255 * n) ** 2
            means.append(total / (255 * n))
            deviations.append(variance**0.5 if variance > 0 else 1.0)
        return tuple(means), tuple(deviations)


def split(
    pool: ImageSet,
    test: ImageSet | None,
    *,
    train_size: int | None,
    validation_size: int | None,
    test_size: int | None,
    seed: int,
    classes: int,
) -> Splits:
    """Cuts a dataset into disjoint train, validation and test sets of exactly the sizes asked for.

    Each is stratified: a class has its share of the images, rounded by largest remainders. Each is in a seeded random
    order, so that a prefix is a fair sample too; only a test set taken whole keeps the order it came in. The
    validation set does not depend on `train_size`, and the test set on neither of the other sizes.

    Args:
        pool: what train and validation are drawn from.
        test: the dataset's own test set. None: 20 % of `pool` is held out as one, always the same images, whatever
            the seed and the sizes.
        train_size: images to train on; None: all that validation leaves.
        validation_size: images of the pool to validate on; None: 20 % of the pool, at most 5,000.
        test_size: images to test on; None: the whole test set.
        seed: of the draws, at least 0.
        classes: labels are 0 to classes - 1.

    Raises:
        DataError: a size that cannot be had, or that leaves a class without a training image.
    """
    if test is None:
        order = _random_order(len(pool), _HELD_OUT)
        held_out, kept = _stratified(order, pool.labels, len(pool) // 5, classes)
        pool, test = _subset(pool, kept), _subset(pool, held_out)

    validation_count = max(1, min(5_000, len(pool) // 5)) if validation_size is None else validation_size
    _check("validation_size", validation_count, len(pool) - 1, f"the pool has {len(pool)} images, one must be left")
    left = len(pool) - validation_count
    train_count = left if train_size is None else train_size
    _check("train_size", train_count, left, f"{left} images are left beside {validation_count} for validation")
    if test_size is not None:
        _check("test_size", test_size, len(test), f"there are {len(test)} test images")

    order = _random_order(len(pool), _POOL, seed)
    validation_index, rest = _stratified(order, pool.labels, validation_count, classes)
    train_index, _ = _stratified(rest, pool.labels, train_count, classes)
    absent = np.flatnonzero(np.bincount(pool.labels[train_index], minlength=classes) == 0)
    if absent.size:
        setting, value, remedy = (
            ("validation_size", validation_count, "ask for less")
            if train_size is None
            else ("train_size", train_count, f"ask for more, at least {classes}")
        )
        raise DataError(f"trial.data.{setting} = {value}: leaves class {absent[0]} without a training image; {remedy}")
    if test_size is not None:
        test_index, _ = _stratified(_random_order(len(test), _TEST, seed), test.labels, test_size, classes)
        test = _subset(test, test_index)
    return Splits(_subset(pool, train_index), _subset(pool, validation_index), test, classes)


def _check(setting: str, value: int, most: int, because: str) -> None:
    if most < 1:
        raise DataError(f"trial.data.{setting} = {value}: {because}; use a larger dataset")
    if not 1 <= value <= most:
        raise DataError(f"trial.data.{setting} = {value}: {because}; ask for 1 to {most}")


def _random_order(n: int, *entropy: int) -> NDArray[np.intp]:
    keys = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(n)
    return np.argsort(keys, kind="stable")


def _stratified(
    order: NDArray[np.intp], labels: NDArray[np.int64], size: int, classes: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first images of every class along `order`, `size` in all, and the others; both in that order."""
    ordered = labels[order]
    counts = np.bincount(ordered, minlength=classes)
    quotas, remainders = np.divmod(size * counts, len(order))
    quotas[np.argsort(-remainders, kind="stable")[: size - quotas.sum()]] += 1
    # rank: how many of an image's own class come before it
    by_class = np.argsort(ordered, kind="stable")
    rank = np.empty_like(by_class)
    rank[by_class] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = rank < quotas[ordered]
    return order[chosen], order[~chosen]


def _subset(images: ImageSet, index: NDArray[np.intp]) -> ImageSet:
    return ImageSet(images.images[index], images.labels[index])
