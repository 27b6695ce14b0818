"""Laws over every architecture: folding and slimming change no logits, only what they cost."""

from __future__ import annotations

import functools

import pytest
import torch
from damaged import MODELS_SMALL, apart, built, damage, images, state
from torch import nn

from atmc_search.channels import folded, macs, slimmed, unread_outputs, width
from atmc_search.models import MODELS

PATTERNS = {"rows and columns": {"share": 0.1}, "blocks": {"share": 0.05, "blocks": 0.06}}
CHAINS = ("lenet", "mlp", "small_cnn", "mobilenet_v2")  # whose logits a dead block would make constant
LARGE = ("resnet18", "resnet34", "resnet50", "resnet101")  # seconds each
CASES = [(name, "rows and columns") for name in MODELS_SMALL if name not in LARGE]
CASES += [(name, "blocks") for name in MODELS_SMALL if name not in CHAINS]


@functools.cache
def case(name: str, pattern: str) -> tuple[nn.Module, nn.Module, nn.Module]:
    """A damaged model, folded, slimmed."""
    model, shape = damage(built(name), seed=len(name), **PATTERNS[pattern]), MODELS_SMALL[name][0]
    fold = folded(model, shape)
    return model, fold, slimmed(fold if name in LARGE else model, shape)  # which folds the other once more


def test_the_table_holds_every_model() -> None:
    assert sorted(MODELS_SMALL) == sorted(MODELS)


@pytest.mark.parametrize(("name", "pattern"), CASES)
def test_logits_stay_and_multiplications_go(name: str, pattern: str) -> None:
    model, fold, slim = case(name, pattern)
    shape = MODELS_SMALL[name][0]
    assert model(images(shape)).std(0).max() > 1e-4 * model(images(shape)).abs().max()  # not agreement on a constant
    for x in (torch.cat([images(shape), 5 * torch.randn(2, *shape)]), images(shape, 1)):
        assert apart(model, fold, x) < 1e-5
        assert apart(model, slim, x) < 1e-5
    assert macs(slim, shape) < macs(model, shape) == macs(fold, shape)
    assert width(slim) < width(model) == width(fold)
    assert not any(module.training for module in (*fold.modules(), *slim.modules()))


@pytest.mark.parametrize(("name", "pattern"), CASES)
def test_weights_stay_or_become_zero_and_dead_norms_are_cheap(name: str, pattern: str) -> None:
    model, fold, _ = case(name, pattern)
    before, after = state(model), state(fold)
    assert before.keys() == after.keys()
    more = 0
    for key, tensor in before.items():
        assert tensor.shape == after[key].shape
        if key.endswith("weight"):
            assert ((after[key] == tensor) | (after[key] == 0)).all()
            more += int(((after[key] == 0) & (tensor != 0)).sum())
        if key.endswith("running_var"):
            dead = after[key.replace("running_var", "weight")] == 0
            assert (after[key][dead] == 1).all()
            assert (after[key.replace("var", "mean")][dead] == 0).all()
    assert more > 0


@pytest.mark.parametrize("name", [name for name in MODELS_SMALL if name not in LARGE])
def test_folding_twice_changes_nothing_more(name: str) -> None:
    shape = MODELS_SMALL[name][0]
    _, once, _ = case(name, "rows and columns")
    twice = state(folded(once, shape))
    assert all(torch.equal(tensor, twice[key]) for key, tensor in state(once).items())


@pytest.mark.parametrize("name", ["lenet", "mlp", "small_cnn", "mobilenet_v2"])
def test_unread_outputs_may_be_anything(name: str) -> None:
    model, fold, _ = case(name, "rows and columns")
    shape = MODELS_SMALL[name][0]
    unread = unread_outputs(fold, shape)
    other = folded(fold, shape)  # a copy
    with torch.no_grad():
        for key, rows in unread.items():
            assert (other.get_submodule(key).weight[rows] == 0).all()
            other.get_submodule(key).weight[rows] = 3.0
    assert sum(int(rows.sum()) for rows in unread.values()) > 0
    assert apart(model, other, images(shape)) < 1e-5


@pytest.mark.parametrize("name", ["lenet", "wide_resnet", "mobilenet_v2"])
def test_a_model_of_constant_logits_keeps_a_channel_of_every_layer(name: str) -> None:
    model = built(name).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.zero_()
        model.net[-1].bias.copy_(torch.arange(5.0)) if name == "lenet" else None
    shape = MODELS_SMALL[name][0]
    slim = slimmed(model, shape)
    layers = [module for module in slim.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert all(module.weight.shape[0] == 1 for module in layers[:-1])
    x = images(shape)
    assert torch.allclose(slim(x), model(x), atol=1e-6)


def test_what_is_whole_stays_whole_and_the_original_untouched() -> None:
    model = built("small_cnn").train()
    before = state(model)
    found = slimmed(model, (1, 8, 8))
    assert all(torch.equal(tensor, state(found)[key]) for key, tensor in before.items())
    assert model.training
    damage(model, 0)
    before = state(model)
    slimmed(model, (1, 8, 8))
    assert all(torch.equal(tensor, state(model)[key]) for key, tensor in before.items())


def test_macs_of_lenet_and_of_a_transposed_convolution() -> None:
    model = built("lenet")
    by_hand = 12 * 12 * 20 * 25 + 2 * 2 * 50 * 20 * 25 + 50 * 500 + 500 * 5
    assert macs(model, (1, 16, 16)) == by_hand
    assert width(model) == 20 + 50 + 500 + 5
    assert macs(nn.ConvTranspose2d(4, 6, 3, groups=2), (4, 5, 5)) == 25 * 4 * 3 * 9
    assert macs(nn.Conv2d(4, 6, 3, groups=2), (4, 5, 5)) == 9 * 6 * 2 * 9
