"""MNIST's own ways; what it shares with Fashion-MNIST, damage above all, is tested there."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets.utils

from atmc_search.data import DATASETS, DataSpec, load_splits
from atmc_search.errors import DataError, shown

LOAD = DATASETS["mnist"]


def fill(folder: Path, *, packed: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", 50), ("t10k", 20)):
        for kind, array in (("images-idx3", rng.integers(0, 256, (n, 28, 28))), ("labels-idx1", np.arange(n) % 10)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            content = header + array.astype(np.uint8).tobytes()
            name = f"{part}-{kind}-ubyte"
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("inside", ["", "MNIST/raw"])
def test_files_are_read_packed_or_not_and_where_torchvision_keeps_them(tmp_path, packed, inside):
    fill(tmp_path / inside, packed=packed)
    raw = LOAD(str(tmp_path))
    assert np.array_equal(raw.train.images[:, 0], np.random.default_rng(0).integers(0, 256, (50, 28, 28)))
    assert raw.train.labels.tolist() == [n % 10 for n in range(50)]
    assert raw.test is not None
    assert raw.test.images.shape == (20, 1, 28, 28)
    assert raw.classes == 10


def test_a_damaged_plain_file_is_named(tmp_path):
    fill(tmp_path, packed=False)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"15679 bytes of data where its header promises 15680; fetch") as caught:
        LOAD(str(tmp_path))
    assert str(caught.value).startswith(f"{path}: ")


def test_a_root_without_a_file_says_which(tmp_path):
    fill(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as caught:
        LOAD(str(tmp_path))
    assert str(caught.value) == (
        f"trial.data.root = {shown(str(tmp_path))}: holds no train-labels-idx1-ubyte.gz; "
        "put train-labels-idx1-ubyte.gz there, or leave trial.data.root out to download them"
    )


def test_a_second_mirror_is_tried_and_what_came_is_kept(data_cache, tmp_path, monkeypatch):
    calls = []

    def download(url: str, folder: str, md5: str) -> None:
        calls.append(url)
        mirror, _, name = url.rpartition("/")
        if "yann.lecun.com" not in mirror:
            raise RuntimeError("File not found or corrupted.")
        Path(folder, name).write_bytes((tmp_path / "source" / name).read_bytes())

    fill(tmp_path / "source")
    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    assert len(load_splits(DataSpec(name="mnist")).test) == 20
    assert len(calls) == 8
    load_splits(DataSpec(name="mnist"))
    assert len(calls) == 8
    assert len(list((data_cache / "mnist").iterdir())) == 4


def test_without_network_it_says_how_to_get_it(data_cache, no_network):
    with pytest.raises(DataError) as caught:
        load_splits(DataSpec(name="mnist"))
    message = str(caught.value)
    assert message.startswith("trial.data.name = 'mnist': not on this machine, and the download to ")
    assert all(
        word in message for word in (str(data_cache), "no route to host", "set trial.data.root", "train-images-idx3")
    )
    assert "\n" not in message
    assert list((data_cache / "mnist").iterdir()) == []
