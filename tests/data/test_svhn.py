from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torchvision.datasets.utils

from atmc_search.data import DATASETS, DataSpec, load_splits
from atmc_search.errors import DataError, shown

LOAD = DATASETS["svhn"]
FILES = {"train_32x32.mat": 50, "test_32x32.mat": 20}


def fill(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for name, n in FILES.items():
        images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        write(folder / name, X=images.transpose(1, 2, 3, 0), y=(np.arange(n) % 10 + 1).astype(np.uint8)[:, None])


def write(path: Path, **variables: object) -> None:
    scipy.io.savemat(path, variables, do_compression=True)


def test_files_are_read_as_written_with_zero_for_ten(tmp_path):
    fill(tmp_path)
    raw = LOAD(str(tmp_path))
    images = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    assert np.array_equal(raw.train.images.transpose(0, 2, 3, 1), images)
    assert raw.train.images.flags.c_contiguous
    assert raw.train.labels.tolist() == [(n + 1) % 10 for n in range(50)]
    assert raw.train.labels.dtype == np.int64
    assert raw.test is not None
    assert raw.test.images.shape == (20, 3, 32, 32)
    assert raw.classes == 10


X, Y = np.zeros((32, 32, 3, 20), np.uint8), (np.arange(20) % 10 + 1)[:, None]
DAMAGE = {
    "no X": ({"Z": X, "y": Y}, "holds no array X"),
    "no y": ({"X": X}, "holds no array y"),
    "gray": ({"X": X[:, :, 0], "y": Y}, "X is uint8 of shape (32, 32, 20)"),
    "other side": ({"X": X[:8], "y": Y}, "X is uint8 of shape (8, 32, 3, 20)"),
    "floats": ({"X": X / 255, "y": Y}, "X is float64"),
    "cells": ({"X": np.array([[1, "a"]], dtype=object), "y": Y}, "X is object"),
    "fewer labels": ({"X": X, "y": Y[:-1]}, "y is int64 of shape (19, 1), not one number for each of 20 images"),
    "words for labels": ({"X": X, "y": "cat"}, "y is <U3"),
    "label 0": ({"X": X, "y": Y - 1}, "holds label 0, not 1 to 10"),
    "label 11": ({"X": X, "y": Y + 1}, "holds label 11, not 1 to 10"),
    "broken label": ({"X": X, "y": Y * 0.5}, "holds label 0.5, not 1 to 10"),
}


def one_line(of: Path) -> str:
    with pytest.raises(DataError) as caught:
        LOAD(str(of))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("damage", DAMAGE)
def test_wrong_contents_are_named_in_one_line(tmp_path, damage):
    variables, rule = DAMAGE[damage]
    fill(tmp_path)
    path = tmp_path / "test_32x32.mat"
    write(path, **variables)
    message = one_line(tmp_path)
    assert message.startswith(f"{path}: ")
    assert rule in message
    assert message.endswith("; fetch the file anew")


@pytest.mark.parametrize("content", [b"", b"no matrix" * 99, b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM", None])
def test_what_is_no_matlab_file_is_named_in_one_line(tmp_path, content):
    fill(tmp_path)
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    message = one_line(tmp_path)
    assert message.startswith(f"{path}: ")
    assert message.endswith("; fetch the file anew")


def test_a_root_without_a_file_says_which(tmp_path):
    fill(tmp_path)
    (tmp_path / "test_32x32.mat").unlink()
    assert one_line(tmp_path).startswith(f"trial.data.root = {shown(str(tmp_path))}: holds no test_32x32.mat; put ")


def test_without_root_it_is_downloaded_once(tmp_path, data_cache, monkeypatch):
    calls = []

    def download(url: str, folder: str, md5: str) -> None:
        calls.append(url)
        name = url.rpartition("/")[2]
        Path(folder, name).write_bytes((tmp_path / "source" / name).read_bytes())

    fill(tmp_path / "source")
    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    for _ in range(2):
        assert len(load_splits(DataSpec(name="svhn")).test) == 20
    assert [url.rpartition("/")[2] for url in calls] == list(FILES)
    assert sorted(path.name for path in (data_cache / "svhn").iterdir()) == sorted(FILES)


def test_without_network_it_says_how_to_get_it(data_cache, no_network):
    with pytest.raises(DataError) as caught:
        LOAD(None)
    message = str(caught.value)
    assert all(word in message for word in ("'svhn'", "no route to host", "trial.data.root", "train_32x32.mat"))
    assert "\n" not in message
