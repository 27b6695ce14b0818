from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from atmc_search.data import DATASETS, DataSpec, load_splits
from atmc_search.errors import DataError


def test_values_are_those_of_scikit_learn_over_the_whole_byte():
    raw = DATASETS["digits"](None)
    assert raw.train.images.shape == (1797, 1, 8, 8)
    assert raw.train.images.dtype == np.uint8
    assert (raw.train.images.min(), raw.train.images.max()) == (0, 255)
    source = load_digits().images
    assert np.abs(raw.train.images[:, 0] - source * 255 / 16).max() <= 0.5
    assert raw.test is None
    assert raw.classes == 10


def test_test_images_are_the_same_whatever_the_spec_says():
    reference = load_splits(DataSpec(name="digits")).test
    other = load_splits(DataSpec(name="digits", train_size=100, validation_size=50, seed=7)).test
    assert len(reference) == 359
    assert np.array_equal(reference.images, other.images)
    assert np.array_equal(reference.labels, other.labels)


def test_root_is_refused():
    with pytest.raises(DataError, match=r"^trial\.data\.root = '/x': .*; remove it$"):
        DATASETS["digits"]("/x")
