"""Where downloaded and decoded datasets are kept, and the one way in which a file gets there from the network."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from atmc_search.errors import DataError


def cache_folder(dataset: str) -> Path:
    """The folder of `dataset` under the environment variable `ATMC_SEARCH_DATA`, else under `~/.cache/atmc_search`."""
    return Path(os.environ.get("ATMC_SEARCH_DATA") or "~/.cache/atmc_search").expanduser() / dataset


@contextmanager
def downloads_into(folder: Path, *, dataset: str, remedy: str) -> Iterator[Callable[[Sequence[str], str], Path]]:
    """A context in which files are downloaded, for its body to check and move to `folder` by `os.replace`.

    Downloads go to a temporary folder inside `folder`, removed on leaving: processes that start together never see
    half a file.

    Args:
        folder: made if need be.
        dataset: its name in a spec, for the message.
        remedy: what a user without network can do, for the message.

    Yields:
        `download(urls, md5)`: the path of what the first of `urls` that works gave, its checksum verified.

    Raises:
        DataError: the folder cannot be written, a download failed, or the body raised an OSError or RuntimeError.
    """
    from torchvision.datasets.utils import download_url  # here, because it takes seconds that most runs need not spend

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:

            def download(urls: Sequence[str], md5: str) -> Path:
                failures = []
                for url in urls:
                    try:
                        download_url(url, scratch, md5=md5)
                        return Path(scratch, url.rpartition("/")[2])
                    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong checksum a RuntimeError
                        failures.append(f"{url}: {error}")  # the next one may work
                raise OSError("; ".join(failures))

            yield download
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"trial.data.name = {dataset!r}: not on this machine, and the download to {folder} failed ({reason}); "
            f"{remedy}"
        ) from error
