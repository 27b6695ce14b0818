"""Folders of data that are missing, damaged, hostile or do not fit: the file and what to do about it, in one line."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import yaml
from folders import cifar10, idx, mnist
from PIL import Image
from refusals import Case, case, document, refused
from shell import Run

WORDS = "run spec.yaml --check"
IMAGES, LABELS = idx(np.zeros((40, 28, 28))), idx(np.arange(40) % 10)
ANEW = "fetch (the file|both files) anew"


def bad(name: str, make: Callable[[Path], object], shown: str, rule: str, remedy: str, **data: Any) -> Any:
    """A study of the data set that the name starts with, in the folder `data`."""

    def both(folder: Path) -> None:
        make(folder)
        spec = document(("trial.data", {"name": name.partition(" ")[0], "root": "data", **data}))
        (folder / "spec.yaml").write_text(yaml.safe_dump(spec))

    return case(name.replace(" ", "-"), WORDS, shown, rule, remedy, make=both)


def of_mnist(**spoilt: bytes | None) -> Callable[[Path], object]:
    return lambda folder: mnist(folder, **spoilt)


def of_cifar10(**spoilt: bytes | None) -> Callable[[Path], object]:
    return lambda folder: cifar10(folder, **spoilt)


class _Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("touch gone",)


def in_python_batches(content: bytes) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        (folder / "data").mkdir()
        for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
            (folder / "data" / name).write_bytes(content)

    return make


def svhn(**train: Any) -> Callable[[Path], object]:
    """Good files of 20 images; of the one to train on these variables are changed, and those of None left out."""
    good = {"X": np.zeros((32, 32, 3, 20), np.uint8), "y": np.arange(20)[:, None] % 10 + 1}

    def make(folder: Path) -> None:
        (folder / "data").mkdir()
        scipy.io.savemat(folder / "data" / "test_32x32.mat", good)
        kept = {name: value for name, value in (good | train).items() if value is not None}
        scipy.io.savemat(folder / "data" / "train_32x32.mat", kept)

    return make


def images(files: dict[str, bytes]) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        for name, content in files.items():
            path = folder / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    return make


def png(side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def png_bomb() -> bytes:
    """Few bytes that announce 50,000 × 50,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return png()[:8] + chunk + png()[33:]


def bomb(size: int = 300 << 20) -> bytes:
    """Gzip of so many zeros behind IDX's magic."""
    packer = zlib.compressobj(1, wbits=31)
    parts = [packer.compress(bytes([0, 0, 8, 3]))] + [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join([*parts, packer.flush()])


def loader(body: str) -> Callable[[Path], object]:
    text = f"import numpy as np\nfrom atmc_search.data import ImageSet, RawData\n\n\ndef load(root):\n    {body}\n"
    return lambda folder: (folder / "typed_loader.py").write_text(text)


SETS = "ImageSet(np.zeros((20, 1, 8, 8), np.uint8), np.arange(20) % 10)"
TWO = {f"{name}/{number}.png": png() for name in ("cat", "dog") for number in range(5)}
RECORD = bytes([3]) + bytes(3072)

CASES = [
    bad("mnist missing", lambda folder: None, "'data'", "holds no train-images-idx3-ubyte.gz", "leave trial.data.root out"),
    bad("mnist empty", lambda folder: (folder / "data").mkdir(), "'data'", "holds no", "leave trial.data.root out"),
    bad("mnist a-file", lambda folder: (folder / "data").touch(), "'data'", "holds no", "leave trial.data.root out"),
    bad("mnist one-missing", of_mnist(t10k_labels=None), "t10k-labels-idx1-ubyte.gz", "holds no", "put .* there"),
    bad("mnist truncated", of_mnist(train_images=gzip.compress(IMAGES)[:-20]), "train-images", "cannot be read as gzip", ANEW),
    bad("mnist no-gzip", of_mnist(train_images=IMAGES), "train-images", "cannot be read as gzip", ANEW),
    bad("mnist html", of_mnist(train_images=b"<html>404</html>"), "train-images", "cannot be read as gzip", ANEW),
    bad("mnist empty-file", of_mnist(train_images=b""), "train-images", "starts with|cannot be read", ANEW),
    bad("mnist wrong-magic", of_mnist(train_images=gzip.compress(LABELS)), "00000801", "not with IDX's 00000803", ANEW),
    bad("mnist short", of_mnist(train_images=gzip.compress(IMAGES[:-1])), "31359 bytes", "its header promises 31360", ANEW),
    bad("mnist ends-in-its-header", of_mnist(train_images=gzip.compress(IMAGES[:8])), "train-images", "within its header", ANEW),
    bad("mnist of-30", of_mnist(train_images=gzip.compress(idx(np.zeros((40, 30, 30))))), "30×30", "not 28×28", ANEW),
    bad("mnist too-few-labels", of_mnist(train_labels=gzip.compress(idx(np.arange(39) % 10))), "39 labels", "for 40", ANEW),
    bad("mnist labels-of-11", of_mnist(train_labels=gzip.compress(idx(np.arange(40) % 11))), "label 10", "10 classes", "return labels in 0 to 9"),
    bad("mnist a-class-without-images", of_mnist(train_labels=gzip.compress(idx(np.arange(40) % 9))), "class 9", "no image", "an image"),
    bad("mnist a-bomb", lambda folder: mnist(folder, train_images=bomb()), "train-images", "more than 268,435,456 bytes", ANEW),
    bad("mnist with-a-size", of_mnist(), "16", "images of one size", "remove it", image_size=16),
    bad("mnist too-many-asked-for", of_mnist(), "1000", "images are left", "ask for 1 to", train_size=1000),
    bad("mnist of-nobody", lambda folder: None, "'~nobody_at_all/mnist'", "its loader failed.*home", "mend it, or trial.data.root", root="~nobody_at_all/mnist"),
    bad("fashion_mnist missing", lambda folder: None, "'data'", "holds no", "leave trial.data.root out"),
    bad("cifar10 missing", lambda folder: None, "'data'", "holds no data_batch_1", "unpack"),
    bad("cifar10 one-missing", of_cifar10(data_batch_3=None), "data_batch_3", "holds no", "unpack"),
    bad("cifar10 half-a-record", of_cifar10(data_batch_2=RECORD[:-5]), "3068 bytes", "no multiple of 3073", ANEW),
    bad("cifar10 empty-file", of_cifar10(data_batch_2=b""), "0 bytes", "no multiple of 3073", ANEW),
    bad("cifar10 label-200", of_cifar10(data_batch_1=bytes([200]) + RECORD[1:]), "label 200", "not 0 to 9", ANEW),
    bad("cifar10 a-hostile-pickle", in_python_batches(pickle.dumps(_Hostile())), "data_batch_1", "system|refused|holds", "anew|remove"),
    bad("cifar10 a-pickle-of-junk", in_python_batches(b"\x80\x02junk"), "data_batch_1", "damaged, or no file of CIFAR's", "fetch it anew"),
    bad("cifar10 an-empty-pickle", in_python_batches(b""), "data_batch_1", "damaged, or no file of CIFAR's", "fetch it anew"),
    bad("cifar100 missing", lambda folder: None, "'data'", "holds no", "unpack"),
    bad("svhn missing", lambda folder: None, "'data'", "holds no train_32x32.mat", "leave trial.data.root out"),
    bad("svhn junk", images({"train_32x32.mat": b"junk" * 100, "test_32x32.mat": b"junk"}), "train_32x32.mat", "MATLAB", ANEW),
    bad("svhn without-labels", svhn(y=None), "y", "holds no array", ANEW),
    bad("svhn label-11", svhn(y=np.full((20, 1), 11)), "label 11", "not 1 to 10", ANEW),
    bad("svhn label-nan", svhn(y=np.full((20, 1), np.nan)), "label nan", "not 1 to 10", ANEW),
    bad("svhn floats", svhn(X=np.zeros((32, 32, 3, 20))), "float64", "not uint8", ANEW),
    bad("image_folder without-root", lambda folder: None, "trial.data.root", "missing", "set it to that folder", root=None),
    bad("image_folder missing", lambda folder: None, "'data'", "cannot be read", "name that folder"),
    bad("image_folder a-file", lambda folder: (folder / "data").touch(), "'data'", "cannot be read", "name that folder"),
    bad("image_folder empty", lambda folder: (folder / "data").mkdir(), "0 class folders", "needs two or more", "root/<class>/"),
    bad("image_folder one-class", images({"cat/0.png": png()}), "1 class folder", "needs two or more", "root/<class>/"),
    bad("image_folder no-image", images({"cat/0.png": png(), "dog/notes.txt": b"x"}), "dog", "holds no image", "add some"),
    bad("image_folder a-torn-image", images(TWO | {"dog/0.png": png()[:-30]}), "0.png", "cannot be read as an image", "mend or remove"),
    bad("image_folder text-as-png", images(TWO | {"dog/0.png": b"no image"}), "0.png", "cannot be read as an image", "mend or remove"),
    bad("image_folder postscript-as-png", images(TWO | {"dog/0.png": b"%!PS-Adobe-3.0 EPSF-3.0\n(gone) (w) file\n"}), "0.png",
        "cannot be read as an image", "mend or remove"),
    bad("image_folder a-bomb", images(TWO | {"dog/0.png": png_bomb()}), "0.png", "image", "mend or remove|set trial.data.image_size"),
    bad("image_folder of-two-sizes", images(TWO | {"dog/0.png": png(9)}), "9×9", "is 8×8", "set trial.data.image_size"),
    bad("image_folder of-other-classes", images({f"train/{k}": v for k, v in TWO.items()} | {"test/cat/0.png": png()}), "'dog'",
        "no class folder", "the same classes"),
    bad("image_folder of-size-0", images(TWO), "0", "greater than or equal to 1", "raise it", image_size=0),
    bad("typed_loader:load raises", loader("raise KeyError('x\\x1b[2J')"), "KeyError", "its loader failed", "mend it"),
    bad("typed_loader:load of-nothing", loader("return None"), "None", "its loader returned", "return atmc_search.data.RawData"),
    bad("typed_loader:load of-floats", loader("return RawData(ImageSet(np.zeros((9, 1, 8, 8)), np.zeros(9, int)), None, 2)"), "float64",
        "images are", "return uint8"),
    bad("typed_loader:load label-below-0", loader(f"return RawData({SETS.replace('% 10', '% 10 - 5')}, None, 10)"), "label -5", "10 classes", "return labels"),
    bad("typed_loader:load of-one-class", loader(f"return RawData({SETS}, None, 1)"), "1", "classes is", "at least 2"),
    bad("typed_loader:load of-two-shapes", loader(f"return RawData({SETS}, {SETS.replace('8, 8', '9, 9')}, 10)"), "(1, 9, 9)",
        "test images are", "return images of one shape"),
    bad("typed_loader:lod absent", loader("return None"), "'lod'", "has no attribute", "check the spelling"),
]  # fmt: skip


@pytest.mark.parametrize("bad", CASES)
def test_bad_data_is_refused(atmc: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: Case) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "typed_loader", raising=False)
    refused(atmc, tmp_path, bad)


@pytest.mark.parametrize("make", [of_mnist(), of_cifar10()], ids=["mnist", "cifar10"])
def test_the_data_that_the_cases_are_made_of_is_good(
    atmc: Run, tmp_path: Path, request: pytest.FixtureRequest, make: Callable[[Path], object]
) -> None:
    make(tmp_path)
    name = request.node.callspec.id
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(document(("trial.data", {"name": name, "root": "data"}))))
    assert atmc(*WORDS.split()).code == 0
