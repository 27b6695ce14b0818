"""Factors or their product: the same weights in no more non-zeros and fewer bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from atmc_search.artifact import Architecture, CompressedModel, pack, smallest_forms, unpack
from atmc_search.compress import effective_weight, factorise

Maker = Callable[..., CompressedModel]


def same_weights(one: CompressedModel, two: CompressedModel) -> None:
    first, second = one.materialise().state_dict(), two.materialise().state_dict()
    for name in first:
        # A product may have -0.0 where the dense form stores nothing: the one bit that makes no difference.
        assert torch.equal((first[name] + 0.0).view(-1), (second[name] + 0.0).view(-1)), name


def nnz(model: CompressedModel) -> dict[str, int]:
    """By layer."""
    return {
        layer.weight: sum(int(model.weights[name].count_nonzero()) for name in layer.factor_shapes)
        for layer in model.layers
    }


def in_factors(u: Tensor, v: Tensor, c: Tensor) -> CompressedModel:
    """One layer W = (I + U)V + C, (rows, columns)."""
    architecture = Architecture("mlp", {"hidden": []}, (1, 1, v.shape[1]), len(c))
    model = architecture.build()
    (layer,) = layers = factorise(model, "uvc")
    assert layer.form == "identity_left"
    weights = dict(zip(layer.factor_shapes, (u, v, c), strict=True))
    return CompressedModel.of(model.eval(), layers, architecture, weights=weights)


def sparse(shape: tuple[int, int], density: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor([-0.5, 0.25, 1.0])[torch.randint(3, shape, generator=generator)]
    return values * (torch.rand(shape, generator=generator) < density)


def test_a_factor_that_died_out_leaves_its_product():
    v = sparse((20, 60), 0.2, 0)
    model = in_factors(torch.zeros(20, 20), v, torch.zeros(20, 60))
    found = smallest_forms(model)
    (layer,) = found.layers
    assert layer.form == "dense"
    assert torch.equal(found.weights[layer.weight], v)
    same_weights(found, model)
    assert len(pack(found)) < len(pack(model))


def test_a_product_of_more_non_zeros_is_not_taken():
    """Two full rows are summed into all others: a few values stand for thousands."""
    u, v = torch.zeros(40, 40), torch.zeros(40, 300)
    u[:, :2], v[:2] = 1.0, sparse((2, 300), 1.0, 1)
    model = in_factors(u, v, torch.zeros(40, 300))
    found = smallest_forms(model)
    assert found.layers == model.layers
    assert len(pack(found)) == len(pack(model))


def test_a_product_of_more_non_zeros_is_not_taken_though_it_has_fewer_bytes():
    """U is noise but for the one column that is used, which makes a matrix of ones."""
    u, v = torch.randn(10, 10, generator=torch.Generator().manual_seed(0)), torch.zeros(10, 60)
    u[0, 0], u[1:, 0], v[0] = 0.0, 1.0, 1.0
    model = in_factors(u, v, torch.zeros(10, 60))
    (layer,) = model.layers
    ones = effective_weight(layer, model.weights)
    assert (ones == 1).all()
    assert smallest_forms(model).layers == model.layers
    dense = dataclasses.replace(layer, form="dense", rank=0)
    product = dataclasses.replace(model, layers=(dense,), weights={layer.weight: ones})
    assert len(pack(product)) < len(pack(model))


def test_a_product_of_fewer_non_zeros_but_more_bytes_is_not_taken():
    """C is one value everywhere, and UV adds another to each row: thirty values, that have to be named one by one."""
    u, v, c = torch.zeros(30, 30), torch.zeros(30, 400), torch.full((30, 400), 0.5)
    u[1:, 0], v[0] = torch.linspace(0.1, 1, 29), 1.0
    model = in_factors(u, v, c)
    found = smallest_forms(model)
    (layer,) = model.layers
    assert int(effective_weight(layer, model.weights).count_nonzero()) < sum(nnz(model).values())
    assert found.layers == model.layers


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
@pytest.mark.parametrize("name", ["small_cnn", "mlp"])
def test_weights_stay_to_the_bit_within_the_non_zeros_and_the_bytes(compressed: Maker, name, factors):
    model = compressed(name, factors, args={"width": 2} if name == "small_cnn" else {"hidden": [70, 7]})
    zeroed = {
        weight: torch.zeros_like(tensor) if weight.endswith(".U") and i % 2 else tensor
        for i, (weight, tensor) in enumerate(model.weights.items())
    }
    for given in (model, dataclasses.replace(model, weights=zeroed)):
        found = smallest_forms(given)
        same_weights(found, given)
        before, after = nnz(given), nnz(found)
        assert all(after[weight] <= before[weight] for weight in before)
        assert len(pack(found)) <= len(pack(given)) + 2
        decoded = unpack(pack(found)).state_dict()
        assert all(torch.equal(decoded[key], value) for key, value in found.materialise().state_dict().items())
        for layer in found.layers:
            if layer.form == "dense" and factors != "none":
                (was,) = (old for old in given.layers if old.weight == layer.weight)
                product = effective_weight(was, given.weights) + 0.0
                assert torch.equal(found.weights[layer.weight].view(-1), product.reshape(-1))


def test_what_is_dense_stays_as_it_is(compressed: Maker):
    model = compressed("small_cnn", "none", args={"width": 4})
    found = smallest_forms(model)
    assert found.layers == model.layers
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in model.weights.items())


def test_factors_are_multiplied_as_they_will_be_decoded(compressed: Maker):
    """However they lie in memory: a product of transposed factors is rounded in another order."""
    model = compressed("mlp", "uvc_plain", args={"hidden": [80, 7]}, bits=32, keep=0.9)
    turned = {name: tensor.T.contiguous().T for name, tensor in model.weights.items()}
    again = CompressedModel.of(
        model.materialise(), model.layers, model.architecture, weights=turned, others=model.others
    )
    expected = unpack(pack(again)).state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in again.materialise().state_dict().items())
    assert all(tensor.is_contiguous() for tensor in again.weights.values())
