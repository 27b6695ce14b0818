"""Fashion-MNIST: 60,000 + 10,000 images of 28×28 in 10 classes, read from gzipped IDX files.

Any dataset in the same four files loads by `root`, the original MNIST among them.
"""

from __future__ import annotations

import gzip
import math
import os
import tempfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atmc_search.data.splits import ImageSet, RawData
from atmc_search.errors import DataError, shown

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_PARTS = ("train", "t10k")
_FILES = [f"{part}-{kind}-ubyte.gz" for part in _PARTS for kind in ("images-idx3", "labels-idx1")]


def load(root: str | None) -> RawData:
    """Fashion-MNIST, (60000, 1, 28, 28) and (10000, 1, 28, 28) (Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747).

    Args:
        root: folder with the four `*-ubyte.gz` files. None: that of Debian's package `dataset-fashion-mnist`; where
            it is not installed, `fashion_mnist/` in the folder named by the environment variable `ATMC_SEARCH_DATA`
            (else `~/.cache/atmc_search`), into which the files are downloaded if need be.

    Raises:
        DataError: files that are missing and cannot be downloaded, or are damaged.
    """
    if root is not None:
        folder = Path(root).expanduser()
        if missing := _missing(folder):
            raise DataError(f"trial.data.root = {shown(root)}: holds no {missing[0]}; {_remedy(missing)}")
    elif not _missing(DEBIAN_FOLDER):
        folder = DEBIAN_FOLDER
    else:
        folder = _downloaded()
    train, test = (_image_set(folder, part) for part in _PARTS)
    return RawData(train, test, classes=10)


def _missing(folder: Path) -> list[str]:
    return [name for name in _FILES if not (folder / name).is_file()]


def _remedy(files: list[str]) -> str:
    return (
        f"put {', '.join(files)} there, or install Debian's package dataset-fashion-mnist and leave trial.data.root out"
    )


def _downloaded() -> Path:
    cache = os.environ.get("ATMC_SEARCH_DATA") or "~/.cache/atmc_search"
    folder = Path(cache).expanduser() / "fashion_mnist"
    missing = _missing(folder)
    if not missing:
        return folder
    # torchvision's mirrors and checksums, but neither its folders nor its constructor, which reads old caches by
    # torch.load.
    from torchvision.datasets import FashionMNIST
    from torchvision.datasets.utils import download_url

    checksums = dict(FashionMNIST.resources)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Downloaded aside and then moved, so that processes that start together never see half a file.
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            for name in missing:
                download_url(FashionMNIST.mirrors[0] + name, aside, md5=checksums[name])
                os.replace(Path(aside, name), folder / name)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong checksum is a RuntimeError
        reason = " ".join(str(error).split())
        raise DataError(
            f"trial.data.name = 'fashion_mnist': not on this machine, and the download to {folder} failed ({reason}); "
            "install Debian's package dataset-fashion-mnist, or set trial.data.root to a folder with its files"
        ) from error
    return folder


def _image_set(folder: Path, part: str) -> ImageSet:
    images_path, labels_path = (folder / name for name in _FILES if name.startswith(part))
    images, labels = _read_idx(images_path, dimensions=3), _read_idx(labels_path, dimensions=1)
    if images.shape[1:] != (28, 28):
        shape = "×".join(map(str, images.shape[1:]))
        raise DataError(f"{images_path}: holds images of {shape}, not 28×28; fetch the file anew")
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: holds {len(labels)} labels for {len(images)} images in {images_path.name}; "
            "fetch both files anew"
        )
    return ImageSet(images[:, None], labels.astype(np.int64))


def _read_idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """The array in a gzipped IDX file of unsigned bytes.

    The format (yann.lecun.com/exdb/mnist): two zero bytes, the element type (8: unsigned byte), the number of
    dimensions; each dimension as a big-endian 32-bit integer; the elements, last dimension fastest.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as gzip ({error}); fetch the file anew") from None
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
