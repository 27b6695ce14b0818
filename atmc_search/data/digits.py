"""scikit-learn's handwritten digits: 1,797 images of 8×8 in 10 classes. Small enough for tests and first steps."""

from __future__ import annotations

import numpy as np

from atmc_search.data.splits import ImageSet, RawData
from atmc_search.errors import DataError, shown


def load(root: str | None) -> RawData:
    """The digits, (1797, 1, 8, 8); they have no test set of their own.

    The values 0 to 16 are rescaled to 0 to 255. Source: UCI ML hand-written digits (Alpaydin & Kaynak 1998), as
    shipped with scikit-learn.

    Args:
        root: must be None, as the images come with scikit-learn.

    Raises:
        DataError: a root was given.
    """
    if root is not None:
        raise DataError(f"trial.data.root = {shown(root)}: digits come with scikit-learn, not from a folder; remove it")
    from sklearn.datasets import load_digits  # here, because it takes a second that most runs need not spend

    digits = load_digits()
    images = np.round(digits.images[:, None] * (255 / 16)).astype(np.uint8)
    return RawData(ImageSet(images, digits.target.astype(np.int64)), None, classes=10)
