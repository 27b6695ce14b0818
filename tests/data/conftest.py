"""Shared by the loaders of files that are downloaded: a cache of one's own, and a network that is never there."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest
import torchvision.datasets.utils


@pytest.fixture
def data_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder that the environment names; it does not exist yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ATMC_SEARCH_DATA", str(folder))
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Downloads fail; the list gathers the addresses that were tried."""
    tried: list[str] = []

    def download(url: str, folder: str, md5: str) -> None:
        tried.append(url)
        raise urllib.error.URLError("no route\nto host")

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    return tried
