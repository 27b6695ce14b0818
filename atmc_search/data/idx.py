"""Datasets in MNIST's four IDX files, gzipped or plain: found, downloaded and read.

To add one, call `load` with its name; MNIST and Fashion-MNIST are examples.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atmc_search.data.download import cache_folder, downloads_into
from atmc_search.data.splits import ImageSet, RawData
from atmc_search.errors import DataError, shown

_PARTS = ("train", "t10k")
_KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")
_MOST_BYTES = 1 << 28  # MNIST's largest file has 47 MB unpacked; a gzip file of 1 MB can stand for a gigabyte
_FILES = [f"{part}-{kind}.gz" for part in _PARTS for kind in _KINDS]


def load(root: str | None, *, dataset: str, torchvision_name: str, debian: tuple[str, Path] | None = None) -> RawData:
    """A dataset of 28×28 images in 10 classes, (n, 1, 28, 28).

    Args:
        root: folder with the four `*-ubyte.gz` files, or the same unpacked, or the root that torchvision keeps them
            under. None: the folder of `debian`; where that lacks them the cache folder, into which the files are
            downloaded if need be.
        dataset: its name in a spec.
        torchvision_name: torchvision's class, for its mirrors, checksums and folder. Neither its other folders nor
            its constructor are used, which reads old caches by torch.load.
        debian: the package of Debian that has the files and the folder it puts them in, None where there is none.

    Raises:
        DataError: files that are missing and cannot be downloaded, or are damaged.
    """
    package, installed = debian or (None, None)
    if root is not None:
        given = Path(root).expanduser()
        folders = [given, given / torchvision_name / "raw"]
        folder = min(folders, key=lambda folder: len(_missing(folder)))
        if missing := _missing(folder):
            otherwise = (
                f"install Debian's package {package} and leave trial.data.root out"
                if package
                else "leave trial.data.root out to download them"
            )
            raise DataError(
                f"trial.data.root = {shown(root)}: holds no {missing[0]}; put {', '.join(missing)} there, "
                f"or {otherwise}"
            )
    elif installed is not None and not _missing(installed):
        folder = installed
    else:
        folder = _downloaded(dataset, torchvision_name, package)
    train, test = (_image_set(folder, part) for part in _PARTS)
    return RawData(train, test, classes=10)


def _missing(folder: Path) -> list[str]:
    return [name for name in _FILES if not _path(folder, name).is_file()]


def _path(folder: Path, name: str) -> Path:
    """The file, or its unpacked form where only that is there."""
    packed = folder / name
    plain = packed.with_suffix("")
    return plain if plain.is_file() and not packed.is_file() else packed


def _downloaded(dataset: str, torchvision_name: str, package: str | None) -> Path:
    folder = cache_folder(dataset)
    missing = _missing(folder)
    if not missing:
        return folder
    import torchvision.datasets

    source = getattr(torchvision.datasets, torchvision_name)
    checksums = dict(source.resources)
    remedy = f"set trial.data.root to a folder with {', '.join(_FILES)}"
    if package:
        remedy = f"install Debian's package {package}, or {remedy}"
    with downloads_into(folder, dataset=dataset, remedy=remedy) as download:
        for name in missing:
            path = download([mirror + name for mirror in source.mirrors], checksums[name])
            os.replace(path, folder / name)
    return folder


def _image_set(folder: Path, part: str) -> ImageSet:
    images_path, labels_path = (_path(folder, f"{part}-{kind}.gz") for kind in _KINDS)
    images, labels = _read(images_path, dimensions=3), _read(labels_path, dimensions=1)
    if images.shape[1:] != (28, 28):
        shape = "×".join(map(str, images.shape[1:]))
        raise DataError(f"{images_path}: holds images of {shape}, not 28×28; fetch the file anew")
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: holds {len(labels)} labels for {len(images)} images in {images_path.name}; "
            "fetch both files anew"
        )
    return ImageSet(images[:, None], labels.astype(np.int64))


def _read(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes.

    The format (yann.lecun.com/exdb/mnist): two zero bytes, the element type (8: unsigned byte), the number of
    dimensions; each dimension as a big-endian 32-bit integer; the elements, last dimension fastest.
    """
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        form = " as gzip" if packed else ""
        raise DataError(f"{path}: cannot be read{form} ({error}); fetch the file anew") from None
    if len(content) > _MOST_BYTES:
        raise DataError(f"{path}: holds more than {_MOST_BYTES:,} bytes; fetch the file anew")
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        raise DataError(f"{path}: starts with {content[:4].hex()}, not with IDX's {magic.hex()}; fetch the file anew")
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"{path}: ends within its header; fetch the file anew")
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"{path}: holds {len(content) - start} bytes of data where its header promises {math.prod(shape)}; "
            "fetch the file anew"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
