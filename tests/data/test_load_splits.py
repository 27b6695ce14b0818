from __future__ import annotations

import sys
import textwrap

import numpy as np
import pytest

from atmc_search.data import DATASETS, AugmentSpec, DataSpec, load_splits
from atmc_search.errors import AtmcError, DataError, SpecError

MODULE = """
import numpy as np
import torch
from atmc_search.data import ImageSet, RawData

images = np.zeros((12, 3, 4, 5), np.uint8)
labels = np.arange(12, dtype=np.int32) % 3
good = ImageSet(images, labels)

def fine(root): return RawData(good, good, 3)
def no_test(root): return RawData(good, None, 3)
def rooted(root): return RawData(ImageSet(np.full((12, 1, 2, 2), int(root), np.uint8), labels), None, 3)
def raises(root): raise RuntimeError("two\\nlines")
def nothing(root): pass
number = 3
def tuples(root): return RawData((images, labels), None, 3)
def one_class(root): return RawData(good, None, 1)
def true_classes(root): return RawData(good, None, True)
def floats(root): return RawData(ImageSet(images / 255, labels), None, 3)
def tensors(root): return RawData(ImageSet(torch.zeros(12, 3, 4, 5), labels), None, 3)
def flat(root): return RawData(ImageSet(images[:, 0], labels), None, 3)
def empty(root): return RawData(ImageSet(images[:0], labels[:0]), None, 3)
def float_labels(root): return RawData(ImageSet(images, labels / 2), None, 3)
def fewer_labels(root): return RawData(ImageSet(images, labels[:-1]), None, 3)
def high_label(root): return RawData(ImageSet(images, labels + 1), None, 3)
def negative_label(root): return RawData(ImageSet(images, labels - 1), None, 3)
def empty_class(root): return RawData(good, None, 4)
def empty_test_class(root): return RawData(good, ImageSet(images[:2], labels[:2]), 3)
def sized(root, *, image_size=2): return RawData(ImageSet(images[..., :image_size], labels), None, 3)
def sized_or_not(root, image_size=2): return sized(root, image_size=image_size)
def anything(root, **settings): return RawData(good, None, 3)
def other_shape(root): return RawData(good, ImageSet(images[:, :1], labels), 3)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = "users_dataset"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize(("attribute", "tested"), [("fine", 12), ("no_test", 2)])
def test_a_users_dataset_is_split_like_any_other(module, attribute, tested):
    splits = load_splits(DataSpec(name=f"{module}:{attribute}", validation_size=3))
    assert splits.input_shape == (3, 4, 5)
    assert splits.classes == 3
    assert len(splits.validation) == 3
    assert len(splits.test) == tested
    assert splits.train.labels.dtype == np.int64


def test_the_loader_is_given_the_root(module):
    splits = load_splits(DataSpec(name=f"{module}:rooted", root="7"))
    assert splits.train.images.max() == 7


@pytest.mark.parametrize("attribute", ["sized", "sized_or_not"])
@pytest.mark.parametrize(("size", "width"), [(None, 2), (3, 3)])
def test_a_loader_that_names_an_image_size_is_given_the_specs_or_keeps_its_own(module, attribute, size, width):
    splits = load_splits(DataSpec(name=f"{module}:{attribute}", image_size=size))
    assert splits.input_shape == (3, 4, width)


@pytest.mark.parametrize(
    "name", [*sorted(set(DATASETS) - {"image_folder"}), "users_dataset:fine", "users_dataset:anything"]
)
def test_an_image_size_is_refused_for_any_other_loader(module, name):
    with pytest.raises(SpecError) as caught:
        load_splits(DataSpec(name=name, image_size=16))
    assert str(caught.value) == (
        f"trial.data.image_size = 16: {name!r} has images of one size; remove it, or use image_folder or a loader with "
        "a keyword image_size"
    )


def test_a_crop_that_could_leave_nothing_is_refused(module):
    spec = {"name": f"{module}:fine", "validation_size": 3}
    load_splits(DataSpec(**spec, augment=AugmentSpec(crop_padding=3)))
    with pytest.raises(SpecError) as caught:
        load_splits(DataSpec(**spec, augment=AugmentSpec(crop_padding=4)))
    assert str(caught.value) == (
        "trial.data.augment.crop_padding = 4: could crop all of an image of 5×4 away; set it below 4"
    )


def test_augmentation_changes_no_split(module):
    plain, augmented = (
        load_splits(DataSpec(name="digits", augment=augment)) for augment in (AugmentSpec(), AugmentSpec(flip=True))
    )
    assert np.array_equal(plain.train.images, augmented.train.images)


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("raises", "RuntimeError: two lines"),
        ("nothing", "returned None; return atmc_search.data.RawData"),
        ("tuples", "train is (array"),
        ("one_class", "classes is 1;"),
        ("true_classes", "classes is True;"),
        ("floats", "train images are float64; return uint8"),
        ("tensors", "train images are 'Tensor'; return a numpy array"),
        ("flat", "train images have shape (12, 4, 5);"),
        ("empty", "train images have shape (0, 3, 4, 5);"),
        ("float_labels", "train labels are float64"),
        ("fewer_labels", "12 images and 11 labels"),
        ("high_label", "train has label 3; with 3 classes"),
        ("negative_label", "train has label -1; with 3 classes"),
        ("empty_class", "train has no image of class 3"),
        ("empty_test_class", "test has no image of class 2"),
        ("other_shape", "test images are (1, 4, 5) and train images (3, 4, 5)"),
    ],
)
def test_what_a_loader_returns_is_checked(module, attribute, words):
    with pytest.raises(DataError) as caught:
        load_splits(DataSpec(name=f"{module}:{attribute}"))
    message = str(caught.value)
    assert message.startswith(f"trial.data.name = '{module}:{attribute}': ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digit", "did you mean 'digits'?"),
        ("users_dataset:absent", "no attribute 'absent'"),
        ("users_dataset:number", "3 is no loader"),
        ("no_such_module:load", "importing 'no_such_module' failed"),
    ],
)
def test_names_that_stand_for_no_loader(module, name, words):
    with pytest.raises(SpecError) as caught:
        load_splits(DataSpec(name=name))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sizes_are_checked_against_the_dataset():
    with pytest.raises(AtmcError, match=r"trial\.data\.train_size = 5000: .* ask for 1 to 1151"):
        load_splits(DataSpec(name="digits", train_size=5000))
