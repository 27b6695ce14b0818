from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from atmc_search.compress import (
    FORMS,
    FactorForm,
    FactorisedLayer,
    combine,
    constrained_weights,
    effective_weight,
    factorise,
    layers_to_compress,
)
from atmc_search.errors import SpecError

FACTORS: list[Any] = ["none", "uvc", "uvc_plain"]

# layer, shape of its input, rows, columns, transposed; wide and tall of each kind
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, int, bool]] = {
    "linear wide": (lambda: nn.Linear(7, 4), (2, 7), 4, 7, False),
    "linear tall": (lambda: nn.Linear(3, 8, bias=False), (2, 3), 8, 3, False),
    "linear square": (lambda: nn.Linear(5, 5), (2, 5), 5, 5, False),
    "conv1d": (lambda: nn.Conv1d(2, 5, 3, padding=1), (2, 2, 6), 5, 6, False),
    "conv2d wide": (lambda: nn.Conv2d(3, 4, 3, stride=2), (2, 3, 7, 7), 4, 27, False),
    "conv2d tall": (lambda: nn.Conv2d(1, 6, 2), (2, 1, 5, 5), 6, 4, False),
    "conv2d uneven": (lambda: nn.Conv2d(2, 3, (2, 3), dilation=(1, 2)), (2, 2, 7, 8), 3, 12, False),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 5), 3, 16, False),
    "transposed 1d": (lambda: nn.ConvTranspose1d(3, 4, 3), (2, 3, 5), 4, 9, True),
    "transposed 2d": (lambda: nn.ConvTranspose2d(2, 9, 2, stride=2), (2, 2, 3, 4), 9, 8, True),
    "transposed 2d wide": (lambda: nn.ConvTranspose2d(4, 3, (2, 3)), (2, 4, 3, 3), 3, 24, True),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 3, 2), (2, 2, 2, 3, 2), 3, 16, True),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)
every_form = pytest.mark.parametrize("form", FORMS)


def layer_of(kind: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(seed)
    make, shape, *_ = LAYERS[kind]
    return make(), torch.randn(shape)


def random_factors(form: FactorForm, rows: int, columns: int, rank: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    product = [(rows, rank), (rank, columns)]
    shapes = {"dense": [(rows, columns)], "low_rank": product}.get(form, [*product, (rows, columns)])
    return [torch.randn(shape, generator=generator, dtype=torch.double) for shape in shapes]


def rank_of(form: FactorForm, rows: int, columns: int) -> int:
    sides = {"dense": 0, "identity_left": rows, "identity_right": columns, "low_rank": 1}
    return sides.get(form, min(rows, columns))


@every_form
@pytest.mark.parametrize(("rows", "columns"), [(3, 7), (6, 2), (4, 4), (1, 5), (5, 1)])
def test_combine_is_the_formula(form: FactorForm, rows: int, columns: int) -> None:
    factors = random_factors(form, rows, columns, rank_of(form, rows, columns))
    formulas: dict[FactorForm, Callable[..., Tensor]] = {
        "dense": lambda c: c,
        "identity_left": lambda u, v, c: (torch.eye(rows) + u) @ v + c,
        "identity_right": lambda u, v, c: u @ (torch.eye(columns) + v) + c,
        "plain": lambda u, v, c: u @ v + c,
        "low_rank": lambda u, v: u @ v,
    }
    assert torch.allclose(combine(form, factors), formulas[form](*factors))


@every_form
@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (4, 2)])
def test_gradients_of_combine(form: FactorForm, rows: int, columns: int) -> None:
    factors = [f.requires_grad_() for f in random_factors(form, rows, columns, rank_of(form, rows, columns))]
    assert torch.autograd.gradcheck(lambda *inputs: combine(form, inputs), factors)


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("kind", ["conv2d tall", "conv2d wide", "transposed 1d", "linear wide"])
def test_gradients_through_a_factorised_layer(factors: Any, kind: str) -> None:
    module, x = layer_of(kind)
    module, x = module.double(), x[:1].double()
    layers = factorise(module, factors)
    parameters = [p.detach().clone().requires_grad_() for p in constrained_weights(module, layers).values()]
    names = [name for name, p in module.named_parameters() if not name.endswith("bias")]
    assert len(names) == len(parameters)

    def forward(*values: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,))
        return out

    assert torch.autograd.gradcheck(forward, parameters, fast_mode=True)


@every_layer
@pytest.mark.parametrize("factors", FACTORS)
def test_factorising_starts_at_the_same_function(kind: str, factors: Any) -> None:
    module, x = layer_of(kind)
    expected, weight = module(x), module.weight.detach().clone()
    layers = factorise(module, factors)
    assert torch.allclose(module(x), expected, atol=1e-5)
    assert torch.allclose(module.weight, weight, atol=1e-6)
    if factors != "uvc_plain":  # nothing is approximated
        assert torch.equal(module.weight, weight)
    weights = {name: p.detach() for name, p in constrained_weights(module, layers).items()}
    assert torch.equal(effective_weight(layers[0], weights), module.weight)


@every_layer
def test_the_identity_stands_on_the_smaller_side(kind: str) -> None:
    _, _, rows, columns, transposed = LAYERS[kind]
    module, _ = layer_of(kind)
    matrix = (module.weight.transpose(0, 1) if transposed else module.weight).detach().flatten(1).clone()
    (layer,) = factorise(module, "uvc")
    assert (layer.rows, layer.columns, layer.transposed) == (rows, columns, transposed)
    assert layer.rank == min(rows, columns)
    u, v, c = constrained_weights(module, [layer]).values()
    assert torch.equal(c, torch.zeros(rows, columns))
    if rows <= columns:
        assert layer.form == "identity_left"
        assert torch.equal(u, torch.zeros(rows, rows))
        assert torch.equal(v, matrix)
    else:
        assert layer.form == "identity_right"
        assert torch.equal(u, matrix)
        assert torch.equal(v, torch.zeros(columns, columns))


@every_layer
def test_the_plain_form_starts_at_balanced_singular_factors(kind: str) -> None:
    """U = V = 0 would be a saddle point that no gradient leaves."""
    _, _, rows, columns, transposed = LAYERS[kind]
    module, x = layer_of(kind)
    matrix = (module.weight.transpose(0, 1) if transposed else module.weight).detach().flatten(1).clone()
    (layer,) = factorise(module, "uvc_plain")
    assert layer.form == "plain"
    u, v, c = (p.detach() for p in constrained_weights(module, [layer]).values())
    assert u.shape == (rows, min(rows, columns))
    assert v.shape == (min(rows, columns), columns)
    assert c.abs().max() < 1e-6
    assert torch.allclose(u @ v, matrix, atol=1e-6)
    values = torch.linalg.svdvals(matrix)
    assert torch.allclose(u.T @ u, values.diag(), atol=1e-5)
    assert torch.allclose(v @ v.T, values.diag(), atol=1e-5)
    module(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in constrained_weights(module, [layer]).values())


@every_layer
@pytest.mark.parametrize("factors", ["uvc", "uvc_plain"])
def test_a_changed_factor_changes_the_weight_by_the_formula(kind: str, factors: Any) -> None:
    """Also away from the start: shapes and axes of `from_matrix` are those of `to_matrix`."""
    module, _ = layer_of(kind)
    (layer,) = factorise(module, factors)
    weights = constrained_weights(module, [layer])
    with torch.no_grad():
        for seed, parameter in enumerate(weights.values()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    u, v, c = (p.detach() for p in weights.values())
    matrix = u @ v + c
    if layer.form == "identity_left":
        matrix = matrix + v
    if layer.form == "identity_right":
        matrix = matrix + u
    got = (module.weight.transpose(0, 1) if layer.transposed else module.weight).reshape(layer.rows, layer.columns)
    assert torch.allclose(got, matrix, atol=1e-5)
    assert module.weight.shape == layer.shape
    assert torch.equal(layer.to_matrix(module.weight), got)


@every_form
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("module", "prefix"), [("features.3", "features.3.weight"), ("", "weight")], ids=["inside", "the model itself"]
)
def test_names_and_shapes_of_the_factors(form: FactorForm, transposed: bool, module: str, prefix: str) -> None:
    layer = FactorisedLayer(module, (4, 6, 2, 3), form, transposed, rank=0 if form == "dense" else 5)
    assert layer.weight == prefix
    rows, columns = (6, 24) if transposed else (4, 36)
    assert (layer.rows, layer.columns) == (rows, columns)
    u, v, c = (f"{prefix}.U", (rows, 5)), (f"{prefix}.V", (5, columns)), (f"{prefix}.C", (rows, columns))
    # the dense form as it lies in memory
    expected = {"dense": [(prefix, (4, 36))], "low_rank": [u, v]}.get(form, [u, v, c])
    assert list(layer.factor_shapes.items()) == expected
    weight = torch.randn(layer.shape)
    assert layer.to_matrix(weight).shape == (rows, columns)
    assert torch.equal(layer.from_matrix(layer.to_matrix(weight).contiguous()), weight)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 8, 3, groups=2),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2, groups=4),
        nn.Sequential(nn.Flatten(), nn.Linear(4 * 5 * 5, 6)),
        nn.LayerNorm(6),
        nn.Linear(6, 9),
    )


def test_layers_are_found_in_order_and_nothing_else() -> None:
    assert [layer.weight for layer in layers_to_compress(network())] == [
        "0.weight",
        "2.weight",
        "4.weight",
        "5.1.weight",
        "7.weight",
    ]


@pytest.mark.parametrize("factors", FACTORS)
def test_a_whole_network(factors: Any) -> None:
    model, x = network().eval(), torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = model(x)
    plain = copy.deepcopy(model)
    layers = factorise(model, factors)
    assert torch.allclose(model(x), expected, atol=1e-5)
    grouped = {"2", "4"}
    wide = {"none": "dense", "uvc": "identity_left", "uvc_plain": "plain"}[factors]
    tall = {"none": "dense", "uvc": "identity_right", "uvc_plain": "plain"}[factors]
    forms = {"0": wide, "2": "dense", "4": "dense", "5.1": wide, "7": tall}
    assert {layer.module: layer.form for layer in layers} == forms
    weights = constrained_weights(model, layers)
    assert list(weights) == [name for layer in layers for name in layer.factor_shapes]
    for layer in layers:
        for name, (rows, columns) in layer.factor_shapes.items():
            assert weights[name].numel() == rows * columns
            assert isinstance(weights[name], nn.Parameter)
        stays = factors == "none" or layer.module in grouped
        assert parametrize.is_parametrized(model.get_submodule(layer.module)) != stays
        found = effective_weight(layer, {name: p.detach() for name, p in weights.items()})
        assert torch.allclose(found, plain.get_submodule(layer.module).weight, atol=1e-6)
    # They are the model's own parameters: what is done to them is done to it.
    with torch.no_grad():
        for parameter in weights.values():
            parameter.zero_()
    for layer in layers:
        assert not model.get_submodule(layer.module).weight.any()
    own = {id(p) for p in model.parameters()}
    assert all(id(p) in own for p in weights.values())


@every_layer
def test_low_rank_starts_at_the_nearest_matrix_of_its_rank(kind: str) -> None:
    """Eckart and Young: what is lost are the other singular values; factors are balanced, and no C is left over."""
    _, _, rows, columns, transposed = LAYERS[kind]
    module, _ = layer_of(kind)
    matrix = (module.weight.transpose(0, 1) if transposed else module.weight).detach().flatten(1).clone()
    values = torch.linalg.svdvals(matrix)
    (layer,) = factorise(module, "low_rank", {"weight": 2})
    assert (layer.form, layer.rank) == ("low_rank", 2)
    u, v = (p.detach() for p in constrained_weights(module, [layer]).values())
    assert (u.shape, v.shape) == ((rows, 2), (2, columns))
    assert float((matrix - u @ v).square().sum()) == pytest.approx(float(values[2:].square().sum()), abs=1e-5)
    assert torch.allclose(u.T @ u, v @ v.T, atol=1e-5)
    got = (module.weight.transpose(0, 1) if transposed else module.weight).reshape(rows, columns)
    assert torch.allclose(got, u @ v, atol=1e-6)


def test_low_rank_leaves_layers_without_a_rank_and_grouped_ones_whole() -> None:
    model, x = network().eval(), torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    ranks = {"0.weight": 0, "2.weight": 3, "5.1.weight": 6, "7.weight": 4}
    expected = model(x)
    layers = factorise(model, "low_rank", ranks)
    forms = {layer.module: (layer.form, layer.rank) for layer in layers}
    dense = ("dense", 0)
    assert forms == {"0": dense, "2": dense, "4": dense, "5.1": ("low_rank", 6), "7": ("low_rank", 4)}
    assert model(x).shape == expected.shape
    assert [name for name in constrained_weights(model, layers) if name.startswith("7")] == ["7.weight.U", "7.weight.V"]


def test_the_model_itself_may_be_the_layer() -> None:
    module, x = layer_of("linear wide")
    expected = module(x)
    layers = factorise(module, "uvc")
    assert list(constrained_weights(module, layers)) == ["weight.U", "weight.V", "weight.C"]
    assert torch.allclose(module(x), expected)


def refused(model: nn.Module, factors: Any) -> str:
    before = [name for name, _ in model.named_parameters()]
    with pytest.raises(SpecError) as caught:
        factorise(model, factors)
    assert [name for name, _ in model.named_parameters()] == before  # not half done
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("factors", FACTORS)
def test_shared_weights_are_refused(factors: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    assert "'0' and '2' share one weight; give each its own" in refused(model, factors)


@pytest.mark.parametrize("factors", FACTORS)
def test_a_layer_used_twice_is_one_layer(factors: Any) -> None:
    layer = nn.Linear(3, 3)
    assert [found.module for found in factorise(nn.Sequential(layer, nn.ReLU(), layer), factors)] == ["0"]


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize(
    "parametrised",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        lambda layer: factorise(layer, "uvc") and layer,
    ],
)
def test_parametrised_layers_are_refused(factors: Any, parametrised: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), parametrised(nn.Linear(4, 3)))
    assert "'1' has no plain weight (parametrised already?); give plain layers" in refused(model, factors)


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("model", [nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)), nn.ReLU(), nn.Embedding(3, 4)])
def test_a_model_without_layers_is_refused(factors: Any, model: nn.Module) -> None:
    assert "nothing to compress" in refused(model, factors)
