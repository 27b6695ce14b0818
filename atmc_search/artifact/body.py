"""The tensors of a file, one after the other as the plain model's state has them, in one code.

Each compressed layer says its factor form and rank, then come its factors; every other tensor of the state follows in
its place, so that what it is predicted from (its layer's rows, say) lies just before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from atmc_search.artifact.coding import Coder, Encoder, Kind, Margins, Meter, Plan, best_plan, code_tensor, margins
from atmc_search.artifact.model import CompressedModel, other_tensors, refuse_unpackable, state_order
from atmc_search.compress import FORMS, FactorisedLayer, factorisable, layers_to_compress
from atmc_search.errors import ArtifactError


@dataclass(frozen=True)
class Part:
    """How a tensor is stored, and the bits that it takes."""

    mode: str
    bits: float


@dataclass(frozen=True)
class Expectations:
    """What a plain model lets a file hold.

    Attributes:
        model: the plain model.
        layers: its layers by the name of their weight, in the dense form.
        others: every other tensor that inference needs, by name.
        order: the names of both, as the state has them.
    """

    model: nn.Module
    layers: Mapping[str, FactorisedLayer]
    others: Mapping[str, Tensor]
    order: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """The tensors of a file: `layers` in the model's order, all else by name."""

    layers: list[FactorisedLayer] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    others: dict[str, Tensor] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)


def expectations(model: nn.Module) -> Expectations:
    """What a file may hold for this plain model."""
    layers = {layer.weight: layer for layer in layers_to_compress(model)}
    others = other_tensors(model, list(layers.values()))
    return Expectations(model, layers, others, state_order(model, list(layers.values())))


def write(model: CompressedModel) -> tuple[bytes, bytes, int]:
    """The raw bytes and the code of a model's tensors, and in how many steps they decode.

    Raises:
        ArtifactError: as `refuse_unpackable`.
    """
    refuse_unpackable(model)
    coder, earlier = Encoder(), list[Margins]()
    layers = {layer.weight: layer for layer in model.layers}
    for name in model.order:
        if name in layers:
            code_layer(coder, layers[name], model.weights, earlier)
        else:
            _code_other(coder, name, model.others[name], earlier, known=True)
    return *coder.getvalue(), coder.steps


def code_layer(coder: Coder, layer: FactorisedLayer, weights: Mapping[str, Tensor], earlier: list[Margins]) -> None:
    """Codes a layer's form and factors, and adds their margins to `earlier`."""
    coder.choice(len(FORMS), FORMS.index(layer.form))
    if layer.form != "dense":
        coder.number(layer.rank)
    for name, shape in layer.factor_shapes.items():
        matrix = np.ascontiguousarray(weights[name].detach().numpy())
        kernel = kernel_of(layer, shape)
        code_tensor(coder, shape, kernel, earlier, best_plan(matrix, kernel, earlier), matrix)
        earlier.append(margins(matrix))


def read(coder: Coder, expected: Expectations, *, measured: bool = False) -> Found:
    """The tensors that `write` coded.

    Args:
        coder: to decode with.
        expected: what the architecture lets the file hold.
        measured: whether to say what each takes.

    Raises:
        ArtifactError: they do not fit.
    """
    found, earlier = Found(), list[Margins]()
    meter = Meter(coder)
    coder = meter if measured else coder
    for name in expected.order:
        if name in expected.layers:
            layer = _read_layer(coder, expected.layers[name], expected.model)
            found.layers.append(layer)
            for factor, shape in layer.factor_shapes.items():
                before = meter.total
                plan, matrix = code_tensor(coder, shape, kernel_of(layer, shape), earlier)
                if not np.isfinite(matrix).all():
                    raise ArtifactError(f"artifact's {factor} is not finite; do not trust its origin")
                earlier.append(margins(matrix))
                found.weights[factor] = torch.from_numpy(matrix)
                found.parts[factor] = Part(_mode(plan), meter.total - before)
        else:
            before = meter.total
            mode, found.others[name] = _code_other(coder, name, expected.others[name], earlier, known=False)
            found.parts[name] = Part(mode, meter.total - before)
    return found


def kernel_of(layer: FactorisedLayer, shape: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the kernel that a factor's columns run through; (1, 1) where they run through none."""
    extents = layer.shape[2:]
    height, width = int(np.prod(extents[:-1])), extents[-1] if extents else 1
    return (height, width) if shape[1] % (height * width) == 0 and shape[1] > layer.rank else (1, 1)


def _read_layer(coder: Coder, found: FactorisedLayer, model: nn.Module) -> FactorisedLayer:
    form = FORMS[coder.choice(len(FORMS), None)]
    if form == "dense":
        return found
    return with_form(found, FORMS.index(form), coder.number(None), model)


def with_form(found: FactorisedLayer, number: int, rank: int, model: nn.Module) -> FactorisedLayer:
    """A layer in the form of this number and rank.

    Raises:
        ArtifactError: the rank does not fit.
    """
    form, limit = FORMS[number], min(found.rows, found.columns)
    # The identity has the smaller side: (rows, rows) on the left of V, (columns, columns) on the right of U.
    side = {"identity_left": found.rows, "identity_right": found.columns}.get(form, rank)
    if not 0 < rank <= limit or rank != side or not factorisable(model, found):
        raise ArtifactError(f"artifact's rank {rank} does not fit layer {found.module!r}; it is damaged, get it again")
    return FactorisedLayer(found.module, found.shape, form, found.transposed, rank)


def _code_other(coder: Coder, name: str, tensor: Tensor, earlier: list[Margins], *, known: bool) -> tuple[str, Tensor]:
    """Codes a tensor of no constraint: floats as a matrix of one row, integers as they are."""
    if not tensor.is_floating_point():
        raw = tensor.to(torch.int64).numpy().astype("<i8").tobytes() if known else None
        raw = coder.raw(raw, 8 * tensor.numel())
        integers = torch.from_numpy(np.frombuffer(raw, dtype="<i8").astype(np.int64))
        return "int64", integers.view(tensor.shape).to(tensor.dtype)
    shape, plan, row = (1, tensor.numel()), None, None
    if known:
        row = tensor.detach().float().reshape(shape).contiguous().numpy()
        plan = best_plan(row, (1, 1), earlier)
    plan, row = code_tensor(coder, shape, (1, 1), earlier, plan, row)
    if np.isnan(row).any():
        raise ArtifactError(f"artifact's {name} holds NaN; do not trust its origin")
    earlier.append(margins(row))
    return _mode(plan), torch.from_numpy(row).view(tensor.shape)


def _mode(plan: Plan) -> str:
    if plan.kind is Kind.EMPTY:
        return "empty"
    return f"{plan.kind.name.lower()} {'fp16' if plan.half else 'fp32'}"
