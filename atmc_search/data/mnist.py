"""MNIST: 60,000 + 10,000 handwritten digits of 28×28 in 10 classes, read from IDX files."""

from __future__ import annotations

from atmc_search.data import idx
from atmc_search.data.splits import RawData


def load(root: str | None) -> RawData:
    """MNIST, (60000, 1, 28, 28) and (10000, 1, 28, 28) (LeCun, Cortes & Burges, yann.lecun.com/exdb/mnist).

    Args:
        root: folder with the four `*-ubyte.gz` files, or the same unpacked. None: `mnist/` in the folder named by the
            environment variable `ATMC_SEARCH_DATA` (else `~/.cache/atmc_search`), into which the files are downloaded
            if need be.

    Raises:
        DataError: files that are missing and cannot be downloaded, or are damaged.
    """
    return idx.load(root, dataset="mnist", torchvision_name="MNIST")
