"""A compressed model with zeros for all that has no effect, in its factors: zeros are nearly free in a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from atmc_search import channels
from atmc_search.artifact.model import CompressedModel, refuse_unpackable
from atmc_search.compress import FactorisedLayer, half_precision


def folded(compressed: CompressedModel) -> CompressedModel:
    """The same logits, to rounding, from factors of more zeros.

    Factors only ever become zero, so that supports and codebooks stay within what they were. Biases and norm parameters
    change as in `channels.folded`; a tensor of them that fp16 held exactly is rounded to it again, where it can be.
    Folding twice changes nothing more.

    Raises:
        ArtifactError: as `pack` for NaN and infinity, which nothing could be folded beside.
    """
    refuse_unpackable(compressed)
    while True:
        after = _folded_once(compressed)
        if all(torch.equal(after.weights[name], weight) for name, weight in compressed.weights.items()):
            return after
        compressed = after  # zeros in one factor may have freed a column of another


@torch.no_grad()
def _folded_once(compressed: CompressedModel) -> CompressedModel:
    shape, model = compressed.architecture.input_shape, compressed.materialise()
    before = model.state_dict()
    frozen: dict[str, Tensor] = {}
    while True:
        plain = channels.folded(model, shape, frozen=frozen)
        after, unread = plain.state_dict(), channels.unread_outputs(plain, shape)
        weights: dict[str, Tensor] = {}
        restored: dict[str, Tensor] = {}
        for layer in compressed.layers:
            of_layer = unread.get(layer.module, torch.zeros(layer.rows, dtype=torch.bool))
            found, stuck = _carried(layer, compressed.weights, after[layer.weight], of_layer)
            weights |= found
            zeroed = layer.to_matrix((before[layer.weight] != 0) & (after[layer.weight] == 0))
            columns = stuck & zeroed[~of_layer].any(0)
            if columns.any():
                restored[layer.weight] = layer.from_matrix(columns.expand(layer.rows, -1).contiguous())
        if not restored:
            break
        # Constants were folded whose weights the factors cannot make zero: those stay, in another try. Ends, since a
        # weight that stays is never made zero again.
        frozen |= {name: mask | frozen.get(name, torch.zeros_like(mask)) for name, mask in restored.items()}
    others = {name: _on_grid_of(tensor, after[name]) for name, tensor in compressed.others.items()}
    return dataclasses.replace(compressed, weights=weights, others=others)


def _carried(
    layer: FactorisedLayer, factors: Mapping[str, Tensor], weight: Tensor, unread: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """The zero rows and columns of a layer's folded weight W in its factors.

    Args:
        layer: which layer.
        factors: before.
        weight: W, folded.
        unread: (rows,) bool, rows whose value does not matter.

    Returns:
        the factors, and the (columns,) that are zero in W and cannot become so in the factors.
    """
    if layer.form == "dense":
        matrix = factors[layer.weight]
        none = torch.zeros(layer.columns, dtype=torch.bool)
        return {layer.weight: torch.where(weight.reshape(matrix.shape) == 0, 0.0, matrix)}, none
    zero = layer.to_matrix(weight) == 0
    rows, columns = zero.all(1), zero.all(0)
    matrices = [factors[name].clone() for name in layer.factor_shapes]
    u, v = matrices[:2]
    stuck = torch.zeros_like(columns)
    if layer.form == "identity_left":  # row k of V is part of row k of W, and by column k of U of others
        u[unread] = 0
        whole = _closed(rows, u.T)
        v[whole] = 0
        rows = whole | unread
    if layer.form == "identity_right":  # column k of U is part of column k of W, and by row k of V of others
        whole = _closed(columns, v)
        stuck, columns = columns & ~whole, whole
        u[:, columns] = 0
    for left in (u, *matrices[2:]):
        left[rows] = 0
    for right in matrices[1:]:
        right[:, columns] = 0
    if layer.form != "identity_left":
        v[(u == 0).all(0)] = 0
    if layer.form != "identity_right":
        u[:, (v == 0).all(1)] = 0
    return dict(zip(layer.factor_shapes, matrices, strict=True)), stuck


def _closed(chosen: Tensor, uses: Tensor) -> Tensor:
    """The most of the `chosen` (n,) such that none of them is used, `uses` (n, n)[k, j] != 0, by one that is not."""
    while True:
        fewer = chosen & ~((uses != 0) & ~chosen).any(1)
        if torch.equal(fewer, chosen):
            return chosen
        chosen = fewer


def _on_grid_of(before: Tensor, after: Tensor) -> Tensor:
    """`after`, rounded to fp16 where `before` is on its grid."""
    if not before.is_floating_point() or not torch.equal(before.half().to(before), before):
        return after
    return half_precision(after)
