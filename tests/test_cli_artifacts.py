"""`inspect`, `evaluate` and `export`: an artifact is of use without its run, and every mistake is one line."""

from __future__ import annotations

import io
import json
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import safetensors.torch
import torch
from shell import Run, one_line, program

import atmc_search
from atmc_search.artifact import Architecture, CompressedModel, describe, pack, read_header, unpack
from atmc_search.artifact.streams import Writer
from atmc_search.attacks import PGD, ThreatModel
from atmc_search.cli import artifacts
from atmc_search.compress import factorise
from atmc_search.data import DataSpec, DeviceData, load_splits
from atmc_search.errors import AtmcError
from atmc_search.export import TARGETS
from atmc_search.measure import measure, wilson_interval

META = {"study": "größer", "trial": 3, "threat": ["linf", 0.05], "fingerprint": "abc", "version": "0.1.0"}
CUSTOM = """
from pathlib import Path
from torch import nn

Path("imported").touch()

def net(*, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
"""


@pytest.fixture
def atmc(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`atmc("inspect", file)`: the program in this process, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return program(capsys, monkeypatch)


def packed(
    name: str = "mlp",
    shape: tuple[int, int, int] = (1, 8, 8),
    classes: int = 10,
    meta: dict[str, Any] | None = None,
    args: dict[str, Any] | None = None,
) -> bytes:
    architecture = Architecture(name, args or {}, shape, classes)
    model = architecture.build([0.3] * shape[0], [0.2] * shape[0], seed=1).eval()
    layers = factorise(model, "none")
    return pack(CompressedModel.of(model, layers, architecture, meta=META if meta is None else meta))


def with_header(header: Any) -> bytes:
    writer = Writer()
    writer.header(header if isinstance(header, bytes) else json.dumps(header).encode())
    content = writer.getvalue()
    return b"ATMC\x02" + zlib.crc32(content).to_bytes(4, "little") + content


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.atmc"
    path.write_bytes(packed(args={"hidden": [12]}))
    return path


@pytest.fixture
def custom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atmc: Run) -> Iterator[Path]:
    """An artifact of a user's model, whose import leaves a file `imported` in the working folder."""
    (tmp_path / "typed_users_model.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "custom.atmc"
    path.write_bytes(packed("typed_users_model:net"))
    (tmp_path / "imported").unlink()
    sys.modules.pop("typed_users_model")
    yield path
    sys.modules.pop("typed_users_model", None)


# --- inspect


def test_inspect_shows_header_tensors_and_totals(atmc: Run, file: Path) -> None:
    outcome = atmc("inspect", file)
    assert (outcome.code, outcome.err) == (0, "")
    found = describe(file.read_bytes())
    assert outcome.out.startswith(f"{file}: {file.stat().st_size:,} bytes\n")
    for key, value in {
        "model": "mlp",
        "classes": "10",
        "input": r"\[1, 8, 8\]",
        **META,
        "threat": "linf, eps 0.05",
    }.items():
        assert re.search(rf"^{key} +{value}$", outcome.out, re.MULTILINE), key
    for tensor in found.tensors:
        (line,) = [line for line in outcome.out.splitlines() if line.startswith(f"{tensor.name} ")]
        size = f"{tensor.size_bytes:.1f}" if tensor.size_bytes < 100 else f"{tensor.size_bytes:,.0f}"
        shape = "×".join(map(str, tensor.shape))
        found_words = line.removeprefix(tensor.name).split()
        assert found_words[:3] == [shape, f"{tensor.density:.4f}", str(tensor.bits)]
        assert " ".join(found_words[3:]).startswith(f"{tensor.mode} {size}")
    counted = re.search(
        r"^bytes +([\d,]+) = header (\d+) \+ layout (\d+) \+ .* ([\d,]+) \+ .* ([\d,]+)$", outcome.out, re.M
    )
    assert counted is not None
    total, *parts = (int(group.replace(",", "")) for group in counted.groups())
    assert total == sum(parts) == file.stat().st_size
    assert f"paper        {found.paper_bits / 8:,.0f} bytes" in outcome.out
    assert f"{found.compression:.1f} times smaller than {found.fp32_bytes:,} bytes" in outcome.out


MEASURED = {"split": "validation", "images": 1000, "clean": 812, "robust": 543, "attack": {"name": "pgd", "steps": 20}}


def test_inspect_says_what_was_measured_with_its_intervals(atmc: Run, file: Path) -> None:
    file.write_bytes(packed(meta={**META, "bits": [4, 0, 3], "measured": MEASURED}))
    out = atmc("inspect", file).out
    clean, robust = ("{:.3f} to {:.3f}".format(*wilson_interval(count, 1000)) for count in (812, 543))
    assert f"measured     clean 0.812 ({clean}), robust 0.543 ({robust})\n" in out
    assert "             on 1,000 validation images, by pgd, 20 steps; 95 % intervals\n" in out
    assert "bits         4 0 3\n" in out
    assert "threat       linf, eps 0.05\n" in out


@pytest.mark.parametrize(
    "value",
    [
        3,
        [],
        {},
        ["linf", 10**999],
        {**MEASURED, "images": 0},
        {**MEASURED, "images": 10},
        {**MEASURED, "images": 2**2000},
        {**MEASURED, "clean": -1},
        {**MEASURED, "clean": "many"},
        {**MEASURED, "robust": None},
        {**MEASURED, "attack": "pgd"},
        {**MEASURED, "split": ["validation"]},
        {**MEASURED, "attack": {"steps": {"\x1b[2J": "\n"}, "\x07": []}},
    ],
    ids=lambda value: str(value)[:60],
)
def test_inspect_shows_facts_of_another_kind_as_they_are(atmc: Run, file: Path, value: object) -> None:
    file.write_bytes(packed(meta={"measured": value, "bits": value, "threat": value}))
    outcome = atmc("inspect", file)
    assert (outcome.code, outcome.err) == (0, "")
    assert all(character.isprintable() or character == "\n" for character in outcome.out)
    assert len(re.findall(r"^(?:measured|bits|threat) ", outcome.out, re.M)) == 3


def test_inspect_as_json_says_the_same(atmc: Run, file: Path) -> None:
    found = describe(file.read_bytes())
    row = json.loads(atmc("inspect", file, "--json").out)
    assert row["header"] == read_header(file.read_bytes())
    assert row["size_bytes"] == file.stat().st_size
    assert row["header_bytes"] + row["layout_bytes"] + sum(t["size_bytes"] for t in row["tensors"]) == pytest.approx(
        row["size_bytes"]
    )
    assert [tensor["name"] for tensor in row["tensors"]] == [tensor.name for tensor in found.tensors]
    for name in ("nnz", "density", "paper_bits", "entropy_bits", "compression", "fp32_bytes", "dense_weights"):
        assert row[name] == getattr(found, name)
    assert row["tensors"][0]["of_entropy_bound"] == found.tensors[0].of_entropy_bound


def test_inspect_shows_a_users_model_without_running_it(atmc: Run, custom: Path, tmp_path: Path) -> None:
    outcome = atmc("inspect", custom)
    assert outcome.code == 0
    assert "model        typed_users_model:net" in outcome.out
    assert "add --allow-custom-models" in outcome.out
    assert json.loads(atmc("inspect", custom, "--json").out)["tensors"] is None
    assert not (tmp_path / "imported").exists()
    assert "net.1.weight" in atmc("inspect", custom, "--allow-custom-models").out
    assert (tmp_path / "imported").exists()


def test_inspect_prints_no_control_characters_of_a_file(atmc: Run, file: Path) -> None:
    file.write_bytes(packed(meta={"study": "\x1b[2Jgone", "no\nte": "x" * 5000, "deep": {"\x9b": "[red]\x07"}}))
    out = atmc("inspect", file).out
    assert all(character.isprintable() or character == "\n" for character in out)
    assert max(len(line) for line in out.splitlines()) < 300
    assert json.loads(atmc("inspect", file, "--json").out)["header"]["study"] == "\x1b[2Jgone"


def test_inspect_survives_a_header_nested_deep(atmc: Run, file: Path) -> None:
    for depth in (100, 900, 20_000):
        text = '{"model": "a:b", "deep": ' + "[" * depth + "]" * depth + "}"
        file.write_bytes(with_header(text.encode()))
        for words in ([], ["--json"]):
            outcome = atmc("inspect", file, *words)
            if outcome.code:
                one_line(outcome)
            else:
                assert "a:b" in outcome.out


# --- evaluate


def test_evaluate_measures_under_the_files_threat_model(atmc: Run, file: Path) -> None:
    row = json.loads(atmc("evaluate", file, "--data", "digits", "--steps", "3", "--json").out)
    splits = load_splits(DataSpec(name="digits"))
    model, data = unpack(file.read_bytes()), DeviceData(splits.test, "cpu")
    expected = measure(model, data, PGD(steps=3), ThreatModel(norm="linf", eps=0.05), batch_size=500, seed=0)
    assert (row["norm"], row["eps"], row["attack"]["name"], row["attack"]["steps"]) == ("linf", 0.05, "pgd", 3)
    assert (row["clean_accuracy"], row["robust_accuracy"]) == (expected.clean.value, expected.robust.value)
    assert row["images"] == len(splits.test)
    assert row["clean_interval"] == list(wilson_interval(expected.clean.correct, len(splits.test)))
    assert row["robust_interval"] == list(expected.robust.interval)
    assert row["size_bytes"] == file.stat().st_size


def test_evaluate_says_n_intervals_and_what_attacked(atmc: Run, file: Path) -> None:
    words = ("evaluate", file, "--data", "digits", "--attack", "fgsm", "--split", "validation")
    row = json.loads(atmc(*words, "--json").out)
    outcome = atmc(*words)
    assert (outcome.code, outcome.err) == (0, "")
    for name in ("clean", "robust"):
        low, high = row[f"{name}_interval"]
        figure = rf"^{name} +{row[f'{name}_accuracy']:.4f} +95 % interval {low:.3f} to {high:.3f}"
        assert re.search(figure, outcome.out, re.MULTILINE)
    assert f"n = {row['images']} validation images of digits; attack fgsm" in outcome.out
    assert "linf eps 0.05" in outcome.out


@pytest.mark.parametrize("split", ["test", "validation", "train"])
def test_evaluate_takes_the_split_it_is_told(atmc: Run, file: Path, split: str) -> None:
    row = json.loads(atmc("evaluate", file, "--data", "digits", "--attack", "none", "--split", split, "--json").out)
    assert row["images"] == len(getattr(load_splits(DataSpec(name="digits")), split))
    assert row["clean_accuracy"] == row["robust_accuracy"]


def test_evaluate_under_another_threat_model(atmc: Run, file: Path) -> None:
    words = ("evaluate", file, "--data", "digits", "--attack", "fgsm", "--json")
    by_eps = {eps: json.loads(atmc(*words, "--eps", eps).out) for eps in (0, 0.01, 0.5)}
    accuracies = [row["robust_accuracy"] for row in by_eps.values()]
    assert accuracies == sorted(accuracies, reverse=True)
    assert by_eps[0]["robust_accuracy"] == by_eps[0]["clean_accuracy"]
    assert by_eps[0.5]["norm"] == "linf"
    row = json.loads(atmc(*words, "--norm", "l2", "--eps", "0.3").out)
    assert (row["norm"], row["eps"]) == ("l2", 0.3)
    assert json.loads(atmc(*words, "--norm", "linf").out)["eps"] == 0.05  # the file's own norm


def test_evaluate_runs_the_export_where_told(atmc: Run, file: Path) -> None:
    words = ("evaluate", file, "--data", "digits", "--attack", "none", "--runtime")
    row = json.loads(atmc(*words, "--json").out)
    assert row["macs"] == 64 * 12 + 12 * 10
    assert 0 < row["latency_ms_low"] <= row["latency_ms"] <= row["latency_ms_high"]
    assert row["peak_memory_bytes"] > 4 * (row["macs"] + 12 + 10)  # its weights and biases
    out = atmc(*words).out
    assert re.search(r"^latency [\d.e-]+ ms   quartiles [\d.e-]+ to [\d.e-]+$", out, re.M)
    assert re.search(rf"^memory  {row['peak_memory_bytes']:,} bytes ", out, re.M)
    assert re.search(r"^MACs    888$", out, re.M)
    assert "macs" not in json.loads(atmc(*words[:-1], "--json").out)


def test_evaluate_says_what_running_the_export_needs(atmc: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    words = ("evaluate", file, "--data", "digits", "--attack", "none", "--runtime")
    line = one_line(atmc(*words))
    assert "--runtime: to = 'onnx': needs onnx, onnxruntime, onnxscript, and onnxscript cannot be imported" in line


def test_evaluate_needs_an_eps_where_the_file_has_none(atmc: Run, file: Path) -> None:
    file.write_bytes(packed(meta={}))
    words = ("evaluate", file, "--data", "digits", "--attack", "fgsm")
    assert "names no threat model to measure under; give --eps" in one_line(atmc(*words))
    assert json.loads(atmc(*words, "--eps", "0.1", "--json").out)["norm"] == "linf"


def test_evaluate_asks_before_it_runs_a_users_model(atmc: Run, custom: Path, tmp_path: Path) -> None:
    words = ("evaluate", custom, "--data", "digits", "--attack", "none")
    assert "if you trust the file, add --allow-custom-models" in one_line(atmc(*words))
    assert not (tmp_path / "imported").exists()
    assert atmc(*words, "--allow-custom-models").code == 0


def test_evaluate_on_a_folder_of_images(atmc: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setenv("ATMC_SEARCH_DATA", str(tmp_path / "cache"))
    file.write_bytes(packed(classes=2))
    for name, shade in (("dark", 30), ("light", 220)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(10):
            Image.new("L", (16, 16), shade + number).save(folder / f"{number}.png")
    words = ("evaluate", file, "--data", "image_folder", "--root", tmp_path / "photos", "--attack", "none")
    assert "its images are 1×16×16, and" in one_line(atmc(*words))
    row = json.loads(atmc(*words, "--image-size", "8", "--json").out)
    assert row["images"] == 4


# --- export


def ours(file: Path, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = atmc_search.load_artifact(file)(x)
    return logits


@pytest.mark.parametrize("target", TARGETS)
def test_export_writes_the_model(atmc: Run, file: Path, tmp_path: Path, target: str) -> None:
    out = tmp_path / "exported"
    outcome = atmc("export", file, "--to", target, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    data, x = out.read_bytes(), torch.rand(7, 1, 8, 8)
    assert outcome.out == f"wrote {out} ({len(data):,} bytes)\n"
    if target == "onnx":
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        assert torch.allclose(torch.from_numpy(session.run(None, {"images": x.numpy()})[0]), ours(file, x), atol=1e-6)
        assert json.loads(session.get_modelmeta().custom_metadata_map["provenance"]) == META
    elif target == "torchscript":
        assert torch.equal(torch.jit.load(io.BytesIO(data))(x), ours(file, x))
    else:
        load = (
            safetensors.torch.load
            if target == "safetensors"
            else lambda d: torch.load(io.BytesIO(d), weights_only=True)
        )
        state = atmc_search.load_artifact(file).state_dict()
        found = load(data)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)


def test_export_offers_every_target() -> None:
    assert sorted(artifacts._FORMATS) == sorted(TARGETS)


def test_export_asks_before_it_runs_a_users_model(atmc: Run, custom: Path, tmp_path: Path) -> None:
    words = ("export", custom, "--to", "state_dict", "--out", tmp_path / "out")
    assert "if you trust the file, add --allow-custom-models" in one_line(atmc(*words))
    assert not (tmp_path / "imported").exists()
    assert not (tmp_path / "out").exists()
    assert atmc(*words, "--allow-custom-models").code == 0
    assert (tmp_path / "out").exists()


def test_what_does_not_come_back_the_same_is_not_written(
    atmc: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"as before")
    monkeypatch.setattr(torch.jit, "load", lambda data: lambda x: torch.zeros(len(x), 10))
    said = one_line(atmc("export", file, "--to", "torchscript", "--out", out))
    assert "off by" in said
    assert "nothing was written" in said
    assert out.read_bytes() == b"as before"


def test_a_missing_package_is_one_line(atmc: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    said = one_line(atmc("export", file, "--to", "onnx", "--out", tmp_path / "out"))
    assert "pip install 'atmc-search[export]'" in said
    assert not (tmp_path / "out").exists()


# --- mistakes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inspect"], "Missing argument 'FILE'"),
        (["inspect", "nowhere.atmc"], "nowhere.atmc: cannot be read"),
        (["inspect", "."], ".: cannot be read"),
        (["inspect", "JUNK"], "not an artifact: starts with"),
        (["inspect", "CUT"], "checksum does not match"),
        (["inspect", "LATER"], "format version 3, this release reads 1 to 2; update atmc-search"),
        (["inspect", "HUGE"], "do not trust its origin"),
        (["evaluate", "FILE"], "Missing option '--data'"),
        (["evaluate", "nowhere.atmc", "--data", "digits"], "nowhere.atmc: cannot be read"),
        (["evaluate", "CUT", "--data", "digits"], "cut.atmc: artifact's checksum does not match"),
        (["evaluate", "HUGE", "--data", "digits", "--eps", "0.1"], "huge.atmc: artifact of "),
        (["evaluate", "FILE", "--data", "digit"], "--data = 'digit': unknown name; did you mean 'digits'?"),
        (["evaluate", "FILE", "--data", "digits", "--root", "there"], "--root = 'there': digits come with"),
        (
            ["evaluate", "FILE", "--data", "digits", "--image-size", "8"],
            "--image-size = 8: 'digits' has images of one size",
        ),
        (["evaluate", "FILE", "--data", "image_folder", "--root", "/nowhere"], "/nowhere"),
        (["evaluate", "FILE", "--data", "digits", "--split", "all"], "'all' is not one of"),
        (
            ["evaluate", "FILE", "--data", "digits", "--attack", "pdg"],
            "--attack = 'pdg': unknown name; did you mean 'pgd'",
        ),
        (["evaluate", "FILE", "--data", "digits", "--attack", "fgsm", "--steps", "3"], "attack fgsm has no steps"),
        (["evaluate", "FILE", "--data", "digits", "--steps", "0"], "--steps"),
        (["evaluate", "FILE", "--data", "digits", "--eps", "-1"], "eps = -1.0"),
        (["evaluate", "FILE", "--data", "digits", "--eps", "nan"], "eps = nan"),
        (
            ["evaluate", "FILE", "--data", "digits", "--norm", "l2"],
            "--norm l2: the file's eps is meant for 'linf'; give",
        ),
        (["evaluate", "FILE", "--data", "digits", "--norm", "l1"], "'l1' is not one of"),
        (["evaluate", "FILE", "--data", "digits", "--device", "abacus"], "--device abacus: torch cannot use it"),
        (["evaluate", "ODD", "--data", "digits"], "threat.norm = 'l7'"),
        (["evaluate", "COLOUR", "--data", "digits"], "--data digits: its images are 1×8×8, and"),
        (["evaluate", "FEW", "--data", "digits"], "--data digits: it has 10 classes, and"),
        (["export", "FILE", "--out", "x"], "Missing option '--to'"),
        (["export", "FILE", "--to", "onnx"], "Missing option '--out'"),
        (["export", "FILE", "--to", "tflite", "--out", "x"], "'tflite' is not one of"),
        (["export", "nowhere.atmc", "--to", "onnx", "--out", "x"], "nowhere.atmc: cannot be read"),
        (["export", "CUT", "--to", "onnx", "--out", "x"], "cut.atmc: artifact's checksum does not match"),
        (["export", "HUGE", "--to", "state_dict", "--out", "x"], "huge.atmc: artifact of "),
        (["export", "FILE", "--to", "state_dict", "--out", "no/such/x"], "out = 'no/such/x': cannot be written"),
        (["export", "FILE", "--to", "state_dict", "--out", "."], "out = '.': cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(atmc: Run, file: Path, tmp_path: Path, words: list[str], said: str) -> None:
    data = file.read_bytes()
    hidden = [50_000, 50_000]
    files = {
        "junk": b"PK\x03\x04 a zip",
        "cut": data[:-1],
        "later": data[:4] + b"\x03" + data[5:],
        "huge": with_header({"model": "mlp", "args": {"hidden": hidden}, "input": [1, 8, 8], "classes": 10}),
        "odd": packed(meta={"threat": ["l7", 0.1]}),
        "colour": packed(shape=(3, 8, 8)),
        "few": packed(classes=4),
    }
    places = {"FILE": file}
    for name, content in files.items():
        places[name.upper()] = tmp_path / f"{name}.atmc"
        places[name.upper()].write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    assert said in one_line(atmc(*[places.get(word, word) for word in words]))
    assert sorted(tmp_path.rglob("*")) == before  # and nothing was left behind


# --- from Python


def test_the_same_from_python(file: Path, tmp_path: Path) -> None:
    found = atmc_search.inspect_artifact(file)
    assert found == describe(file.read_bytes())
    out = tmp_path / "out.safetensors"
    assert atmc_search.export_artifact(file, out, to="safetensors") == out.stat().st_size
    with pytest.raises(AtmcError, match="to = 'onxx': unknown format"):
        atmc_search.export_artifact(file, out, to="onxx")
    (tmp_path / "cut.atmc").write_bytes(file.read_bytes()[:-1])
    for call in (atmc_search.inspect_artifact, atmc_search.load_artifact):
        with pytest.raises(AtmcError, match=r"cut\.atmc: artifact's checksum"):
            call(tmp_path / "cut.atmc")


def test_repack_brings_an_old_file_to_the_latest_format(atmc: Run, tmp_path: Path) -> None:
    old, new = Path(__file__).parent / "artifact" / "golden" / "version1.atmc", tmp_path / "new.atmc"
    outcome = atmc("repack", old, "--out", new)
    before, after = old.read_bytes(), new.read_bytes()
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"wrote {new} ({len(after):,} bytes, {len(before):,} before)\n"
    assert len(after) < len(before)
    assert (before[4], after[4]) == (1, 2)
    assert read_header(after) == read_header(before)
    images = torch.rand(50, *read_header(before)["input"], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(unpack(after)(images), unpack(before)(images), rtol=1e-4, atol=1e-5)
    assert atmc("repack", new, "--out", tmp_path / "again.atmc").code == 0
    assert (tmp_path / "again.atmc").read_bytes() == after  # nothing more to gain


def test_repack_of_a_users_model_asks_first(atmc: Run, custom: Path, tmp_path: Path) -> None:
    outcome = atmc("repack", custom, "--out", tmp_path / "new.atmc")
    assert outcome.code == 2
    assert "--allow-custom-models" in outcome.err
    assert not (tmp_path / "new.atmc").exists()
    assert not (tmp_path / "imported").exists()
