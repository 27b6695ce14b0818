"""Folding a model in factors: the same logits from factors in which values only become zero."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from atmc_search.artifact import Architecture, CompressedModel
from atmc_search.artifact.folding import folded
from atmc_search.channels import macs, slimmed
from atmc_search.compress import constrained_weights, effective_weight, factorise, half_precision
from atmc_search.errors import ArtifactError

NETS: dict[str, Architecture] = {
    "narrow, wide, narrow": Architecture("mlp", {"hidden": [7, 24, 9]}, (1, 3, 4), 4),
    "lenet": Architecture("lenet", {}, (1, 16, 16), 4),
    "mobilenet_v2": Architecture("mobilenet_v2", {"width_mult": 0.1}, (3, 8, 8), 4),
}
FACTORS = ("none", "uvc", "uvc_plain", "low_rank")


@torch.no_grad()
def compressed(net: str, factors: Any, *, density: float, seed: int = 0, halves: bool = False) -> CompressedModel:
    """Of random factors on four values, and of biases and norm parameters that are random too."""
    architecture = NETS[net]
    generator = torch.Generator().manual_seed(seed)
    model = architecture.build(seed=seed)
    names = [name for name, tensor in model.state_dict().items() if tensor.ndim > 1]
    layers = factorise(model, factors, dict.fromkeys(names, 4))
    for weight in constrained_weights(model, layers).values():
        values = torch.tensor([-0.5, -0.25, 0.25, 0.5])[torch.randint(4, weight.shape, generator=generator)]
        matrix = torch.rand(weight.shape, generator=generator) < density
        weight.copy_(values * matrix)
    found = CompressedModel.of(model.eval(), layers, architecture)
    others = {}
    for name, tensor in found.others.items():
        if name.startswith("normalize"):
            others[name] = tensor
            continue
        random = (
            torch.randn(tensor.shape, generator=generator).abs() + 0.1
            if "var" in name
            else 0.3 * torch.randn(tensor.shape, generator=generator)
        )
        others[name] = half_precision(random) if halves else random
    return dataclasses.replace(found, others=others)


def logits(model: CompressedModel) -> Tensor:
    x = torch.rand(16, *model.architecture.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: Tensor = model.materialise()(x)
    return found


def nonzeros(model: CompressedModel) -> int:
    return sum(int((weight != 0).sum()) for weight in model.weights.values())


@pytest.mark.parametrize("density", [0.04, 0.15])
@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("net", NETS)
def test_logits_stay_values_become_zero_and_twice_is_once(net: str, factors: str, density: float) -> None:
    before = compressed(net, factors, density=density)
    after = folded(before)
    assert nonzeros(after) < nonzeros(before)
    assert before.layers == after.layers
    for name, weight in before.weights.items():
        assert after.weights[name].shape == weight.shape
        assert ((after.weights[name] == weight) | (after.weights[name] == 0)).all()
    expected, found = logits(before), logits(after)
    assert torch.allclose(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    twice = folded(after)
    for name, tensor in {**after.weights, **after.others}.items():
        assert torch.equal(tensor, {**twice.weights, **twice.others}[name]), name


@pytest.mark.parametrize("factors", FACTORS)
def test_a_second_reading_of_the_folded_factors_finds_the_same_model(factors: str) -> None:
    """What the factors give is as thin as what their dense weights could be."""
    before = compressed("narrow, wide, narrow", factors, density=0.1)
    shape = before.architecture.input_shape
    dense, ours = (slimmed(model.materialise(), shape) for model in (before, folded(before)))
    # Not fewer: a constant may stay where an identity's column does.
    assert macs(ours, shape) <= macs(dense, shape) * (1.2 if factors == "uvc" else 1)


def test_fp16_stays_fp16() -> None:
    before = compressed("lenet", "none", density=0.05, halves=True)
    after = folded(before)
    changed = 0
    for name, tensor in after.others.items():
        assert torch.equal(tensor.half().float(), tensor), name
        changed += not torch.equal(tensor, before.others[name])
    assert changed >= 3
    assert torch.allclose(logits(before), logits(after), rtol=0, atol=2e-3 * float(logits(before).abs().max()))


def layer_of(hidden: int, factors: Any) -> tuple[CompressedModel, str]:
    """Two inputs, two hidden units of which the second is constant, `hidden` more, two logits; all weights 1."""
    architecture = Architecture("mlp", {"hidden": [2, hidden]}, (1, 1, 2), 2)
    model = architecture.build()
    layers = factorise(model, factors)
    weights = {name: torch.zeros_like(weight) for name, weight in constrained_weights(model, layers).items()}
    found = CompressedModel.of(model.eval(), layers, architecture, weights)
    first, second, third = found.layers
    matrices = dict(found.weights)
    for layer, dense in ((first, torch.tensor([[1.0, -1.0], [0.0, 0.0]])), (second, torch.ones(hidden, 2))):
        # The other factor of the identity forms holds the dense weight.
        free = {"identity_left": "V", "identity_right": "U"}[layer.form]
        matrices[f"{layer.weight}.{free}"] = dense
    matrices[f"{third.weight}.V"] = torch.ones(2, hidden)
    others = {name: torch.full_like(t, 0.5) if name.endswith("bias") else t for name, t in found.others.items()}
    return dataclasses.replace(found, weights=matrices, others=others), second.weight


@pytest.mark.parametrize("used", [False, True])
def test_a_column_that_the_identity_lends_to_others_stays_with_what_it_reads(used: bool) -> None:
    before, name = layer_of(3, "uvc")
    assert before.layers[1].form == "identity_right"
    v = torch.tensor([[0.0, 0.0], [1.0, 0.0]]) if used else torch.zeros(2, 2)  # row 1 puts column 1 of U in column 0
    before = dataclasses.replace(before, weights={**before.weights, f"{name}.V": v})
    after = folded(before)
    assert torch.allclose(logits(after), logits(before), atol=1e-5)
    assert bool((after.weights[f"{name}.U"][:, 1] == 0).all()) == (not used)
    bias = after.others[name.replace("weight", "bias")]
    assert torch.allclose(bias, torch.full((3,), 0.5 if used else 1.0))


@pytest.mark.parametrize("used", [False, True])
def test_a_row_that_the_identity_lends_to_others_stays(used: bool) -> None:
    before, name = layer_of(2, "uvc")
    third = before.layers[2].weight
    assert before.layers[1].form == "identity_left"
    u = torch.tensor([[0.0, 1.0], [0.0, 0.0]]) if used else torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    weights = {**before.weights, f"{name}.U": u, f"{third}.V": torch.tensor([[1.0, 0.0], [1.0, 0.0]])}
    before = dataclasses.replace(before, weights=weights)
    after = folded(before)
    assert torch.allclose(logits(after), logits(before), atol=1e-5)
    assert bool((after.weights[f"{name}.V"][1] == 0).all()) == (not used)
    assert (after.weights[f"{name}.U"][1] == 0).all()  # only its own row reads it
    effective = effective_weight(after.layers[1], after.weights)
    assert bool((effective[1] == 0).all()) == (not used)


@pytest.mark.parametrize(("part", "value"), [("weights", torch.nan), ("weights", torch.inf), ("others", torch.nan)])
def test_what_is_not_a_number_is_refused_before_it_is_compared(part, value):
    model = compressed("lenet", "none", density=0.3)
    name, tensor = next((name, tensor) for name, tensor in getattr(model, part).items() if "net.2" in name)
    bad = tensor.clone()
    bad.view(-1)[1] = value
    broken = dataclasses.replace(model, **{part: {**getattr(model, part), name: bad}})
    with pytest.raises(ArtifactError, match=rf"tensor '{name}' holds NaN"):
        folded(broken)
