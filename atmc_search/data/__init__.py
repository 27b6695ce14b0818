"""Datasets by name, split and ready to train on.

To add one, write a file with a loader, `(root: str | None) -> RawData(train, test, classes)`, and list it in
`DATASETS`; or keep it in a module of your own and write `name: package.module:attribute` in the spec. A loader returns
the whole dataset: splitting, subsets and checks are done here, for all alike. `root` is the spec's, which a loader
refuses if it has no use for it. A loader with a keyword `image_size: int | None` is given the spec's where that has
one; for any other loader the setting is refused. Files from outside are never unpickled.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from atmc_search.data import cifar, digits, fashion_mnist, image_folder, mnist, svhn
from atmc_search.data.augment import augment
from atmc_search.data.batches import DeviceData
from atmc_search.data.spec import AugmentSpec, DataSpec
from atmc_search.data.splits import ImageSet, RawData, Splits, split
from atmc_search.errors import AtmcError, DataError, SpecError, shown
from atmc_search.registry import resolve

__all__ = [
    "DATASETS",
    "AugmentSpec",
    "DataSpec",
    "DeviceData",
    "ImageSet",
    "Loader",
    "RawData",
    "Splits",
    "augment",
    "load_splits",
    "split",
]

Loader = Callable[..., RawData]

DATASETS: Mapping[str, Loader] = {
    "cifar10": cifar.load_cifar10,
    "cifar100": cifar.load_cifar100,
    "digits": digits.load,
    "fashion_mnist": fashion_mnist.load,
    "image_folder": image_folder.load,
    "mnist": mnist.load,
    "svhn": svhn.load,
}


def load_splits(spec: DataSpec) -> Splits:
    """Loads the dataset that `spec` names, checks what its loader returned, and splits it.

    The checks: train and test are `ImageSet`s of uint8 images (n, channels, height, width) of one shape, with as many
    whole-numbered labels (n,) in 0 to classes - 1, and no class is empty in either.

    Args:
        spec: name, root, image size, sizes and seed; see `split` for what the last two mean. Its augmentation is left
            to the training loop, and only checked here against the images' size.

    Raises:
        SpecError: the name is unknown, or stands for something that cannot be called; an image size for a loader
            that knows none; a crop's padding that could leave nothing of an image.
        DataError: the dataset is missing, damaged or breaks a check, or a size cannot be had.
    """
    loader = resolve(spec.name, DATASETS, path="trial.data.name")
    where = f"trial.data.name = {spec.name!r}"
    if not callable(loader):
        raise SpecError(f"{where}: {shown(loader)} is no loader; name a function (root: str | None) -> RawData")
    settings: dict[str, Any] = {}
    if spec.image_size is not None:
        if not _names_image_size(loader):
            raise SpecError(
                f"trial.data.image_size = {spec.image_size}: {spec.name!r} has images of one size; remove it, or use "
                "image_folder or a loader with a keyword image_size"
            )
        settings["image_size"] = spec.image_size
    try:
        raw = loader(spec.root, **settings)
    except AtmcError:
        raise
    except Exception as error:  # user code may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        root = "trial.data.root" if spec.root is None else f"trial.data.root = {shown(spec.root)}"
        raise DataError(f"{where}: its loader failed ({reason}); mend it, or {root}") from error
    raw = _checked(raw, where)
    height, width = raw.train.images.shape[2:]
    if spec.augment.crop_padding >= min(height, width):
        raise SpecError(
            f"trial.data.augment.crop_padding = {spec.augment.crop_padding}: could crop all of an image of "
            f"{width}×{height} away; set it below {min(height, width)}"
        )
    return split(
        raw.train,
        raw.test,
        train_size=spec.train_size,
        validation_size=spec.validation_size,
        test_size=spec.test_size,
        seed=spec.seed,
        classes=raw.classes,
    )


def _names_image_size(loader: Callable[..., object]) -> bool:
    try:
        parameter = inspect.signature(loader).parameters.get("image_size")
    except (TypeError, ValueError):  # some callables written in C have none
        return False
    return parameter is not None and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)


def _checked(raw: Any, where: str) -> RawData:
    if not isinstance(raw, RawData):
        raise DataError(
            f"{where}: its loader returned {shown(raw)}; return atmc_search.data.RawData(train, test, classes)"
        )
    if not isinstance(raw.classes, int | np.integer) or isinstance(raw.classes, bool) or raw.classes < 2:
        raise DataError(f"{where}: classes is {shown(raw.classes)}; return a whole number of at least 2")
    classes = int(raw.classes)
    train = _checked_set(raw.train, classes, f"{where}: train")
    if raw.test is None:
        return RawData(train, None, classes)
    test = _checked_set(raw.test, classes, f"{where}: test")
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{where}: test images are {test.images.shape[1:]} and train images {train.images.shape[1:]}; "
            "return images of one shape"
        )
    return RawData(train, test, classes)


def _checked_set(data: Any, classes: int, where: str) -> ImageSet:
    if not isinstance(data, ImageSet):
        raise DataError(f"{where} is {shown(data)}; return atmc_search.data.ImageSet(images, labels)")
    images, labels = data.images, data.labels
    for name, array in (("images", images), ("labels", labels)):
        if not isinstance(array, np.ndarray):
            raise DataError(f"{where} {name} are {shown(type(array).__name__)}; return a numpy array")
    if images.dtype != np.uint8:
        raise DataError(f"{where} images are {images.dtype}; return uint8 in 0 to 255")
    if images.ndim != 4 or 0 in images.shape:
        raise DataError(
            f"{where} images have shape {images.shape}; return (n, channels, height, width), none of them 0"
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(f"{where} labels are {labels.dtype} of shape {labels.shape}; return int64 of shape (n,)")
    if len(images) != len(labels):
        raise DataError(f"{where} has {len(images)} images and {len(labels)} labels; return one label an image")
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise DataError(f"{where} has label {outside[0]}; with {classes} classes, return labels in 0 to {classes - 1}")
    labels = labels.astype(np.int64, copy=False)
    empty = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
    if empty.size:
        raise DataError(f"{where} has no image of class {empty[0]}; give every one of {classes} classes an image")
    return ImageSet(images, labels)
