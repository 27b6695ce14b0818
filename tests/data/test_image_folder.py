from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from torchvision.transforms import functional as reference

from atmc_search.data import DATASETS, DataSpec, RawData, image_folder, load_splits
from atmc_search.errors import DataError

pytestmark = pytest.mark.usefixtures("data_cache")
CLASSES = ["ant", "bee", "cow"]


def picture(seed: int, height: int = 6, width: int = 5, channels: int = 3) -> np.ndarray:
    array = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return array[..., 0] if channels == 1 else array


def save(path: Path, array: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def fill(root: Path, *, parts: tuple[str, ...] = ("train", "test"), channels: int = 3) -> None:
    """Two images a class and part, numbered through."""
    seed = 0
    for part in parts:
        for name in CLASSES:
            for number in range(2):
                save(root / part / name / f"{number}.png", picture(seed, channels=channels))
                seed += 1


def load(root: Path, **options: int | None) -> RawData:
    return image_folder.load(str(root), **options)


def complaint(root: Path | None, **options: int | None) -> str:
    with pytest.raises(DataError) as caught:
        image_folder.load(None if root is None else str(root), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_images_and_labels_are_those_of_the_files_in_order_of_names(tmp_path):
    fill(tmp_path)
    raw = load(tmp_path)
    assert np.array_equal(raw.train.images.transpose(0, 2, 3, 1), np.stack([picture(seed) for seed in range(6)]))
    assert raw.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (raw.train.images.dtype, raw.train.labels.dtype) == (np.uint8, np.int64)
    assert raw.test is not None
    assert np.array_equal(raw.test.images[0].transpose(1, 2, 0), picture(6))
    assert raw.classes == 3


def test_without_train_and_test_the_classes_lie_in_the_root(tmp_path):
    fill(tmp_path / "flowers", parts=("",))
    raw = load(tmp_path / "flowers")
    assert len(raw.train) == 6
    assert raw.test is None


def test_a_train_folder_alone_has_no_test_images(tmp_path):
    fill(tmp_path, parts=("train",))
    assert load(tmp_path).test is None


def test_it_is_split_by_a_spec(tmp_path):
    fill(tmp_path)
    spec = DataSpec(name="image_folder", root=str(tmp_path), validation_size=3, test_size=3, image_size=4)
    splits = load_splits(spec)
    assert splits.input_shape == (3, 4, 4)
    assert sorted(splits.train.labels) == sorted(splits.validation.labels) == sorted(splits.test.labels) == [0, 1, 2]


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "bmp", "webp"])
def test_formats(tmp_path, suffix):
    for name in CLASSES:
        save(tmp_path / name / f"image.{suffix}", np.full((6, 5, 3), (200, 100, 50), np.uint8))
    images = load(tmp_path).train.images
    assert images.shape == (3, 3, 6, 5)
    assert np.abs(images.astype(int) - np.array([200, 100, 50])[:, None, None]).max() <= 4


def test_what_is_hidden_or_no_image_is_not_looked_at(tmp_path):
    fill(tmp_path, parts=("train",))
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "notes.txt").write_text("a file beside the classes")
    (tmp_path / "train" / "ant" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "train" / "ant" / "._0.png").write_bytes(b"x")
    (tmp_path / "train" / "ant" / "folder.png").mkdir()
    (tmp_path / "train" / "loop").symlink_to(tmp_path / "train" / "loop")
    (tmp_path / "train" / "ant" / "up").symlink_to(tmp_path)
    raw = load(tmp_path)
    assert len(raw.train) == 6
    assert raw.classes == 3


def test_a_link_to_an_image_is_one(tmp_path):
    fill(tmp_path, parts=("",))
    (tmp_path / "ant" / "2.png").symlink_to(tmp_path / "ant" / "0.png")
    images = load(tmp_path).train.images
    assert np.array_equal(images[2], images[0])


def test_grayscale_stays_of_one_channel(tmp_path):
    fill(tmp_path, channels=1)
    images = load(tmp_path).train.images
    assert images.shape == (6, 1, 6, 5)
    assert np.array_equal(images[3, 0], picture(3, channels=1))


def test_one_colour_image_makes_all_colour(tmp_path):
    fill(tmp_path, channels=1)
    save(tmp_path / "test" / "cow" / "1.png", picture(11))
    raw = load(tmp_path)
    assert raw.test is not None
    assert raw.train.images.shape == raw.test.images.shape == (6, 3, 6, 5)
    assert np.array_equal(raw.train.images[3], np.repeat(picture(3, channels=1)[None], 3, axis=0))
    assert np.array_equal(raw.test.images[5].transpose(1, 2, 0), picture(11))


def modes() -> dict[str, tuple[Image.Image, np.ndarray]]:
    """An image of each of Pillow's modes, and the (3, 6, 5) or (1, 6, 5) that it stands for."""
    rgb, gray = picture(0), picture(1, channels=1)
    shades, shade = rgb.transpose(2, 0, 1), gray[None]
    alpha = np.full((6, 5, 1), 7, np.uint8)
    palette = Image.fromarray(gray).convert("P")
    palette.putpalette([255 - value for value in range(256) for _ in range(3)])
    return {
        "alpha": (Image.fromarray(np.concatenate([rgb, alpha], axis=2)), shades),
        "gray and alpha": (Image.fromarray(np.stack([gray, alpha[..., 0]], axis=2), mode="LA"), shade),
        "palette": (palette, np.repeat(255 - shade, 3, axis=0)),
        "two-valued": (Image.fromarray(gray > 127), np.where(shade > 127, 255, 0)),
        "16 bits": (Image.fromarray(gray.astype(np.uint16) * 256 + 99), shade),
    }


@pytest.mark.parametrize("mode", modes())
def test_modes(tmp_path, mode):
    image, expected = modes()[mode]
    for name in CLASSES:
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "0.png")
    images = load(tmp_path).train.images
    assert images.shape == (3, *expected.shape)
    assert np.array_equal(images[0], expected)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (40, 64), (64, 40), (16, 16), (7, 9)])
def test_image_size_scales_the_shorter_side_and_keeps_the_middle(tmp_path, height, width):
    fill(tmp_path, parts=("",))
    smooth = np.add.outer(np.arange(height) * 2, np.arange(width) * 2)[..., None].repeat(3, axis=2).astype(np.uint8)
    save(tmp_path / "ant" / "0.png", smooth)
    image = load(tmp_path, image_size=16).train.images[0]
    assert image.shape == (3, 16, 16)
    scaled = reference.center_crop(reference.resize(Image.fromarray(smooth), 16), 16)
    # Torchvision rounds the longer side and the crop's place to whole pixels.
    rounding = 0 if height == width else 4
    assert np.abs(image.transpose(1, 2, 0).astype(int) - np.asarray(scaled).astype(int)).max() <= rounding


def test_a_very_long_image_is_scaled_without_becoming_very_large(tmp_path):
    fill(tmp_path, parts=("",))
    save(tmp_path / "ant" / "0.png", np.zeros((1, 20_000), np.uint8))
    assert load(tmp_path, image_size=512).train.images.shape == (6, 3, 512, 512)


def test_without_image_size_the_first_image_of_another_shape_is_named(tmp_path):
    fill(tmp_path)
    save(tmp_path / "train" / "bee" / "1.png", picture(0, height=7))
    save(tmp_path / "train" / "cow" / "1.png", picture(0, height=8))
    assert complaint(tmp_path) == (
        f"{tmp_path}/train/bee/1.png: is 5×7 where 0.png is 5×6; set trial.data.image_size to scale "
        "all images to one size"
    )


UNREADABLE = {
    "empty": b"",
    "text": b"no image at all",
    "cut short": None,
    "another format": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n",
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_is_no_image_is_named(tmp_path, case, first):
    fill(tmp_path)
    path = tmp_path / "train" / "ant" / f"{0 if first else 1}.png"
    content = UNREADABLE[case]
    path.write_bytes(path.read_bytes()[:-60] if content is None else content)
    for size in (None, 4):
        message = complaint(tmp_path, image_size=size)
        assert message.startswith(f"{path}: cannot be read as an image (")
        assert message.endswith("); mend or remove the file")


def test_a_link_to_nowhere_is_named(tmp_path):
    fill(tmp_path)
    path = tmp_path / "train" / "ant" / "2.png"
    path.symlink_to(tmp_path / "absent.png")
    assert complaint(tmp_path).startswith(f"{path}: cannot be read as an image (FileNotFoundError: ")


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 14)
    message = complaint(tmp_path)
    assert message.startswith(f"{tmp_path}/train/ant/0.png: cannot be read as an image (DecompressionBombError: ")


def test_folders_that_are_no_dataset_are_named(tmp_path):
    assert complaint(None).startswith("trial.data.root: missing; ")
    assert "cannot be read (No such file or directory)" in complaint(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    assert "cannot be read (Not a directory)" in complaint(tmp_path / "file")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be read (" in complaint(tmp_path / "loop")
    (tmp_path / "one" / "ant").mkdir(parents=True)
    assert complaint(tmp_path / "one").startswith(f"{tmp_path}/one: holds 1 class folders; image_folder needs two")


def test_an_empty_class_is_named(tmp_path):
    fill(tmp_path)
    (tmp_path / "test" / "bee" / "0.png").unlink()
    (tmp_path / "test" / "bee" / "1.png").rename(tmp_path / "test" / "bee" / "1.gif")
    assert complaint(tmp_path).startswith(f"{tmp_path}/test/bee: holds no image (.png, ")


@pytest.mark.parametrize(("added", "lacking"), [("train", "test"), ("test", "train")])
def test_train_and_test_must_have_the_same_classes(tmp_path, added, lacking):
    fill(tmp_path)
    save(tmp_path / added / "dog" / "0.png", picture(0))
    assert complaint(tmp_path) == (
        f"{tmp_path}/{lacking}: has no class folder 'dog'; give train and test the same classes"
    )


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded from here on."""
    names: list[str] = []
    original = image_folder._image

    def image(path, *rest):
        names.append(path.name)
        return original(path, *rest)

    monkeypatch.setattr(image_folder, "_image", image)
    return names


def same(one: RawData, other: RawData) -> bool:
    assert one.test is not None
    assert other.test is not None
    pairs = ((one.train, other.train), (one.test, other.test))
    return all(np.array_equal(a.images, b.images) and np.array_equal(a.labels, b.labels) for a, b in pairs)


def test_images_are_decoded_once_and_kept_as_one_tensor_file(tmp_path, data_cache, decoded):
    fill(tmp_path)
    first = load(tmp_path)
    assert len(decoded) == 12
    assert same(load(tmp_path), first)
    assert len(decoded) == 12
    (kept,) = (data_cache / "image_folder").iterdir()
    tensors = safetensors.numpy.load_file(kept)
    assert {name: (array.dtype.name, array.shape) for name, array in tensors.items()} == {
        "train_images": ("uint8", (6, 3, 6, 5)),
        "train_labels": ("int64", (6,)),
        "test_images": ("uint8", (6, 3, 6, 5)),
        "test_labels": ("int64", (6,)),
    }
    with safetensors.safe_open(kept, framework="numpy") as file:
        assert file.metadata()["classes"] == '["ant", "bee", "cow"]'


def test_another_image_size_is_kept_beside(tmp_path, data_cache, decoded):
    fill(tmp_path)
    for size in (None, 4, None, 4):
        load(tmp_path, image_size=size)
    assert len(decoded) == 24
    assert len(list((data_cache / "image_folder").iterdir())) == 2


@pytest.mark.parametrize("change", ["content", "time", "added", "renamed"])
def test_a_changed_folder_is_decoded_anew_in_place_of_the_old(tmp_path, data_cache, decoded, change):
    fill(tmp_path)
    load(tmp_path)
    path = tmp_path / "train" / "ant" / "1.png"
    if change == "content":
        save(path, picture(77))
    elif change == "time":
        os.utime(path, ns=(0, 0))
    elif change == "added":
        save(path.with_name("2.png"), picture(77))
    else:
        path.rename(path.with_name("2.png"))
    decoded.clear()
    raw = load(tmp_path)
    assert len(decoded) == 12 + (change == "added")
    if change in ("content", "added"):
        assert np.array_equal(raw.train.images[1 + (change == "added")].transpose(1, 2, 0), picture(77))
    assert len(list((data_cache / "image_folder").iterdir())) == 1


def damaged(content: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "cut short": content[:-1],
        "a byte changed": content[:-1] + bytes([content[-1] ^ 1]),
        "no tensors": b"no tensors",
        "another's": safetensors.numpy.save({"x": np.zeros(3)}),
    }


@pytest.mark.parametrize("damage", damaged(b"x"))
def test_a_damaged_cache_is_made_anew(tmp_path, data_cache, decoded, damage):
    fill(tmp_path)
    first = load(tmp_path)
    (kept,) = (data_cache / "image_folder").iterdir()
    good = kept.read_bytes()
    kept.write_bytes(damaged(good)[damage])
    decoded.clear()
    assert same(load(tmp_path), first)
    assert same(load(tmp_path), first)
    assert len(decoded) == 12
    assert list((data_cache / "image_folder").iterdir()) == [kept]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, data_cache, decoded):
    fill(tmp_path)
    data_cache.write_text("a file where the folder should be")  # chmod would not stop root
    first = load(tmp_path)
    assert same(load(tmp_path), first)
    assert len(decoded) == 24


def test_a_failed_write_leaves_nothing_behind(tmp_path, data_cache, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    fill(tmp_path)
    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    assert len(load(tmp_path).train) == 6
    assert list((data_cache / "image_folder").iterdir()) == []


def test_it_is_in_the_table():
    assert DATASETS["image_folder"] is image_folder.load


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_in_place_of_a_test_folder_is_named(tmp_path: Path, name: str) -> None:
    for part in ("train", name):
        for label in ("a", "b"):
            (tmp_path / part / label).mkdir(parents=True)
    with pytest.raises(DataError, match=rf"{name}: image_folder reads .*; rename it to test"):
        image_folder.load(str(tmp_path))
