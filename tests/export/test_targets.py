"""Laws that every target keeps on every kind of model, and what single ones promise."""

from __future__ import annotations

import copy
import dataclasses
import functools
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors
import safetensors.torch
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import atmc_search
from atmc_search.artifact import Architecture, CompressedModel, pack, read_header, unpack
from atmc_search.channels import macs, slimmed, width
from atmc_search.cli import cli
from atmc_search.compress import constrained_weights, factorise
from atmc_search.errors import ArtifactError, AtmcError
from atmc_search.export import RUNNING, TARGETS, About, export
from atmc_search.export.checks import TOLERANCE, check_logits, check_tensors

KINDS: dict[str, dict[str, Any]] = {
    "lenet": {"shape": (1, 16, 16)},
    "mlp": {"shape": (3, 4, 5), "args": {"hidden": [9]}},
    "small_cnn": {"shape": (1, 8, 8), "args": {"width": 3}},
    "resnet18": {"shape": (3, 8, 8)},
    "mobilenet_v2": {"shape": (3, 8, 8), "args": {"width_mult": 0.25}, "apart": 5e-5},
    "wide_resnet": {"shape": (3, 8, 8), "args": {"depth": 10, "widen_factor": 1, "dropout": 0.3}},
}
"""Every kind of model there is; of torchvision's ResNets the smallest. apart: by which logits may differ, if not 2e-6;
those of this MobileNetV2 are 6e-6 from float64's already."""

META = {"study": "größer", "trial": 3, "threat": ["linf", 0.1]}

CUSTOM = """
import torch
from torch import nn

class Masked(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(16, classes)
        self.register_buffer("mask", torch.tensor([-float("inf")] + [0.0] * (classes - 1)))
        self.register_buffer("order", torch.arange(classes - 1, -1, -1))

    def forward(self, x):
        return (self.head(x.flatten(1)) + self.mask)[:, self.order]

class Counting(nn.Module):
    '''Answers two images otherwise than any other number: a trace of it is another model.'''
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        logits = self.head(x.flatten(1))
        return logits if len(x) == 2 else logits + 1

class Choosing(Counting):
    def forward(self, x):
        logits = self.head(x.flatten(1))
        return -logits if x.mean() > 0.8 else logits
"""


@pytest.fixture
def custom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module of a user's models."""
    (tmp_path / "exported_users_models.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(tmp_path)
    yield "exported_users_models"
    sys.modules.pop("exported_users_models", None)


def compressed(name: str, shape: tuple[int, int, int], args: dict[str, Any] | None = None) -> CompressedModel:
    """Of random weights, about a tenth of them kept, with batch norm that has seen images."""
    architecture = Architecture(name, args or {}, shape, 5)
    model = architecture.build([0.4] * shape[0], [0.25] * shape[0], seed=1)
    layers = factorise(model, "none")
    with torch.no_grad():
        for weight in constrained_weights(model, layers).values():
            least = 1.5 * weight.std()
            weight.copy_(torch.where(weight.abs() >= least, weight.sign() * 2 * least, 0.0))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        model(torch.rand(32, *shape, generator=torch.Generator().manual_seed(2)))
    return CompressedModel.of(model.eval(), layers, architecture, meta=META)


@functools.cache
def opened(kind: str) -> tuple[nn.Module, About]:
    model = compressed(kind, KINDS[kind]["shape"], KINDS[kind].get("args"))
    arch = model.architecture
    header = {**META, "model": kind, "args": arch.args, "input": list(arch.input_shape), "classes": arch.classes}
    return model.materialise(), About(header)  # what unpack gives of pack, to the bit, without the seconds they take


@functools.cache
def exported(kind: str, target: str) -> bytes:
    return export(*opened(kind), target)


def images(kind: str, n: int) -> Tensor:
    return torch.rand(n, *KINDS[kind]["shape"], generator=torch.Generator().manual_seed(n))


def logits(kind: str, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = opened(kind)[0](x)
    return found


def session_of(data: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def runner(target: str, data: bytes) -> Callable[[Tensor], Tensor]:
    if target == "onnx":
        session = session_of(data)
        return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
    model = torch.jit.load(io.BytesIO(data))
    return lambda x: model(x).detach()


# --- laws


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", RUNNING)
def test_what_runs_gives_the_same_labels_and_logits_for_any_number_of_images(target: str, kind: str) -> None:
    run = runner(target, exported(kind, target))
    for n in (1, 2, 7):
        x = images(kind, n)
        ours, theirs = logits(kind, x), run(x)
        assert ours.abs().max() > 0.05  # not agreement on nothing
        assert torch.equal(ours.argmax(1), theirs.argmax(1))
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=KINDS[kind].get("apart", 2e-6)), (ours - theirs).abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_torchscript_of_the_whole_model_agrees_to_the_bit(kind: str) -> None:
    x, data = images(kind, 7), export(*opened(kind), "torchscript", slim=False)
    assert torch.equal(runner("torchscript", data)(x), logits(kind, x))


@pytest.mark.parametrize("target", RUNNING)
def test_channels_without_effect_are_left_out_unless_asked_for(target: str) -> None:
    model, about = opened("mlp")
    dead = copy.deepcopy(model)
    with torch.no_grad():
        dead.net[1].weight[:4] = 0
    slim, whole = export(dead, about, target), export(dead, about, target, slim=False)
    assert len(whole) - len(slim) > 4 * 60 * 4  # the bytes of four rows
    x = images("mlp", 7)
    with torch.no_grad():
        ours = dead(x)
    for data in (slim, whole):
        assert torch.allclose(runner(target, data)(x), ours, rtol=1e-5, atol=2e-6)
    assert width(slimmed(dead, about.input_shape)) <= width(dead) - 4
    assert macs(slimmed(dead, about.input_shape), about.input_shape) < macs(dead, about.input_shape)


def test_the_command_says_what_it_left_out(tmp_path: Path) -> None:
    dead = compressed("mlp", (1, 4, 5), {"hidden": [9]})
    weights = {name: weight.clone() for name, weight in dead.weights.items()}
    weights["net.1.weight"][:] = 1.0
    weights["net.1.weight"][2:5] = 0.0
    weights["net.3.weight"][:] = 1.0
    (tmp_path / "a.atmc").write_bytes(pack(dataclasses.replace(dead, weights=weights)))
    said = {}
    for flags in ((), ("--whole",)):
        words = [str(tmp_path / "a.atmc"), "--to", "torchscript", "--out", str(tmp_path / "out"), *flags]
        outcome = CliRunner().invoke(cli, ["export", *words])
        assert outcome.exit_code == 0, outcome.output
        said[flags] = outcome.output.replace("\n", "").split(" bytes)")[1]
    # 20 × 9 + 9 × 5 products before, 20 × 6 + 6 × 5 after
    assert said == {(): "; 3 of 14 channels removed, 225 -> 150 MACs", ("--whole",): ""}


@pytest.mark.parametrize("target", sorted(TARGETS.keys() - set(RUNNING)))
def test_what_needs_the_architecture_in_code_is_whole(target: str) -> None:
    model, about = opened("lenet")
    assert width(slimmed(model, about.input_shape)) < width(model)
    slim, whole = export(model, about, target), export(model, about, target, slim=False)
    read = safetensors.torch.load if target == "safetensors" else lambda data: torch.load(io.BytesIO(data))
    left, kept = read(slim), read(whole)
    assert left.keys() == kept.keys() == model.state_dict().keys()
    assert all(torch.equal(left[name], kept[name]) for name in kept)


def test_a_thin_model_that_answers_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, about = opened("mlp")
    monkeypatch.setattr("atmc_search.export.slimmed", lambda model, shape, multiple: opened("mlp")[0].net)
    with pytest.raises(AtmcError, match=r"off by.*or export it whole, by --whole or slim=False"):
        export(model, about, "torchscript")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["state_dict", "safetensors"])
def test_what_holds_tensors_holds_all_of_them_to_the_bit(target: str, kind: str) -> None:
    data, state = exported(kind, target), opened(kind)[0].state_dict()
    if target == "safetensors":
        found = safetensors.torch.load(data)
    else:
        found = torch.load(io.BytesIO(data), weights_only=True)
    assert all(type(tensor) is torch.Tensor and not tensor.requires_grad for tensor in found.values())
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("target", TARGETS)
def test_files_say_nothing_of_the_machine_that_wrote_them(target: str) -> None:
    data = exported("wide_resnet", target)
    for word in (str(Path(atmc_search.__file__).parent), str(Path(torch.__file__).parent), "atmc_search"):
        assert word.encode() not in data


def test_files_run_where_nothing_of_ours_is_imported(tmp_path: Path) -> None:
    expected = {}
    for kind in ("mlp", "wide_resnet"):
        x = images(kind, 7)
        expected |= {f"{kind}_images": x.numpy(), f"{kind}_logits": logits(kind, x).numpy()}
        for target in TARGETS:
            (tmp_path / f"{kind}.{target}").write_bytes(exported(kind, target))
    np.savez(tmp_path / "expected.npz", **expected)
    program = """
import sys
import numpy as np, onnxruntime, safetensors.torch, torch
expected = np.load("expected.npz")
for kind in ("mlp", "wide_resnet"):
    x, logits = expected[kind + "_images"], expected[kind + "_logits"]
    session = onnxruntime.InferenceSession(kind + ".onnx", providers=["CPUExecutionProvider"])
    scripted = torch.jit.load(kind + ".torchscript")
    for n in (1, 7):
        assert np.allclose(session.run(None, {"images": x[:n]})[0], logits[:n], rtol=1e-5, atol=2e-6)
        assert np.allclose(scripted(torch.from_numpy(x[:n])).detach().numpy(), logits[:n], rtol=1e-5, atol=2e-6)
state = torch.load("mlp.state_dict", weights_only=True)
assert state.keys() == safetensors.torch.load_file("mlp.safetensors").keys()
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(60, 9), torch.nn.ReLU(), torch.nn.Linear(9, 5))
net.load_state_dict({name.removeprefix("net."): t for name, t in state.items() if name.startswith("net.")})
x = (torch.from_numpy(expected["mlp_images"]) - state["normalize.mean"]) / state["normalize.std"]
assert np.allclose(net(x).detach().numpy(), expected["mlp_logits"], rtol=1e-5, atol=1e-6)
ours = [name for name in sys.modules if name.split(".")[0] == "atmc_search"]
assert not ours, ours
print("ran")
"""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.returncode) == ("ran\n", 0), done.stderr


# --- single targets


def test_onnx_says_what_goes_in_and_out_and_where_it_comes_from() -> None:
    data = exported("wide_resnet", "onnx")
    onnx.checker.check_model(data, full_check=True)
    session = session_of(data)
    (given,), (got,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(float)", ["batch", 3, 8, 8])
    assert (got.name, got.type, got.shape) == ("logits", "tensor(float)", ["batch", 5])
    about = session.get_modelmeta().custom_metadata_map
    described = {"model": "wide_resnet", "input": [3, 8, 8], "classes": 5, "args": KINDS["wide_resnet"]["args"]}
    assert json.loads(about["architecture"]) == described
    assert json.loads(about["provenance"]) == META


def test_safetensors_and_torchscript_carry_the_header_too(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(exported("mlp", "safetensors"))
    with safetensors.safe_open(tmp_path / "one", "pt") as file:
        metadata = file.metadata()
    extra = {"architecture.json": "", "provenance.json": ""}
    torch.jit.load(io.BytesIO(exported("mlp", "torchscript")), _extra_files=extra)
    for architecture, provenance in (
        (metadata["architecture"], metadata["provenance"]),
        (extra["architecture.json"], extra["provenance.json"]),
    ):
        assert json.loads(architecture)["model"] == "mlp"
        assert json.loads(provenance) == META


def test_a_model_of_a_users_own_with_an_infinite_mask_is_exported(custom: str) -> None:
    data = pack(compressed(f"{custom}:Masked", (1, 4, 4)))
    model, about = unpack(data, allow_custom_models=True), About(read_header(data))
    x = torch.rand(7, 1, 4, 4)
    with torch.no_grad():
        ours = model(x)
    assert torch.isinf(ours[:, -1]).all()
    for target in RUNNING:
        assert torch.allclose(runner(target, export(model, about, target))(x), ours, rtol=1e-5, atol=1e-6)


# --- what is refused


@pytest.mark.parametrize(
    ("kind", "target", "said"),
    [
        ("Counting", "torchscript", "decides by its input"),
        ("Choosing", "torchscript", "decides by its input"),
        ("Choosing", "onnx", "data-dependent"),
    ],
)
def test_an_export_that_would_be_another_model_is_refused_in_one_line(
    custom: str, capfd: pytest.CaptureFixture[str], kind: str, target: str, said: str
) -> None:
    data = pack(compressed(f"{custom}:{kind}", (1, 4, 4)))
    model, about = unpack(data, allow_custom_models=True), About(read_header(data))
    with pytest.raises(AtmcError, match=rf"to = '{target}': .*{said}") as refused:
        export(model, about, target)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda y: y + 1e-3, "off by"),
        (lambda y: y * float("nan"), "off by"),
        (lambda y: y[:, :-1], r"gives \(8, 4\) for \(8, 5\)"),
        (lambda y: y[:1] if len(y) > 1 else y, r"gives \(1, 5\) for \(8, 5\)"),
        (lambda y: y if len(y) > 1 else y.flip(1), "off by"),
        (lambda y: y.no_such_thing, "fails on 8 images"),
    ],
)
def test_another_answer_is_refused(change: Callable[[Tensor], Tensor], said: str) -> None:
    model, about = opened("mlp")

    def changed(x: Tensor) -> Tensor:
        found: Tensor = change(model(x))
        return found

    with pytest.raises(AtmcError, match=said) as caught:
        check_logits(model, changed, about.input_shape, "onnx")
    assert "\n" not in str(caught.value)


def test_rounding_is_not() -> None:
    model, about = opened("mlp")
    check_logits(model, lambda x: model(x) + TOLERANCE / 2, about.input_shape, "onnx")
    with pytest.raises(AtmcError, match="off by"):
        check_logits(model, lambda x: model(x) + 3 * TOLERANCE, about.input_shape, "onnx")
    # However a model that itself rounds by 5e-4 adds up must pass; but never more than a thousandth.
    rough = Rough()
    check_logits(rough, lambda x: rough(x) + 5e-4, (1, 2, 2), "onnx")
    with pytest.raises(AtmcError, match="off by"):
        check_logits(rough, lambda x: rough(x) + 2e-3, (1, 2, 2), "onnx")


class Rough(nn.Module):
    """Images to (x, -x) of one pixel, with an error of about 1e-3."""

    def forward(self, x: Tensor) -> Tensor:
        pixel = (x[:, 0, 0, :1] + 1e4) - 1e4
        return torch.cat([pixel, -pixel], dim=1)


def test_the_other_label_of_a_tie_is_not() -> None:
    _, about = opened("mlp")
    tie = nn.Sequential(nn.Flatten(), nn.Linear(60, 2))
    nn.init.zeros_(tie[1].weight)
    nn.init.zeros_(tie[1].bias)
    check_logits(tie, lambda x: tie(x) + torch.tensor([0.0, TOLERANCE / 2]), about.input_shape, "onnx")


def test_other_tensors_are_refused() -> None:
    state = {"weight": torch.ones(3)}
    check_tensors(state, {"weight": torch.ones(3)}, "safetensors")
    for other in ({}, {"weight": torch.ones(3) * (1 + 1e-6)}, {"weight": torch.ones(3), "bias": torch.ones(1)}):
        with pytest.raises(AtmcError, match="does not read back the same"):
            check_tensors(state, other, "safetensors")


def test_an_unknown_target_is_one_line() -> None:
    with pytest.raises(AtmcError, match=r"to = 'onxx': unknown format; did you mean 'onnx'\?"):
        export(*opened("mlp"), "onxx")


@pytest.mark.parametrize("absent", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_with_what_to_install(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(AtmcError, match=rf"and {absent} cannot be imported.*pip install 'atmc-search\[export\]'"):
        export(*opened("mlp"), "onnx")
    for target in TARGETS.keys() - {"onnx"}:
        export(*opened("mlp"), target)


def test_a_header_nested_too_deep_is_one_line() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    header = {"model": "mlp", "args": {}, "input": [1, 2, 3], "classes": 2, "note": deep}
    with pytest.raises(ArtifactError, match="nested too deep"):
        About(header).texts()
