"""Weights as W = UV + C or UV: which layers are compressed, in which form, and the torch parametrisation that does it.

Matrices have one row per output channel or feature: a convolution's kernel is flattened to out × (in·kh·kw). The
identity-offset forms start at the dense model with nothing to approximate (Gui et al., arXiv
1902.03538, sect. 3.2): the identity is free, and the other factor *is* the dense weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from atmc_search.errors import SpecError

FactorForm: TypeAlias = Literal["dense", "identity_left", "identity_right", "plain", "low_rank"]
"""W = C; (I + U)V + C; U(I + V) + C; UV + C; UV."""

FORMS: tuple[FactorForm, ...] = get_args(FactorForm)

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class FactorisedLayer:
    """One compressed weight of a model: where it is, its shape and its form.

    Attributes:
        module: dotted name of the layer, "" for the model itself.
        shape: of the weight tensor.
        form: how it is factorised.
        transposed: whether the weight's first two axes are (in, out), as in transposed convolutions.
        rank: inner dimension of UV; 0 for the dense form.
    """

    module: str
    shape: tuple[int, ...]
    form: FactorForm = "dense"
    transposed: bool = False
    rank: int = 0

    @property
    def weight(self) -> str:
        """The weight's name in the state dict of the plain model."""
        return f"{self.module}.weight" if self.module else "weight"

    @property
    def rows(self) -> int:
        return self.shape[1] if self.transposed else self.shape[0]

    @property
    def columns(self) -> int:
        size = 1
        for extent in self.shape:
            size *= extent
        return size // self.rows

    @property
    def factor_shapes(self) -> dict[str, tuple[int, int]]:
        """Names and shapes of the constrained matrices, in their fixed order."""
        if self.form == "dense":  # the weight as it lies in memory, whatever its axes mean
            return {self.weight: (self.shape[0], self.rows * self.columns // self.shape[0])}
        product = {f"{self.weight}.U": (self.rows, self.rank), f"{self.weight}.V": (self.rank, self.columns)}
        return product if self.form == "low_rank" else product | {f"{self.weight}.C": (self.rows, self.columns)}

    def to_matrix(self, weight: Tensor) -> Tensor:
        """(rows, columns) view of a weight tensor."""
        return (weight.transpose(0, 1) if self.transposed else weight).flatten(1)

    def from_matrix(self, matrix: Tensor) -> Tensor:
        """The weight tensor of a (rows, columns) matrix."""
        if not self.transposed:
            return matrix.view(self.shape)
        return matrix.view(self.shape[1], self.shape[0], *self.shape[2:]).transpose(0, 1)


def combine(form: FactorForm, factors: Sequence[Tensor]) -> Tensor:
    """The matrix W of its factors: (C,) for the dense form, (U, V) for the low-rank one, else (U, V, C)."""
    if form == "dense":
        return factors[0]
    if form == "low_rank":
        return factors[0] @ factors[1]
    u, v, c = factors
    product = torch.addmm(c, u, v)
    if form == "identity_left":
        return product + v
    if form == "identity_right":
        return product + u
    return product


def start(form: FactorForm, matrix: Tensor, rank: int) -> tuple[Tensor, ...]:
    """Factors whose `combine` is `matrix`: to rounding for the plain form, nearest of its rank for the low-rank one."""
    zeros = torch.zeros_like(matrix)
    rows, columns = matrix.shape
    if form == "dense":
        return (matrix.clone(),)
    if form == "identity_left":
        return matrix.new_zeros(rows, rows), matrix.clone(), zeros
    if form == "identity_right":
        return matrix.clone(), matrix.new_zeros(columns, columns), zeros
    # U = V = 0 would be a saddle point that gradients never leave; balanced singular factors are not.
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    root = values[:rank].sqrt()
    u, v = (left[:, :rank] * root).to(matrix), (root[:, None] * right[:rank]).to(matrix)
    return (u, v) if form == "low_rank" else (u, v, matrix - u @ v)


def layers_to_compress(model: nn.Module) -> list[FactorisedLayer]:
    """Every linear and (transposed) convolutional layer that holds a weight of its own, in the model's order.

    Raises:
        SpecError: two layers share one weight, or a weight is already parametrised: its bytes could not be counted.
    """
    found: list[FactorisedLayer] = []
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED)):
            continue
        weight = module._parameters.get("weight")
        if weight is None:
            raise SpecError(f"model: layer {name!r} has no plain weight (parametrised already?); give plain layers")
        if id(weight) in owners:
            raise SpecError(f"model: layers {owners[id(weight)]!r} and {name!r} share one weight; give each its own")
        owners[id(weight)] = name
        # A grouped transposed convolution keeps (in, out/groups): its first axis serves as rows, in the dense form.
        transposed = isinstance(module, _TRANSPOSED) and module.groups == 1
        found.append(FactorisedLayer(name, tuple(weight.shape), transposed=transposed))
    if not found:
        raise SpecError("model: has no linear or convolutional layer; there is nothing to compress")
    return found


def factorise(
    model: nn.Module,
    factors: Literal["none", "uvc", "uvc_plain", "low_rank"],
    ranks: Mapping[str, int] | None = None,
) -> list[FactorisedLayer]:
    """Parametrises, in place, every ungrouped layer's weight by its factors; grouped convolutions stay dense.

    Args:
        model: any module; its weights are the start that the factors reproduce.
        factors: "none" leaves W = C; "uvc" takes the identity-offset form on the smaller side; "uvc_plain" UV + C;
            "low_rank" UV of the given ranks, which only approximates the start.
        ranks: of the low-rank form, by the weight's name; a layer of rank 0 or without one stays W = C.

    Returns:
        The layers, in order, to pass to `constrained_weights`.
    """
    layers = []
    for layer in layers_to_compress(model):
        rank = min(layer.rows, layer.columns)
        if factors == "low_rank":
            rank = (ranks or {}).get(layer.weight, 0)
        if factors == "none" or rank == 0 or not factorisable(model, layer):
            layers.append(layer)
            continue
        form: FactorForm = "low_rank" if factors == "low_rank" else "plain"
        if factors == "uvc":
            form = "identity_left" if layer.rows <= layer.columns else "identity_right"
        layer = FactorisedLayer(layer.module, layer.shape, form, layer.transposed, rank)
        parametrize.register_parametrization(model.get_submodule(layer.module), "weight", _Factors(layer))
        layers.append(layer)
    return layers


def factorisable(model: nn.Module, layer: FactorisedLayer) -> bool:
    """Whether a layer's weight is one matrix: a grouped convolution's is several, and stays as it is."""
    return getattr(model.get_submodule(layer.module), "groups", 1) == 1


def constrained_weights(model: nn.Module, layers: Sequence[FactorisedLayer]) -> dict[str, nn.Parameter]:
    """The parameters that the constraints bind, by name, in order: U, V, C of every factorised layer, else W."""
    weights: dict[str, nn.Parameter] = {}
    for layer in layers:
        module = model.get_submodule(layer.module)
        if layer.form == "dense":
            tensors = [module._parameters["weight"]]
        else:
            inner = module.get_submodule("parametrizations.weight")
            tensors = [inner._parameters[f"original{i}"] for i in range(len(layer.factor_shapes))]
        for name, tensor in zip(layer.factor_shapes, tensors, strict=True):
            assert tensor is not None
            weights[name] = tensor
    return weights


def effective_weight(layer: FactorisedLayer, weights: Mapping[str, Tensor]) -> Tensor:
    """The layer's weight tensor from its factors by name."""
    if layer.form == "dense":
        return weights[layer.weight].reshape(layer.shape)
    return layer.from_matrix(combine(layer.form, [weights[name] for name in layer.factor_shapes]))


class _Factors(nn.Module):
    """The torch parametrisation: original0, original1 and, where there is one, original2 are U, V and C."""

    def __init__(self, layer: FactorisedLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *factors: Tensor) -> Tensor:
        return self.layer.from_matrix(combine(self.layer.form, factors))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        return start(self.layer.form, self.layer.to_matrix(weight), self.layer.rank)
