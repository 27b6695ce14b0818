"""A trained model of the user's as the dense start: every form that people save, and what is refused in one line."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from atmc_search.artifact import Architecture, read_header
from atmc_search.errors import DataError, SpecError
from atmc_search.tasks import facts_of, start_of
from atmc_search.tasks.atmc import AtmcSpec, AtmcTask
from atmc_search.tasks.atmc.data import AtmcData

Maker = Callable[..., AtmcSpec]
Save = Callable[[Any, str], str]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """`save(document, "net.pth")`: the path of a file that torch, or for .safetensors safetensors, wrote."""

    def make(document: Any, name: str) -> str:
        path = tmp_path / name
        if path.suffix == ".safetensors":
            safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in document.items()}, path)
        else:
            torch.save(document, path)
        return str(path)

    return make


@pytest.fixture(scope="module")
def state(tiny_start: Any) -> dict[str, Tensor]:
    """The dense start's net as its user has it: without normalisation and under its own names."""
    return {name.removeprefix("net."): tensor for name, tensor in tiny_start.tensors.items() if name.startswith("net.")}


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return OrderedDict((prefix + name, tensor) for name, tensor in state.items())


def started(tiny_trial: Maker, path: str, **changes: Any) -> tuple[AtmcSpec, AtmcData]:
    spec = tiny_trial(dense={"weights": path, "epochs": 0}, **changes)
    data = AtmcTask.load(spec)
    AtmcTask.check(spec, data)
    return spec, data


FORMS: dict[str, tuple[str, Callable[[dict[str, Tensor]], Any]]] = {
    "plain": ("net.pth", dict),
    "safetensors": ("net.safetensors", dict),
    "DataParallel": ("net.pt", lambda state: prefixed(state, "module.")),
    "compiled": ("net.pt", lambda state: prefixed(state, "_orig_mod.")),
    "compiled and parallel": ("net.pt", lambda state: prefixed(state, "module._orig_mod.")),
    "under state_dict": ("net.ckpt", lambda state: {"epoch": 3, "state_dict": prefixed(state, "module.")}),
    "Lightning": ("net.ckpt", lambda state: {"state_dict": prefixed(state, "model."), "global_step": 7}),
    "under model": ("net.pt", lambda state: {"model": state, "optimizer": {"lr": 0.1}}),
    "under net": ("net.pt", lambda state: {"net": state, "acc": 93.1, "epoch": 200}),
    "under ema": ("net.pt", lambda state: {"ema": {"state_dict": state}, "step": torch.tensor(3)}),
    "half precision": ("net.bin", lambda state: {name: tensor.half() for name, tensor in state.items()}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_that_people_save_gives_the_same_start(
    tiny_trial: Maker, tiny_start: Any, state: dict[str, Tensor], save: Save, form: str
) -> None:
    name, wrap = FORMS[form]
    spec, data = started(tiny_trial, save(wrap(state), name))
    start = AtmcTask.make_start(spec, data, device="cpu", report=lambda row: None)
    assert start.tensors.keys() == tiny_start.tensors.keys()
    for key, tensor in tiny_start.tensors.items():
        assert start.tensors[key].dtype == tensor.dtype
        assert torch.allclose(start.tensors[key], tensor, atol=2e-3 if form == "half precision" else 0), key
    assert data.weights is not None
    assert start.origin == f"file {name} {data.weights.sha256}"


def test_an_artifact_of_ours_is_a_start_with_its_own_normalisation(
    tiny_trial: Maker, tiny_splits: AtmcData, tiny_start: Any, tmp_path: Path
) -> None:
    task = AtmcTask(tiny_trial(), tiny_splits, tiny_start, device="cpu", meta={})
    metrics = task.step()
    (tmp_path / "net.atmc").write_bytes(task.artifact())
    spec, data = started(tiny_trial, str(tmp_path / "net.atmc"), model={"name": "small_cnn", "width": 4})
    start = start_of(AtmcTask, spec, data, device="cpu", report=lambda row: None)
    for name in ("clean_accuracy", "robust_accuracy"):
        assert start.facts[f"dense_{name}"] == metrics[name]
    with pytest.raises(SpecError, match=r"does not fit model small_cnn: of another shape: 0\.weight"):
        started(tiny_trial, str(tmp_path / "net.atmc"), model={"name": "small_cnn", "width": 8})


def test_the_dense_row_is_the_model_s_own_accuracy(
    tiny_trial: Maker, tiny_splits: AtmcData, state: dict[str, Tensor], save: Save
) -> None:
    """A model that normalises by itself, measured by a loop of three lines."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Architecture("small_cnn", {"width": 4}, tiny_splits.input_shape, 10).build().get_submodule("net")

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net((x - 0.4) / 0.3)
            return out

    own = Own()
    own.net.load_state_dict(state)
    path = save(own.net.state_dict(), "net.pth")
    spec, data = started(tiny_trial, path, model={"name": "small_cnn", "width": 4, "normalize": [[0.4], [0.3]]})
    facts = start_of(AtmcTask, spec, data, device="cpu", report=lambda row: None).facts
    images = torch.tensor(data.validation.images).float() / 255
    right = own(images).argmax(1) == torch.tensor(data.validation.labels)
    assert facts["dense_clean_accuracy"] == int(right.sum()) / len(right)
    plain, data = started(tiny_trial, path)
    assert start_of(AtmcTask, plain, data, device="cpu", report=lambda row: None).facts != facts


def test_none_leaves_images_as_they_are(tiny_trial: Maker, state: dict[str, Tensor], save: Save) -> None:
    spec, data = started(
        tiny_trial, save(state, "net.pth"), model={"name": "small_cnn", "width": 4, "normalize": "none"}
    )
    tensors = AtmcTask.make_start(spec, data, device="cpu", report=lambda row: None).tensors
    assert (tensors["normalize.mean"].item(), tensors["normalize.std"].item()) == (0, 1)


def test_with_epochs_training_goes_on_from_the_file(
    tiny_trial: Maker, state: dict[str, Tensor], save: Save, tiny_start: Any
) -> None:
    path = save(state, "net.pth")
    spec = tiny_trial(dense={"weights": path, "epochs": 1, "lr": 1e-6})
    data = AtmcTask.load(spec)
    rows: list[Any] = []
    start = AtmcTask.make_start(spec, data, device="cpu", report=rows.append)
    assert [row["epoch"] for row in rows] == [1]
    moved = [name for name, tensor in tiny_start.tensors.items() if not torch.equal(start.tensors[name], tensor)]
    assert moved
    assert all(torch.allclose(start.tensors[name], tiny_start.tensors[name], atol=1e-3) for name in moved)


def test_a_start_is_known_by_what_the_file_holds_and_by_what_made_it(
    tiny_trial: Maker, state: dict[str, Tensor], save: Save
) -> None:
    path = save(state, "net.pth")
    spec, data = started(tiny_trial, path)
    key, figures = AtmcTask.start_key(spec, data), AtmcTask.start_figures_key(spec, data)
    assert AtmcTask.inputs(spec, data) == {path: data.weights and data.weights.sha256}
    # How robustness is measured does not make the start another one, but its figures.
    other, _ = started(tiny_trial, path, evaluate={"attack": {"name": "pgd", "steps": 4}})
    assert AtmcTask.start_key(other, data) == key
    assert AtmcTask.start_figures_key(other, data) != figures
    again, _ = started(tiny_trial, path, evaluate={"every": 2, "masking_images": 7})
    assert AtmcTask.start_figures_key(again, data) == figures
    save({name: tensor + 1 for name, tensor in state.items()}, "net.pth")
    assert AtmcTask.start_key(spec, AtmcTask.load(spec)) != key


def test_of_trained_starts_too_the_measuring_has_no_part(tiny_trial: Maker, tiny_splits: AtmcData) -> None:
    def key(**changes: Any) -> str:
        return AtmcTask.start_key(tiny_trial(**changes), tiny_splits)

    assert key(evaluate={"attack": {"name": "pgd", "steps": 9}, "batch_size": 7}) == key()
    assert key(threat={"norm": "linf", "eps": 0.1}) != key()
    assert key(dense={"select": "best"}, evaluate={"batch_size": 7}) != key(dense={"select": "best"})
    assert key(dense={"epochs": 0}, threat={"norm": "l2", "eps": 0.1}) == key(dense={"epochs": 0})


def test_specs_without_it_keep_their_fingerprints(tiny_trial: Maker) -> None:
    document = tiny_trial().model_dump(mode="json")
    assert "weights" not in document["dense"]
    assert "normalize" not in document["model"]


class Harm:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path("harmed").touch, ())


REFUSED: dict[str, tuple[str, Callable[[dict[str, Tensor]], Any], str]] = {
    "missing": (
        "net.pth",
        lambda s: {k: v for k, v in s.items() if k != "11.bias"},
        r"missing: 11\.bias; set trial\.model",
    ),
    "left over": ("net.pth", lambda s: s | {"head.weight": torch.zeros(1)}, r"left over: head\.weight;"),
    "shape": (
        "net.pth",
        lambda s: s | {"0.weight": torch.zeros(4, 3, 3, 3)},
        r"another shape: 0\.weight \(4, 3, 3, 3\) for \(4, 1, 3, 3\);",
    ),
    "many": (
        "net.pth",
        lambda s: {f"body.{k}": v for k, v in s.items()} | {"x": torch.zeros(1)},
        r"left over: .* and 8 more;",
    ),
    "a whole model": ("net.pt", lambda s: nn.Linear(2, 2), r"reading those would run code; save the weights alone"),
    "harm": ("net.pt", lambda s: {"state_dict": Harm()}, r"reading those would run code"),
    "no tensors": ("net.ckpt", lambda s: {"epoch": 3}, r"holds no state dict .*'epoch'.* under state_dict, "),
    "NaN": (
        "net.pth",
        lambda s: s | {"0.weight": s["0.weight"] / 0},
        r"holds values that are not finite: 0\.weight; give weights of a training that did not diverge",
    ),
    "a list": ("net.pt", lambda s: [1, 2], r"holds no state dict .*list"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_one_line_and_runs_nothing(
    tiny_trial: Maker,
    state: dict[str, Tensor],
    save: Save,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    name, wrap, words = REFUSED[kind]
    with pytest.raises(SpecError, match=rf"trial\.dense\.weights = '.*{words}") as error:
        started(tiny_trial, save(wrap(state), name))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("weights", b"", "a name without a suffix is no format of weights; give a .safetensors"),
        ("net.txt", b"", "'.txt' is no format of weights; give a .safetensors"),
        ("net.pth", b"abc", "is no file that torch.save wrote, or is damaged"),
        ("net.pt", pickle.dumps({"a": 1}), "no"),
        ("net.safetensors", b"abc", "is no file that safetensors wrote, or is damaged"),
        ("net.atmc", b"abc", "artifact"),
    ],
)
def test_files_of_another_kind_are_one_line(
    tiny_trial: Maker, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError, match=r"trial\.dense\.weights = ") as error:
        started(tiny_trial, str(tmp_path / name))
    assert words in str(error.value)


def test_a_file_that_is_not_there(tiny_trial: Maker) -> None:
    with pytest.raises(DataError, match=r"trial\.dense\.weights = 'gone\.pth': cannot be read .*; check the path"):
        started(tiny_trial, "gone.pth")


@pytest.mark.parametrize(
    ("normalize", "words"),
    [
        ([[0.5, 0.5], [0.2, 0.2]], "2 means and deviations, and the images 1 channels; give one for each"),
        ([[0.5]], r"must be data, none or \[\[means\], \[deviations\]\]"),
        ([[0.5], [0.0]], "deviations must be above 0"),
        ("imagenet", "must be data, none or"),
        ([[float("nan")], [0.2]], "must be data, none or"),
    ],
)
def test_a_normalisation_that_cannot_be(tiny_trial: Maker, normalize: Any, words: str) -> None:
    def tried() -> None:
        spec = tiny_trial(model={"name": "small_cnn", "width": 4, "normalize": normalize})
        AtmcTask.check(spec, AtmcTask.load(spec))

    with pytest.raises((SpecError, ValueError), match=words):
        tried()


def test_distillation_learns_from_a_model_that_was_given(
    tiny_trial: Maker, state: dict[str, Tensor], save: Save
) -> None:
    spec, data = started(tiny_trial, save(state, "net.pth"), train={"distillation": {"weight": 0.5}})
    start = start_of(AtmcTask, spec, data, device="cpu", report=lambda row: None)
    assert AtmcTask(spec, data, start, device="cpu", meta={}).step()["loss"] > 0


def test_another_trial_s_artifact_is_a_start(tiny_trial: Maker, tiny_splits: AtmcData, tiny_start: Any) -> None:
    larger = AtmcTask(tiny_trial(compress={"keep": 0.5}), tiny_splits, tiny_start, device="cpu", meta={})
    metrics = larger.step()
    spec = tiny_trial(compress={"keep": 0.1})
    start = AtmcTask.start_from(spec, tiny_splits, larger.artifact())
    figures = AtmcTask.measure_start(spec, tiny_splits, start, device="cpu")
    assert figures["dense_robust_accuracy"] == metrics["robust_accuracy"]
    assert AtmcTask(spec, tiny_splits, start, device="cpu", meta={}).step()["nnz"] <= metrics["nnz"] / 4
    with pytest.raises(SpecError, match="is of another model"):
        AtmcTask.start_from(tiny_trial(model={"name": "mlp", "hidden": [4]}), tiny_splits, larger.artifact())


def test_an_artifact_says_what_its_start_was(tiny_trial: Maker, state: dict[str, Tensor], save: Save) -> None:
    path = save(state, "net.pth")
    spec, data = started(tiny_trial, path)
    start = start_of(AtmcTask, spec, data, device="cpu", report=lambda row: None)
    task = AtmcTask(spec, data, start, device="cpu", meta=facts_of("x", AtmcTask.inputs(spec, data)))
    task.step()
    assert data.weights is not None
    assert read_header(task.artifact())["inputs"] == {"net.pth": data.weights.sha256}
