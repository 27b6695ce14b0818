"""Images of the user's own: a folder for each class. Decoded once, and kept as one tensor file in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from PIL import Image, ImageOps

from atmc_search.data.download import cache_folder
from atmc_search.data.splits import ImageSet, RawData
from atmc_search.errors import DataError, shown

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
# No others: Pillow would hand some formats (EPS) to outside programs.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_LAYOUT = "root/train/<class>/ and root/test/<class>/, or root/<class>/ alone"
# Raised when the same files come to mean other tensors, so that old caches are not read.
_VERSION = 1


def load(root: str | None, *, image_size: int | None = None) -> RawData:
    """The images in `root`/train/<class>/ and, where it exists, `root`/test/<class>/; else those in `root`/<class>/.

    Classes are numbered in the order of their names. What is hidden (.name) or has no suffix of `SUFFIXES` is not
    looked at; folders inside a class's folder are not searched. Images are RGB, or, where all are grayscale, of one
    channel. 16-bit values keep their upper 8 bits; transparency and EXIF's orientation are ignored.

    The decoded images are kept in `image_folder/` in the folder named by the environment variable `ATMC_SEARCH_DATA`
    (else `~/.cache/atmc_search`), and are decoded anew when a name, size or time of change of a file differs. Where
    that folder cannot be written they are decoded every time.

    Args:
        root: the folder.
        image_size: side in pixels. The shorter side is scaled to it, with antialiasing, and the middle of the longer
            one is kept. None: images stay as they are, and must all have one shape.

    Raises:
        DataError: no root; no two classes; a class without an image or in only one of train and test; a file that
            cannot be read or, without `image_size`, is of another shape.
    """
    if root is None:
        raise DataError(f"trial.data.root: missing; image_folder reads {_LAYOUT}; set it to that folder")
    top = Path(root).expanduser()
    try:
        top = top.resolve(strict=True)
        listing = _listing(top)
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"trial.data.root = {shown(root)}: cannot be read ({reason}); image_folder reads {_LAYOUT}; "
            "name that folder"
        ) from None

    # One file for a folder and a size: an outdated one is overwritten, not added to.
    name = _digest([str(top), image_size])
    cache = cache_folder("image_folder") / f"{name}.safetensors"
    key = _digest([_VERSION, str(top), image_size, listing.files])
    tensors = _cached(cache, key)
    if tensors is None:
        tensors = _decode(listing, image_size)
        _keep(cache, key, tensors, listing.classes)
    train = ImageSet(tensors["train_images"], tensors["train_labels"])
    test = ImageSet(tensors["test_images"], tensors["test_labels"]) if "test_images" in tensors else None
    return RawData(train, test, len(listing.classes))


@dataclass(frozen=True)
class _Listing:
    """What lies in the folder, undecoded.

    Attributes:
        top: the folder.
        classes: their names, sorted.
        files: for "train" and perhaps "test": (path relative to `top`, label, size, time of change in ns) of each.
    """

    top: Path
    classes: list[str]
    files: dict[str, list[tuple[str, int, int, int]]]

    def paths(self, part: str) -> list[Path]:
        return [self.top / name for name, *_ in self.files[part]]


def _listing(top: Path) -> _Listing:
    parts = {"train": top}
    if (top / "train").is_dir():
        parts = {part: top / part for part in ("train", "test") if (top / part).is_dir()}
        other = next((name for name in ("val", "valid", "validation") if (top / name).is_dir()), None)
        if other is not None and "test" not in parts:  # whose images would silently not be looked at
            raise DataError(
                f"{top / other}: image_folder reads {_LAYOUT}; rename it to test (validation images are cut from "
                "train), or move it away"
            )
    classes = _classes(parts["train"])
    if len(classes) < 2:
        raise DataError(
            f"{parts['train']}: holds {len(classes)} class folders; image_folder needs two or more: {_LAYOUT}"
        )
    if "test" in parts and (odd := sorted(set(classes) ^ set(_classes(parts["test"])))):
        lacking = "test" if odd[0] in classes else "train"
        raise DataError(f"{parts[lacking]}: has no class folder {shown(odd[0])}; give train and test the same classes")
    files = {
        part: [file for label, name in enumerate(classes) for file in _files(top, folder / name, label)]
        for part, folder in parts.items()
    }
    return _Listing(top, classes, files)


def _classes(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())


def _files(top: Path, folder: Path, label: int) -> list[tuple[str, int, int, int]]:
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES or path.is_dir():
            continue
        try:
            status = path.stat()
        except OSError as error:  # a link to nowhere
            raise _unreadable(path, error) from None
        found.append((path.relative_to(top).as_posix(), label, status.st_size, status.st_mtime_ns))
    if not found:
        raise DataError(f"{folder}: holds no image ({', '.join(SUFFIXES)}); add some, or remove the class")
    return found


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _decode(listing: _Listing, image_size: int | None) -> dict[str, NDArray[Any]]:
    Image.init()  # loads Pillow's formats before the threads ask for them
    shape = None
    if image_size is None:
        first = listing.paths("train")[0]
        shape = (_size(first), first)
    images: dict[str, list[NDArray[np.uint8]]] = {}
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
        for part in listing.files:
            images[part] = list(pool.map(lambda path: _image(path, image_size, shape), listing.paths(part)))
    gray = all(image.ndim == 2 for part in images.values() for image in part)
    tensors: dict[str, NDArray[Any]] = {}
    for part, decoded in images.items():
        stacked = [image[..., None] if gray else _rgb(image) for image in decoded]
        tensors[f"{part}_images"] = np.ascontiguousarray(np.stack(stacked).transpose(0, 3, 1, 2))
        tensors[f"{part}_labels"] = np.array([label for _, label, *_ in listing.files[part]], np.int64)
    return tensors


def _rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return image.size
    except Exception as error:  # see _image
        raise _unreadable(path, error) from None


def _image(path: Path, side: int | None, shape: tuple[tuple[int, int], Path] | None) -> NDArray[np.uint8]:
    """(height, width) where the file is grayscale, else (height, width, 3)."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if shape is None or image.size == shape[0]:  # before anything is decoded
                return _pixels(image, side)
            size = image.size
    except (
        Exception
    ) as error:  # Pillow raises OSError, ValueError, SyntaxError, struct.error, DecompressionBombError...
        raise _unreadable(path, error) from None
    (width, height), first = shape
    raise DataError(
        f"{path}: is {size[0]}×{size[1]} where {first.name} is {width}×{height}; set trial.data.image_size to scale "
        "all images to one size"
    )


def _pixels(image: Image.Image, side: int | None) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):  # 16-bit grayscale, which Pillow's own conversion would clip
        plain = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    else:
        plain = image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
    if side is not None:
        # Scaled and cropped in one go, so that a very long image never becomes a very large one.
        plain = ImageOps.fit(plain, (side, side), Image.Resampling.BILINEAR)
    return np.array(plain, np.uint8)


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return DataError(f"{path}: cannot be read as an image ({reason}); mend or remove the file")


def _cached(path: Path, key: str) -> dict[str, NDArray[Any]] | None:
    """The tensors kept under `path`, None where there are none, or damaged or outdated ones."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            facts = file.metadata() or {}
            if facts.get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (OSError, safetensors.SafetensorError, ValueError):
        return None
    return tensors if facts.get("checksum") == _checksum(tensors) else None


def _keep(path: Path, key: str, tensors: Mapping[str, NDArray[Any]], classes: Sequence[str]) -> None:
    """Writes the file whole or not at all; not at all where the folder cannot be written."""
    facts = {"key": key, "checksum": _checksum(tensors), "classes": json.dumps(list(classes))}
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
        os.close(handle)
        safetensors.numpy.save_file(dict(tensors), partial, metadata=facts)
        os.replace(partial, path)
    except (OSError, safetensors.SafetensorError):  # a cache that cannot be written costs time, not the run
        if partial is not None:
            Path(partial).unlink(missing_ok=True)


def _checksum(tensors: Mapping[str, NDArray[Any]]) -> str:
    total = 0
    for name in sorted(tensors):
        described = f"{name} {tensors[name].dtype} {tensors[name].shape}"
        total = zlib.crc32(tensors[name].data, zlib.crc32(described.encode(), total))
    return f"{total:08x}"
