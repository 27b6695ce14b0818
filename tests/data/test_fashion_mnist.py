from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets.utils

from atmc_search.data import DATASETS, DataSpec, fashion_mnist, load_splits
from atmc_search.errors import DataError

LOAD = DATASETS["fashion_mnist"]
FILES = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path)
    return tmp_path


def fill(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for part, n in (("train", 50), ("t10k", 20)):
        write(folder / f"{part}-images-idx3-ubyte.gz", idx(rng.integers(0, 256, (n, 28, 28))))
        write(folder / f"{part}-labels-idx1-ubyte.gz", idx(np.arange(n) % 10))


def test_files_are_read_as_written(root):
    raw = LOAD(str(root))
    rng = np.random.default_rng(0)
    assert np.array_equal(raw.train.images[:, 0], rng.integers(0, 256, (50, 28, 28)))
    assert raw.train.images.dtype == np.uint8
    assert raw.train.labels.tolist() == [n % 10 for n in range(50)]
    assert raw.train.labels.dtype == np.int64
    assert raw.test is not None
    assert raw.test.images.shape == (20, 1, 28, 28)
    assert raw.classes == 10


def test_splits_come_from_its_own_test_files(root):
    splits = load_splits(DataSpec(name="fashion_mnist", root=str(root), test_size=10))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [40, 10, 10]
    assert splits.test.labels.tolist() != list(range(10))
    assert sorted(splits.test.labels) == list(range(10))


SMALL = np.zeros((50, 28, 28))

DAMAGE = {
    "no gzip": ("train-images-idx3-ubyte.gz", b"nothing compressed", "cannot be read as gzip"),
    "cut short": ("train-images-idx3-ubyte.gz", gzip.compress(idx(SMALL))[:-20], "cannot be read as gzip"),
    "empty": ("t10k-labels-idx1-ubyte.gz", gzip.compress(b""), "starts with"),
    "labels for images": ("train-images-idx3-ubyte.gz", gzip.compress(idx(np.zeros(50))), "starts with 00000801"),
    "short header": ("t10k-images-idx3-ubyte.gz", gzip.compress(idx(SMALL)[:9]), "ends within its header"),
    "short data": ("t10k-images-idx3-ubyte.gz", gzip.compress(idx(SMALL)[:-1]), "39199 bytes"),
    "long data": ("t10k-images-idx3-ubyte.gz", gzip.compress(idx(SMALL) + b"x"), "39201 bytes"),
    "hostile size": ("train-images-idx3-ubyte.gz", gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12), "0 bytes of data"),
    "wrong image size": ("train-images-idx3-ubyte.gz", gzip.compress(idx(np.zeros((50, 8, 9)))), "images of 8×9"),
    "counts differ": ("train-labels-idx1-ubyte.gz", gzip.compress(idx(np.zeros(49))), "49 labels for 50 images"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_in_one_line(root, damage):
    name, content, rule = DAMAGE[damage]
    (root / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        LOAD(str(root))
    message = str(caught.value)
    assert message.startswith(f"{root / name}: ")
    assert rule in message
    assert "fetch" in message
    assert "\n" not in message


def test_a_root_without_a_file_says_which(root):
    (root / FILES[3]).unlink()
    with pytest.raises(DataError, match=FILES[3]) as caught:
        LOAD(str(root))
    assert str(caught.value).startswith("trial.data.root = ")
    assert "dataset-fashion-mnist" in str(caught.value)


def test_without_root_the_debian_package_is_read(root, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", root)
    assert len(LOAD(None).train) == 50


def test_without_the_package_it_is_downloaded_once_to_the_cache(tmp_path, monkeypatch):
    calls = []

    def download(url: str, folder: str, md5: str) -> None:
        calls.append(url)
        source = tmp_path / "source"
        source.mkdir(exist_ok=True)
        fill(source)
        name = url.rpartition("/")[2]
        Path(folder, name).write_bytes((source / name).read_bytes())

    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "absent")
    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    monkeypatch.setenv("ATMC_SEARCH_DATA", str(tmp_path / "cache"))
    assert len(LOAD(None).train) == 50
    assert len(LOAD(None).train) == 50
    assert [url.rpartition("/")[2] for url in calls] == FILES
    assert sorted(path.name for path in (tmp_path / "cache" / "fashion_mnist").iterdir()) == sorted(FILES)


def test_without_network_it_says_how_to_get_it(tmp_path, monkeypatch):
    def download(url: str, folder: str, md5: str) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "absent")
    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    monkeypatch.setenv("ATMC_SEARCH_DATA", str(tmp_path / "cache"))
    with pytest.raises(DataError) as caught:
        LOAD(None)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in ("no route to host", "dataset-fashion-mnist", "trial.data.root"))


@pytest.mark.skipif(not fashion_mnist.DEBIAN_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_real_thing():
    raw = LOAD(None)
    assert raw.train.images.shape == (60_000, 1, 28, 28)
    assert raw.test is not None
    assert raw.test.images.shape == (10_000, 1, 28, 28)
    assert np.bincount(raw.train.labels).tolist() == [6_000] * 10
    # The statistics that the field quotes for Fashion-MNIST.
    assert raw.train.images.mean() / 255 == pytest.approx(0.2860, abs=1e-4)
    assert raw.train.images.std() / 255 == pytest.approx(0.3530, abs=1e-4)
