"""Zeroes all weights without effect: constants move forwards into biases, and what makes unused outputs is removed.

A constant channel's weights in its reader become part of the reader's bias; a channel whose every reader has weight
zero for it is not read, so that what makes it may be zero too. Each may bring about the other, hence the fixpoint.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from atmc_search.channels.bounds import Bounds, of_norm, of_sums
from atmc_search.channels.operations import Affine, Norm, Operation, Passing, operation
from atmc_search.channels.trace import Trace, traced


def folded(
    model: nn.Module, input_shape: tuple[int, int, int], *, frozen: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """A copy in eval mode, of the same architecture and logits, in which all that has no effect is zero.

    A weight stays or becomes zero; biases and norm parameters may change. A batch norm's dead channel gets weight, bias
    and mean 0, variance 1. Left as they are, since zeros would not be exact: weights that read a constant other than
    zero where it is padded for some outputs, or in a layer with neither a bias nor a batch norm of its own behind it.
    Logits agree to rounding, for any images of that shape.

    Args:
        model: on images (n, channels, height, width). One that torch.fx cannot trace is only copied, and operations
            that are not known keep all they read.
        input_shape: (channels, height, width).
        frozen: weights by name as bool of their shape, true where they must stay although a constant could be folded.
    """
    found = copy.deepcopy(model).eval()
    trace = traced(found, input_shape)
    if trace is not None:
        while _fold(trace, frozen or {}):
            pass
    return found


def unread_outputs(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """Of each convolution and linear layer by name, (outputs,) bool: whether nothing depends on the output.

    Layers that are called more than once, or not on images' features alone, are left out.
    """
    copied = copy.deepcopy(model).eval()
    trace = traced(copied, input_shape)
    if trace is None:
        return {}
    operations = {node: operation(node, trace) for node in trace.nodes}
    read = channels_read(trace, operations)
    return {op.name: ~read[node] for node, op in operations.items() if isinstance(op, Affine)}


@torch.no_grad()
def channels_read(trace: Trace, operations: Mapping[fx.Node, Operation]) -> dict[fx.Node, Tensor]:
    """Of each node with channels, (channels,) bool: whether something that is read reads the channel."""
    read = {node: torch.zeros(shape[0], dtype=torch.bool) for node, shape in trace.shapes.items()}
    for node in reversed(list(trace.nodes)):
        op = operations[node]
        if isinstance(op, Affine):
            used = (op.matrix(op.module.weight).cpu() != 0) & ~op.outside
            used &= read[node].view(used.shape[:2])[:, :, None, None]
            read[op.source] |= used.any(3).any(1).flatten()
        elif isinstance(op, Norm):
            weight = op.module.weight
            read[op.source] |= read[node] if weight is None else read[node] & (weight != 0).cpu()
        elif isinstance(op, Passing):
            for source, channels in op.sources:
                read[source][channels[read[node] & (channels >= 0)]] = True
        else:
            for source in op.sources:
                if source in read:
                    read[source][:] = True
    return read


@torch.no_grad()
def _fold(trace: Trace, frozen: Mapping[str, Tensor]) -> bool:
    """One pass forwards and one backwards; whether either changed anything."""
    operations = {node: operation(node, trace) for node in trace.nodes}
    bounds: dict[fx.Node, Bounds] = {}
    changed = False
    for node in trace.nodes:
        op = operations[node]
        if isinstance(op, Affine):
            changed |= fold_constants(op, bounds[op.source], absorber_of(node, op, operations), frozen)
            bounds[node] = _of_affine(op, bounds[op.source])
        elif isinstance(op, Norm):
            bounds[node] = of_norm(op.module, bounds[op.source])
        elif isinstance(op, Passing):
            bounds[node] = op.bounds([bounds[source][channels] for source, channels in op.sources])
        elif node in trace.shapes:
            bounds[node] = Bounds.unknown(trace.shapes[node][0])
    read = channels_read(trace, operations)
    for node, op in operations.items():
        if isinstance(op, Affine):
            changed |= _clear_rows(op, ~read[node], frozen)
        elif isinstance(op, Norm):
            changed |= _settle(op.module, bounds[node], read[node])
    return changed


def absorber_of(node: fx.Node, op: Affine, operations: Mapping[fx.Node, Operation]) -> Tensor | None:
    """What constants can go into, of (outputs,): the bias, or the negative mean of a batch norm that alone follows."""
    if op.module.bias is not None:
        return op.module.bias
    (after,) = node.users if len(node.users) == 1 else (None,)
    follows = operations[after] if after is not None else None
    return follows.module.running_mean if isinstance(follows, Norm) else None


def foldable(op: Affine, given: Bounds, absorber: Tensor | None) -> Tensor:
    """(groups, outputs or 1, inputs, taps) bool: weights that read zeros, padding or what `absorber` can take."""
    constant = given.constant.view(op.groups, 1, -1, 1)
    gone = (constant & (given.low == 0).view(constant.shape)) | op.outside
    return gone if absorber is None else gone | (constant & op.inside)


def fold_constants(op: Affine, given: Bounds, absorber: Tensor | None, frozen: Mapping[str, Tensor]) -> bool:
    """Zeroes the `foldable` weights, and gives the absorber their share; whether there were any."""
    weight = op.matrix(op.module.weight.detach().cpu())
    groups, _, inputs, _ = weight.shape
    gone = foldable(op, given, absorber) & (weight != 0)
    if f"{op.name}.weight" in frozen:
        gone &= ~op.matrix(frozen[f"{op.name}.weight"])
    if not gone.any():
        return False
    if absorber is not None:
        values = given.low.masked_fill(~given.constant, 0)
        # Padding is 0, whatever the constant.
        share = (weight.masked_fill(~gone | op.outside, 0) * values.view(groups, 1, inputs, 1)).sum((2, 3)).flatten()
        sign = 1 if absorber is op.module.bias else -1
        absorber.copy_(absorber.double().cpu() + sign * share)
    _clear(op.module.weight, gone)
    return True


def _clear_rows(op: Affine, unread: Tensor, frozen: Mapping[str, Tensor]) -> bool:
    """Zeroes what makes unused outputs."""
    weight = op.matrix(op.module.weight.detach().cpu())
    gone = unread.view(weight.shape[:2])[:, :, None, None] & (weight != 0)
    if f"{op.name}.weight" in frozen:
        gone &= ~op.matrix(frozen[f"{op.name}.weight"])
    _clear(op.module.weight, gone)
    bias, changed = op.module.bias, bool(gone.any())
    if bias is not None:
        changed |= bool((unread & (bias != 0).cpu()).any())
        bias.masked_fill_(unread.to(bias.device), 0)
    return changed


def _clear(weight: Tensor, gone: Tensor) -> None:
    weight.masked_fill_(gone.reshape(weight.shape).to(weight.device), 0)


def _of_affine(op: Affine, given: Bounds) -> Bounds:
    weight = op.matrix(op.module.weight.detach().cpu())
    bias = 0 if op.module.bias is None else op.module.bias.detach().double().cpu()
    found = of_sums(weight[..., op.inside].double(), given)
    low, high = found.low + bias, found.high + bias
    at_border = ~(op.inside | op.outside)
    if at_border.any():
        border = of_sums(weight[..., at_border].double(), given.with_zero())
        low, high = low + border.low, high + border.high
    return Bounds.of(low, high)


def _settle(module: nn.BatchNorm1d | nn.BatchNorm2d, got: Bounds, read: Tensor) -> bool:
    """Gives unused and constant channels parameters that cost little and read nothing."""
    assert module.running_mean is not None
    assert module.running_var is not None
    settled = ~read if module.weight is None else ~read | got.constant
    wanted: list[tuple[Tensor | None, Tensor]] = [
        (module.weight, torch.zeros(len(read))),
        (module.bias, got.low.masked_fill(~read | ~got.constant, 0)),
        (module.running_mean, torch.zeros(len(read))),
        (module.running_var, torch.ones(len(read))),
    ]
    changed = False
    for tensor, values in wanted:
        if tensor is not None:
            after = torch.where(settled.to(tensor.device), values.to(tensor), tensor)
            changed |= not torch.equal(after, tensor)
            tensor.copy_(after)
    return changed
