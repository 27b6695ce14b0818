"""SVHN, street view house numbers: 73,257 + 26,032 images of 32×32 in 10 classes, read from MATLAB files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from atmc_search.data.download import cache_folder, downloads_into
from atmc_search.data.splits import ImageSet, RawData
from atmc_search.errors import DataError, shown

_FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}


def load(root: str | None) -> RawData:
    """SVHN's cropped digits, (73257, 3, 32, 32) and (26032, 3, 32, 32) (Netzer et al. 2011, ufldl.stanford.edu).

    The files call the digit 0 class 10; here it is class 0. The 531,131 easier `extra` images are not read.

    Args:
        root: folder with train_32x32.mat and test_32x32.mat. None: `svhn/` in the folder named by the environment
            variable `ATMC_SEARCH_DATA` (else `~/.cache/atmc_search`), into which the files are downloaded if need be.

    Raises:
        DataError: files that are missing and cannot be downloaded, or are damaged.
    """
    folder = cache_folder("svhn") if root is None else Path(root).expanduser()
    missing = [part for part, name in _FILES.items() if not (folder / name).is_file()]
    if missing and root is not None:
        raise DataError(
            f"trial.data.root = {shown(root)}: holds no {_FILES[missing[0]]}; put {' and '.join(_FILES.values())} of "
            "ufldl.stanford.edu/housenumbers there, or leave trial.data.root out to download them"
        )
    if missing:
        _download(folder, missing)
    train, test = (_image_set(folder / name) for name in _FILES.values())
    return RawData(train, test, classes=10)


def _download(folder: Path, parts: list[str]) -> None:
    from torchvision.datasets import SVHN  # its addresses and checksums only

    remedy = f"set trial.data.root to a folder with {' and '.join(_FILES.values())} of ufldl.stanford.edu/housenumbers"
    with downloads_into(folder, dataset="svhn", remedy=remedy) as download:
        for part in parts:
            url, name, md5 = SVHN.split_list[part]
            os.replace(download([url], md5), folder / name)


def _image_set(path: Path) -> ImageSet:
    """X, uint8 (32, 32, 3, n), and y, (n, 1) in 1 to 10, of a MATLAB 5 file, in which nothing can be executed."""
    from scipy.io import loadmat  # type: ignore[import-untyped, unused-ignore]

    try:
        variables: dict[str, Any] = loadmat(path, appendmat=False, variable_names=["X", "y"])
    except Exception as error:  # scipy raises ValueError, TypeError, zlib.error and others by where the damage is
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{path}: cannot be read as a MATLAB file ({reason}); fetch the file anew") from None
    for name in ("X", "y"):
        if not isinstance(variables.get(name), np.ndarray):
            raise DataError(f"{path}: holds no array {name}; fetch the file anew")
    images, labels = variables["X"], variables["y"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise DataError(
            f"{path}: X is {images.dtype} of shape {images.shape}, not uint8 of (32, 32, 3, n); fetch the file anew"
        )
    n = images.shape[3]
    if labels.dtype.kind not in "iuf" or labels.shape not in ((n, 1), (1, n)):
        raise DataError(
            f"{path}: y is {labels.dtype} of shape {labels.shape}, not one number for each of {n} images; "
            "fetch the file anew"
        )
    labels = labels.ravel()
    outside = labels[~np.isin(labels, np.arange(1, 11))]
    if outside.size:
        raise DataError(f"{path}: holds label {outside[0]}, not 1 to 10; fetch the file anew")
    return ImageSet(np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels.astype(np.int64) % 10)
