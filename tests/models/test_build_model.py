from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

from atmc_search.errors import SpecError
from atmc_search.models import MODELS, Normalize, build_model

MODULE = """
import torch
from torch import nn
from atmc_search.errors import SpecError

def net(features, classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(features), nn.Dropout(), nn.Linear(features, classes))

def both(input_shape, classes, features=5):
    assert input_shape == (1, 8, 8)
    return net(features, classes)
def neither(*, features): return net(features, 10)
def anything(**kwargs):
    assert set(kwargs) == {"features"}  # as torchvision's: only what the spec says is handed on
    return net(kwargs["features"], 10)
class Net(nn.Module):
    def __init__(self, classes, scale=1.0):
        super().__init__()
        self.inner = net(4, classes)
    def forward(self, x): return self.inner(x)
def shared(classes):
    first, second = nn.Linear(64, 64), nn.Linear(64, 64)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), first, second, nn.Linear(64, classes))

number = 3
def bare(classes): return nn.Flatten()
def wrong_count(): return net(4, 7)
def returns_tuple(): return Tuple()
class Tuple(nn.Module):
    def forward(self, x): return x, x
def returns_none(): return None
def wrong_size(): return nn.Linear(3, 10)
def raises(): raise ValueError("two\\nlines")
def refuses(features): raise SpecError("trial.model.features: refused")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "users_model.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "users_model"
    sys.modules.pop("users_model", None)


def build(name: str, args: dict[str, Any] | None = None, *, seed: int = 0) -> nn.Sequential:
    return build_model(name, args or {}, input_shape=(1, 8, 8), classes=10, mean=[0.5], std=[0.25], seed=seed)


def same(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_normalisation_is_the_first_layer():
    model = build("mlp")
    assert [name for name, _ in model.named_children()] == ["normalize", "net"]
    assert isinstance(model[0], Normalize)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(model(x), model[1]((x - 0.5) / 0.25))


def test_weights_follow_from_the_seed_and_not_from_the_global_state():
    first = build("small_cnn", seed=3)
    torch.rand(5)
    assert same(first, build("small_cnn", seed=3))
    assert not same(first, build("small_cnn", seed=4))


def test_the_global_state_is_left_alone(module):
    before = torch.get_rng_state()
    build("small_cnn")
    with pytest.raises(SpecError):
        build(f"{module}:raises")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_comes_in_train_mode(module):
    assert all(layer.training for layer in build(f"{module}:both").modules())


@pytest.mark.parametrize(
    ("attribute", "args"),
    [
        ("both", {}),
        ("both", {"features": 3}),
        ("neither", {"features": 3}),
        ("anything", {"features": 3}),
        ("Net", {"scale": 2.0}),
        ("shared", {}),
    ],
)
def test_a_users_factory_gets_what_its_signature_takes(module, attribute, args):
    model = build(f"{module}:{attribute}", args)
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)


def test_weights_that_layers_share_stay_shared(module):
    net = build(f"{module}:shared").net
    assert net[1].weight is net[2].weight  # type: ignore[index, union-attr]


@pytest.mark.parametrize(
    ("attribute", "args", "words"),
    [
        ("number", {}, "3 has no signature; name a function"),
        ("absent", {}, "no attribute 'absent'"),
        ("bare", {}, "returns (2, 64) for images (2, 1, 8, 8); it must return (2, 10) logits"),
        ("wrong_count", {}, "returns (2, 7) for images"),
        ("returns_tuple", {}, "returns tuple for images"),
        ("returns_none", {}, "returned None; it must return a torch.nn.Module"),
        ("wrong_size", {}, "fails on images (2, 1, 8, 8) (RuntimeError: "),
        ("raises", {}, "users_model:raises() failed (ValueError: two lines)"),
        ("refuses", {"features": 1}, "trial.model.features: refused"),
        ("neither", {}, "trial.model.features: missing; this model needs it, known: features"),
        ("neither", {"feature": 1}, "trial.model.feature: unknown key; did you mean 'features'? Known: features"),
        ("both", {"classes": 10}, "trial.model.classes = 10: follows from the dataset; remove it"),
        ("wrong_count", {"depth": 1}, "trial.model.depth: unknown key; this model has no settings, remove it"),
    ],
)
def test_a_users_factory_that_does_not_fit_is_one_line(module, attribute, args, words):
    with pytest.raises(SpecError) as caught:
        build(f"{module}:{attribute}", args)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(SpecError) as caught:
        build("lenett")
    assert str(caught.value).startswith("trial.model.name = 'lenett': unknown name; did you mean 'lenet'?")
    assert all(name in str(caught.value) for name in MODELS)
