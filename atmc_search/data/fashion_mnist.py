"""Fashion-MNIST: 60,000 + 10,000 images of 28×28 in 10 classes, read from IDX files."""

from __future__ import annotations

from pathlib import Path

from atmc_search.data import idx
from atmc_search.data.splits import RawData

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def load(root: str | None) -> RawData:
    """Fashion-MNIST, (60000, 1, 28, 28) and (10000, 1, 28, 28) (Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747).

    Args:
        root: folder with the four `*-ubyte.gz` files, or the same unpacked. None: that of Debian's package
            `dataset-fashion-mnist`; where it is not installed, `fashion_mnist/` in the folder named by the
            environment variable `ATMC_SEARCH_DATA` (else `~/.cache/atmc_search`), into which the files are downloaded
            if need be.

    Raises:
        DataError: files that are missing and cannot be downloaded, or are damaged.
    """
    return idx.load(
        root,
        dataset="fashion_mnist",
        torchvision_name="FashionMNIST",
        debian=("dataset-fashion-mnist", DEBIAN_FOLDER),
    )
