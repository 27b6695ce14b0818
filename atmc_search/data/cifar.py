"""CIFAR-10 and CIFAR-100: 50,000 + 10,000 colour images of 32×32, read from the binary or the python version."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from atmc_search.data.cifar_pickle import read_batch
from atmc_search.data.download import cache_folder, downloads_into
from atmc_search.data.splits import ImageSet, RawData
from atmc_search.errors import DataError, shown

_PIXELS = 3 * 32 * 32
_MOST_RECORDS = 50_000


@dataclass(frozen=True)
class _Kind:
    """What differs between the two. The binary version's files have the python version's names and `.bin`."""

    name: str
    classes: int
    train: Sequence[str]
    test: str
    label_bytes: int  # a record is these, the last of them the label, and then the pixels
    label_key: str
    binary_folder: str
    python_folder: str
    url: str
    md5: str

    @property
    def python_files(self) -> list[str]:
        return [*self.train, self.test]

    @property
    def binary_files(self) -> list[str]:
        return [f"{name}.bin" for name in self.python_files]


_CIFAR10 = _Kind(
    name="cifar10",
    classes=10,
    train=[f"data_batch_{number}" for number in range(1, 6)],
    test="test_batch",
    label_bytes=1,
    label_key="labels",
    binary_folder="cifar-10-batches-bin",
    python_folder="cifar-10-batches-py",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
)
_CIFAR100 = _Kind(
    name="cifar100",
    classes=100,
    train=["train"],
    test="test",
    label_bytes=2,  # coarse, fine
    label_key="fine_labels",
    binary_folder="cifar-100-binary",
    python_folder="cifar-100-python",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
)


def load_cifar10(root: str | None) -> RawData:
    """CIFAR-10, (50000, 3, 32, 32) and (10000, 3, 32, 32) in 10 classes (Krizhevsky 2009).

    Args:
        root: folder with the files of the binary version (data_batch_1.bin ...) or of the python version
            (data_batch_1 ..., which are read without unpickling), or the folder that one of these was unpacked in.
            None: `cifar10/` in the folder named by the environment variable `ATMC_SEARCH_DATA` (else
            `~/.cache/atmc_search`), into which the binary version is downloaded if need be.

    Raises:
        DataError: files that are missing and cannot be downloaded, or are damaged.
    """
    return _load(_CIFAR10, root)


def load_cifar100(root: str | None) -> RawData:
    """CIFAR-100 with its fine labels, (50000, 3, 32, 32) and (10000, 3, 32, 32) in 100 classes (Krizhevsky 2009).

    Args:
        root: as for `load_cifar10`, with the files train.bin and test.bin, or train and test. None: `cifar100/` in the
            cache.

    Raises:
        DataError: files that are missing and cannot be downloaded, or are damaged.
    """
    return _load(_CIFAR100, root)


def _load(kind: _Kind, root: str | None) -> RawData:
    folder, binary = (_downloaded(kind), True) if root is None else _found(kind, root)

    def image_set(names: Sequence[str]) -> ImageSet:
        if binary:
            parts = [_read_binary(folder / f"{name}.bin", kind) for name in names]
        else:
            parts = [_read_python(folder / name, kind) for name in names]
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return ImageSet(images.reshape(-1, 3, 32, 32), labels)

    return RawData(image_set(kind.train), image_set([kind.test]), kind.classes)


def _missing(folder: Path, names: Sequence[str]) -> list[Path]:
    return [folder / name for name in names if not (folder / name).is_file()]


def _found(kind: _Kind, root: str) -> tuple[Path, bool]:
    """The folder under `root` that has the files, and whether they are the binary version's."""
    given = Path(root).expanduser()
    places = [(folder, True) for folder in (given, given / kind.binary_folder)]
    places += [(folder, False) for folder in (given, given / kind.python_folder)]
    lacks = [_missing(folder, kind.binary_files if binary else kind.python_files) for folder, binary in places]
    nearest = min(range(len(places)), key=lambda place: len(lacks[place]))
    if lacks[nearest]:
        raise DataError(
            f"trial.data.root = {shown(root)}: holds no {lacks[nearest][0].relative_to(given)}; unpack "
            f"{kind.url} there, or leave trial.data.root out to download it"
        )
    return places[nearest]


def _downloaded(kind: _Kind) -> Path:
    folder = cache_folder(kind.name)
    if not _missing(folder, kind.binary_files):
        return folder
    remedy = f"set trial.data.root to a folder in which {kind.url} or the python version is unpacked"
    with downloads_into(folder, dataset=kind.name, remedy=remedy) as download:
        archive = download([kind.url], kind.md5)
        for path in _unpacked(archive, kind):
            os.replace(path, folder / path.name)
    return folder


def _unpacked(archive: Path, kind: _Kind) -> list[Path]:
    """The wanted files of the archive, and nothing else, written beside it under their bare names.

    Raises:
        RuntimeError: no such archive, or one without a file, or with a file that is none or too large.
    """
    record = kind.label_bytes + _PIXELS
    paths = []
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for name in kind.binary_files:
                member = tar.getmember(str(PurePosixPath(kind.binary_folder, name)))
                source = tar.extractfile(member) if member.isreg() else None
                if source is None or not 0 < member.size <= _MOST_RECORDS * record:
                    raise RuntimeError(f"{archive.name}: {name} is no file of at most {_MOST_RECORDS} records")
                path = archive.with_name(name)
                path.write_bytes(source.read())
                paths.append(path)
    except (tarfile.TarError, zlib.error, EOFError, KeyError) as error:
        raise RuntimeError(f"{archive.name}: {error}") from None
    return paths


def _read_binary(path: Path, kind: _Kind) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels, (n, 3072), and labels of one file of the binary version (www.cs.toronto.edu/~kriz/cifar.html).

    A record is the label (for CIFAR-100 the coarse and then the fine one) and the red, green and blue planes by rows.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    record = kind.label_bytes + _PIXELS
    if not content or len(content) % record:
        raise DataError(f"{path}: holds {len(content)} bytes, no multiple of {record}; fetch the file anew")
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    labels = records[:, kind.label_bytes - 1].astype(np.int64)
    _check_labels(int(labels.max()), path, kind)
    return records[:, kind.label_bytes :], labels


def _read_python(path: Path, kind: _Kind) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The same of one file of the python version."""
    batch = read_batch(path)
    images, labels = batch.get("data"), batch.get(kind.label_key)
    if not isinstance(images, np.ndarray) or images.ndim != 2 or images.shape[1] != _PIXELS or not len(images):
        what = f"of shape {images.shape}" if isinstance(images, np.ndarray) else shown(images)
        raise DataError(f"{path}: its data is {what}, not an array of (n, {_PIXELS}); fetch the file anew")
    if not isinstance(labels, list) or len(labels) != len(images):
        what = f"{len(labels)}" if isinstance(labels, list) else shown(labels)
        raise DataError(f"{path}: its {kind.label_key} are {what}, not {len(images)} in a list; fetch the file anew")
    for label in labels:
        _check_labels(label, path, kind)
    return images, np.array(labels, np.int64)


def _check_labels(label: object, path: Path, kind: _Kind) -> None:
    if type(label) is not int or not 0 <= label < kind.classes:
        raise DataError(f"{path}: holds label {shown(label)}, not 0 to {kind.classes - 1}; fetch the file anew")
