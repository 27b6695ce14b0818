from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets.utils
from hypothesis import given, settings
from hypothesis import strategies as st

from atmc_search.data import DATASETS, DataSpec, load_splits
from atmc_search.data.cifar_pickle import read_batch
from atmc_search.errors import DataError, shown

# name in a spec: (classes, images a file, its files, its folder in the binary archive and in the python one)
KINDS = {
    "cifar10": (
        *(10, 20),
        [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"],
        *("cifar-10-batches-bin", "cifar-10-batches-py"),
    ),
    "cifar100": (100, 200, ["train", "test"], "cifar-100-binary", "cifar-100-python"),
}


def contents(name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(pixels (n, 3072), labels (n,)) of each file."""
    classes, n, files, *_ = KINDS[name]
    rng = np.random.default_rng(0)
    return [
        (rng.integers(0, 256, (n, 3072), dtype=np.uint8), rng.permutation(np.arange(n) % classes))
        for _ in range(len(files))
    ]


def binary_file(name: str, pixels: np.ndarray, labels: np.ndarray) -> bytes:
    coarse = [] if name == "cifar10" else [labels[:, None] // 5]
    return np.hstack([*coarse, labels[:, None], pixels]).astype(np.uint8).tobytes()


def python_file(name: str, pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """The bytes that Python 2's cPickle wrote for these files, opcode by opcode."""
    number = iter(range(1, 1 << 20))

    def put() -> bytes:
        at = next(number)
        return b"q" + bytes([at]) if at < 256 else b"r" + struct.pack("<I", at)

    def text(word: str) -> bytes:
        return b"U" + bytes([len(word)]) + word.encode() + put()

    def listing(items: list[bytes]) -> bytes:
        return b"]" + put() + b"(" + b"".join(items) + b"e"

    n = len(labels)
    key = "labels" if name == "cifar10" else "fine_labels"
    out = b"\x80\x02}" + put() + b"("
    out += text("batch_label") + text("training batch 1 of 5")
    out += text(key) + listing([b"K" + bytes([label]) for label in labels])
    out += text("data") + b"cnumpy.core.multiarray\n_reconstruct\n" + put() + b"cnumpy\nndarray\n" + put()
    out += b"K\x00\x85" + put() + b"U\x01b" + put() + b"\x87" + put() + b"R" + put()
    out += b"(K\x01M" + struct.pack("<H", n) + b"M\x00\x0c\x86" + put()
    out += b"cnumpy\ndtype\n" + put() + b"U\x02u1" + put() + b"K\x00K\x01\x87" + put() + b"R" + put()
    out += b"(K\x03U\x01|" + put() + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t" + put() + b"b\x89"
    out += b"T" + struct.pack("<i", pixels.nbytes) + pixels.tobytes() + put() + b"t" + put() + b"b"
    out += text("filenames") + listing([text(f"{label}_s_{at:06d}.png") for at, label in enumerate(labels)])
    return out + b"u."


def fill(folder: Path, name: str, *, binary: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, (pixels, labels) in zip(KINDS[name][2], contents(name), strict=True):
        if binary:
            (folder / f"{file}.bin").write_bytes(binary_file(name, pixels, labels))
        else:
            (folder / file).write_bytes(python_file(name, pixels, labels))


def check(name: str, root: Path | None) -> None:
    raw = DATASETS[name](None if root is None else str(root))
    *train, test = contents(name)
    pixels, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
    assert np.array_equal(raw.train.images, pixels.reshape(-1, 3, 32, 32))
    assert np.array_equal(raw.train.labels, labels)
    assert (raw.train.images.dtype, raw.train.labels.dtype) == (np.uint8, np.int64)
    assert raw.test is not None
    assert np.array_equal(raw.test.images.reshape(-1, 3072), test[0])
    assert np.array_equal(raw.test.labels, test[1])
    assert raw.classes == KINDS[name][0]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_both_versions_are_read_as_written_here_or_in_their_own_folder(tmp_path, name, binary, inside):
    fill(tmp_path / (KINDS[name][3 if binary else 4] if inside else ""), name, binary=binary)
    check(name, tmp_path)


def test_the_test_files_bytes_are_a_pickle_that_python_reads_alike():
    pixels, labels = contents("cifar10")[0]
    batch = pickle.loads(python_file("cifar10", pixels, labels), encoding="latin1")
    assert np.array_equal(batch["data"], pixels)
    assert batch["labels"] == labels.tolist()


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_batch_that_python_3_pickled_anew_is_read_too(tmp_path, protocol, order):
    pixels, labels = contents("cifar10")[0]
    path = tmp_path / "batch"
    written = {"data": np.asarray(pixels, order=order), "labels": labels.tolist(), "deep": ((), [{"a": (True, None)}])}
    path.write_bytes(pickle.dumps(written, protocol=protocol))
    batch = read_batch(path)
    assert np.array_equal(batch["data"], pixels)
    assert batch["labels"] == labels.tolist()
    assert batch["deep"] == written["deep"]


class Hostile:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_is_refused_and_does_nothing(tmp_path, protocol):
    fill(tmp_path, "cifar10", binary=False)
    trace = tmp_path / "executed"
    path = tmp_path / "data_batch_3"
    path.write_bytes(pickle.dumps({"data": Hostile(trace), "labels": [1]}, protocol=protocol))
    with pytest.raises(DataError) as caught:
        load_splits(DataSpec(name="cifar10", root=str(tmp_path)))
    assert str(caught.value).startswith(f"{path}: refused, as it holds ")
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # what it would have done
    assert trace.exists()


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(tR"
U1 = b"cnumpy\ndtype\nU\x02u1\x85R"
REFUSED = {
    "a foreign name": (b"cos\nsystem\n", "the name 'os.system'"),
    "a name from the stack": (b"\x8c\x02os\x8c\x06system\x93", "the name 'os.system'"),
    "another name of an allowed module": (b"cnumpy\nload\n", "the name 'numpy.load'"),
    "a call of ndarray": (b"cnumpy\nndarray\n(tR", "a call of numpy.ndarray"),
    "a call of what is no name": (b"K\x01(tR", "1 for a name"),
    "an old-style instance": (b"(ios\nsystem\n", "the instruction INST"),
    "a class of one's own": (b"cnumpy\nndarray\n)\x81", "the instruction NEWOBJ"),
    "an extension": (b"\x82\x01", "the instruction EXT1"),
    "a persistent id": (b"U\x01xQ", "the instruction BINPERSID"),
    "a state for a dict": (b"}}b", "a state for {}"),
    "a key that is no string": (b"}K\x01K\x02s", "1 for a str"),
    "an array without a state": (b"}U\x04data" + ARRAY + b"s", "no whole one of uint8"),
    "an array of pointers": (
        b"}U\x04data" + ARRAY + b"(K\x01K\x01\x85cnumpy\ndtype\nU\x02O8\x85R\x89U\x01xtbs",
        "no whole one of uint8",
    ),
    "an array longer than its bytes": (
        b"}U\x04data" + ARRAY + b"(K\x01M\x00\x0c\x85" + U1 + b"\x89U\x01xtbs",
        "no whole one of uint8",
    ),
    "an array of negative size": (
        b"}U\x04data" + ARRAY + b"(K\x01J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86" + U1 + b"\x89U\x01xtbs",
        "no whole one of uint8",
    ),
    "no dict": (b"K\x01", "1 for a dict"),
    "nothing on the stack": (b"s", "IndexError"),
    "no such memo": (b"h\x07", "KeyError"),
    "no mark": (b"K\x01t", "IndexError"),
    "an odd dict": (b"}(K\x01u", "ValueError"),
    "no pickle": (b"\xff\xfe", "ValueError"),
    "nested very deeply": (b")" + b"\x85" * 100_000, "for a dict"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_files_never_hold_is_refused_in_one_line(tmp_path, case):
    content, words = REFUSED[case]
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x02" + content + b".")
    with pytest.raises(DataError) as caught:
        read_batch(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert "fetch it anew" in message
    assert "\n" not in message


@given(at=st.integers(0, 4000), change=st.binary(min_size=1, max_size=4), end=st.none() | st.integers(0, 4000))
@settings(max_examples=150, deadline=None)
def test_a_damaged_pickle_is_read_or_named_in_one_line(tmp_path_factory, at, change, end):
    content = bytearray(python_file("cifar10", np.zeros((1, 3072), np.uint8), np.zeros(1, np.int64)))
    content[at : at + len(change)] = change
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[:end])
    try:
        result = read_batch(path)
    except DataError as error:
        message = str(error)
    else:
        assert isinstance(result, dict)
        return
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


def batch(**change: object) -> bytes:
    whole = {"data": np.zeros((20, 3072), np.uint8), "labels": [n % 10 for n in range(20)]}
    return pickle.dumps({key: value for key, value in (whole | change).items() if value is not None}, protocol=2)


DAMAGE = {
    "cut binary file": ("data_batch_2.bin", bytes(3073 * 4 - 1), "12291 bytes, no multiple of 3073"),
    "empty binary file": ("test_batch.bin", b"", "0 bytes"),
    "label of a binary file": ("test_batch.bin", b"\x0a" + bytes(3072), "holds label 10, not 0 to 9"),
    "no data": ("data_batch_2", batch(data=None), "its data is None"),
    "flat data": ("data_batch_2", batch(data=np.zeros(3072, np.uint8)), "its data is of shape (3072,)"),
    "other pixels": ("data_batch_2", batch(data=np.zeros((20, 784), np.uint8)), "its data is of shape (20, 784)"),
    "no labels": ("test_batch", batch(labels=None), "its labels are None"),
    "fewer labels": ("test_batch", batch(labels=[1, 2]), "its labels are 2, not 20"),
    "label out of range": ("test_batch", batch(labels=[1] * 19 + [10]), "holds label 10, not 0 to 9"),
    "negative label": ("test_batch", batch(labels=[1] * 19 + [-1]), "holds label -1, not 0 to 9"),
    "label of words": ("test_batch", batch(labels=[1] * 19 + ["cat"]), "holds label 'cat'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_in_one_line(tmp_path, damage):
    file, content, rule = DAMAGE[damage]
    fill(tmp_path, "cifar10", binary=file.endswith(".bin"))
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError) as caught:
        DATASETS["cifar10"](str(tmp_path))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / file}: ")
    assert rule in message
    assert "fetch" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("filled", "removed", "named"),
    [
        (None, None, "data_batch_1.bin"),
        ("cifar-10-batches-py", "data_batch_4", "cifar-10-batches-py/data_batch_4"),
        ("", "test_batch", "test_batch"),
    ],
)
def test_a_root_without_a_file_says_which(tmp_path, filled, removed, named):
    if filled is not None:
        fill(tmp_path / filled, "cifar10", binary=False)
        (tmp_path / filled / removed).unlink()
    with pytest.raises(DataError) as caught:
        DATASETS["cifar10"](str(tmp_path))
    assert str(caught.value) == (
        f"trial.data.root = {shown(str(tmp_path))}: holds no {named}; unpack "
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz there, or leave trial.data.root out to download it"
    )


def archive(name: str, *, change: dict[str, tarfile.TarInfo | None] | None = None) -> bytes:
    """The binary version's archive; `change` replaces headers, None: leaves the file out."""
    *_, files, folder, _ = KINDS[name]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for file, (pixels, labels) in zip(files, contents(name), strict=True):
            content = binary_file(name, pixels, labels)
            info = tarfile.TarInfo(f"{folder}/{file}.bin")
            info.size = len(content)
            info = (change or {}).get(file, info)
            if info is not None:
                tar.addfile(info, io.BytesIO(content))
        for other in ("../escaped", f"{folder}/readme.html"):
            tar.addfile(tarfile.TarInfo(other))
    return buffer.getvalue()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What the network gives for an address; empties as it is fetched."""
    files: dict[str, bytes] = {}

    def download(url: str, folder: str, md5: str) -> None:
        Path(folder, url.rpartition("/")[2]).write_bytes(files.pop(url))

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    return files


@pytest.mark.parametrize("name", KINDS)
def test_without_root_the_binary_version_is_downloaded_once(name, data_cache, served):
    served[f"https://www.cs.toronto.edu/~kriz/{name.replace('cifar', 'cifar-')}-binary.tar.gz"] = archive(name)
    check(name, None)
    check(name, None)
    assert sorted(path.name for path in (data_cache / name).iterdir()) == sorted(
        f"{file}.bin" for file in KINDS[name][2]
    )
    assert not (data_cache / "escaped").exists()


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no archive", "not a gzip file"),
        (archive("cifar10")[:2000], "cifar-10-binary.tar.gz"),
        (archive("cifar10", change={"test_batch": None}), "test_batch.bin"),
        (archive("cifar10", change={"test_batch": member("test_batch", type=tarfile.DIRTYPE)}), "is no file of"),
        (
            archive(
                "cifar10", change={"test_batch": member("test_batch", type=tarfile.SYMTYPE, linkname="/etc/hosts")}
            ),
            "is no file of",
        ),
    ],
    ids=["no archive", "cut short", "lacks a file", "folder", "link"],
)
def test_an_archive_that_is_not_cifars_leaves_nothing(data_cache, served, content, words):
    served["https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"] = content
    with pytest.raises(DataError) as caught:
        DATASETS["cifar10"](None)
    message = str(caught.value)
    assert message.startswith("trial.data.name = 'cifar10': ")
    assert words in message
    assert "\n" not in message
    assert list((data_cache / "cifar10").iterdir()) == []


@pytest.mark.parametrize("name", KINDS)
def test_without_network_it_says_how_to_get_it(name, data_cache, no_network):
    with pytest.raises(DataError) as caught:
        DATASETS[name](None)
    message = str(caught.value)
    assert all(word in message for word in (f"'{name}'", "no route to host", "trial.data.root", no_network[0]))
    assert "\n" not in message
