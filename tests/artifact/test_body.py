"""The tensors' order in a file, and what a file's factor forms may be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import files
import pytest
import torch
from torch import nn

from atmc_search.artifact import Architecture, CompressedModel, describe, pack, unpack
from atmc_search.artifact.body import kernel_of
from atmc_search.artifact.coding import Encoder, Kind
from atmc_search.artifact.container import read_contents
from atmc_search.compress import FORMS, FactorisedLayer, factorise
from atmc_search.errors import ArtifactError

Maker = Callable[..., CompressedModel]


def plain_order(model: nn.Module) -> list[str]:
    return [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]


def of(name: str, factors: Any, args: dict[str, Any], shape: tuple[int, int, int] = (1, 8, 8)) -> CompressedModel:
    """A model as it is while it trains: parametrised, where it has factors."""
    architecture = Architecture(name, args, shape, 4)
    model = architecture.build(seed=3)
    return CompressedModel.of(model.eval(), factorise(model, factors), architecture)


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
@pytest.mark.parametrize("name", ["small_cnn", "wide_resnet"])  # with biases, and with batch norm instead
def test_tensors_lie_as_in_the_plain_models_state(name, factors):
    args = {"width": 3} if name == "small_cnn" else {"depth": 10, "widen_factor": 1}
    model = of(name, factors, args)
    plain = model.architecture.build()
    assert list(model.order) == plain_order(plain)
    factors_of = {layer.weight: list(layer.factor_shapes) for layer in model.layers}
    expected = [part for tensor in plain_order(plain) for part in factors_of.get(tensor, [tensor])]
    assert [tensor.name for tensor in describe(pack(model)).tensors] == expected


def test_tensors_of_a_users_model_lie_as_in_its_state(compressed: Maker, custom_model):
    for factors in ("none", "uvc"):
        model = compressed(custom_model, factors)
        assert list(model.order) == plain_order(model.architecture.build())
        found = describe(pack(model), allow_custom_models=True)
        assert {t.name: t.mode for t in found.tensors}["net.order"] == "int64"


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_integers_of_any_width_come_back(dtype, tmp_path, monkeypatch):
    code = f"""
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = nn.Linear(4, classes)
        self.register_buffer("counts", torch.tensor([0, 1, 1, 0], dtype={dtype}))

    def forward(self, x):
        return self.body(x.flatten(1))
"""
    module = f"users_model_of_{str(dtype).rpartition('.')[2]}"
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    model = of(f"{module}:Net", "none", {}, (1, 2, 2))
    found = unpack(pack(model), allow_custom_models=True).state_dict()["net.counts"]
    assert found.dtype is dtype
    assert found.tolist() == model.others["net.counts"].tolist()


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
def test_what_each_tensor_takes_adds_up_to_the_code(compressed: Maker, factors):
    model = compressed("small_cnn", factors, args={"width": 5}, keep=0.3)
    data = pack(model)
    contents = read_contents(data, measured=True)
    forms = sum(2.4 + 20 * (layer.form != "dense") for layer in model.layers)
    bits = sum(part.bits for part in contents.parts.values())
    assert bits <= 8 * (len(data) - contents.header_bytes) <= 1.001 * bits + forms + 72
    assert read_contents(data).compressed.weights.keys() == model.weights.keys()


# --- forms and ranks

FITTING = {"identity_left": [], "identity_right": [2], "plain": [1, 2], "low_rank": [1, 2]}
"""Ranks that a layer of 6 rows and 2 columns can have, by form."""


@pytest.mark.parametrize("form", FITTING)
@pytest.mark.parametrize("rank", [0, 1, 2, 3, 4, 6, 2**39])
def test_a_form_or_rank_that_does_not_fit_the_layer_is_refused(form, rank):
    encoder = Encoder()
    for _ in range(2):  # mean and std
        encoder.choice(3, Kind.EMPTY)
    encoder.choice(len(FORMS), FORMS.index(form))
    encoder.number(rank)
    for _ in range(2 if form == "low_rank" else 3):
        encoder.choice(3, Kind.EMPTY)
    encoder.choice(3, Kind.EMPTY)  # bias
    encoder.choice(len(FORMS), FORMS.index("dense"))
    for _ in range(2):
        encoder.choice(3, Kind.EMPTY)
    raw, code = encoder.getvalue()
    header = {"model": "mlp", "args": {"hidden": [6]}, "input": [1, 1, 2], "classes": 2}
    data = files.with_header(header, files.varint(len(raw)) + raw + code)
    with nullcontext() if rank in FITTING[form] else pytest.raises(ArtifactError, match=f"rank {rank} does not fit"):
        assert unpack(data).state_dict()["net.1.weight"].tolist() == [[0, 0]] * 6


def test_raw_bytes_that_no_tensor_reads_are_refused():
    encoder = Encoder()
    for _ in range(2):
        encoder.choice(3, Kind.EMPTY)
    for _ in range(2):
        encoder.choice(len(FORMS), 0)
        for _ in range(2):
            encoder.choice(3, Kind.EMPTY)
    header = {"model": "mlp", "args": {"hidden": [6]}, "input": [1, 1, 2], "classes": 2}
    code = encoder.getvalue()[1]
    unpack(files.with_header(header, files.varint(0) + code))
    with pytest.raises(ArtifactError, match="longer than its tensors"):
        unpack(files.with_header(header, files.varint(1) + b"x" + code))


@pytest.mark.parametrize(
    ("shape", "transposed", "form", "rank", "expected"),
    [
        ((8, 4, 3, 5), False, "dense", 0, [(3, 5)]),
        ((8, 4, 3), False, "dense", 0, [(1, 3)]),
        ((8, 4, 2, 3, 5), False, "dense", 0, [(6, 5)]),
        ((8, 4), False, "dense", 0, [(1, 1)]),
        ((8, 4, 3, 3), False, "identity_left", 8, [(1, 1), (3, 3), (3, 3)]),
        ((9, 1, 3, 3), False, "identity_right", 9, [(1, 1), (1, 1), (1, 1)]),
        ((8, 4, 3, 3), False, "low_rank", 2, [(1, 1), (3, 3)]),
        ((8, 4, 3, 3), True, "dense", 0, [(3, 3)]),
    ],
)
def test_factors_whose_columns_run_through_a_kernel(shape, transposed, form, rank, expected):
    layer = FactorisedLayer("net.0", shape, form, transposed, rank)
    assert [kernel_of(layer, factor) for factor in layer.factor_shapes.values()] == expected
