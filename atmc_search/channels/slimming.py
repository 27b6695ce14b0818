"""The model without its dead channels, as a graph of smaller layers.

A channel lives in several tensors at once: a ReLU's output is its input's, both summands of a residual are the sum's.
Those that belong together go together, and only if none of them is read (as in DepGraph, Fang et al., CVPR 2023, whose
groups are whole layers; here they are single channels).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from atmc_search.channels.folding import channels_read, folded
from atmc_search.channels.operations import Affine, Norm, Operation, Passing, operation
from atmc_search.channels.trace import Trace, traced


@torch.no_grad()
def slimmed(model: nn.Module, input_shape: tuple[int, int, int], *, multiple: int = 1) -> nn.Module:
    """The folded model without its unused channels: the same logits by fewer multiplications.

    Every layer keeps a channel at least. Channels of grouped convolutions that are not depthwise, and all that an
    unknown operation reads or gives, stay.

    Args:
        model: on images (n, channels, height, width); is not changed.
        input_shape: (channels, height, width).
        multiple: what the outputs of a convolution are filled up to with dead channels, as far as there are: runtimes
            compute blocks of 8 or 16 channels, and others by slower kernels.

    Returns:
        a `torch.fx.GraphModule` in eval mode; where no channel goes, what `folded` gives.
    """
    whole = folded(model, input_shape)
    thin = copy.deepcopy(whole)
    trace = traced(thin, input_shape)
    if trace is None:
        return whole
    operations = {node: operation(node, trace) for node in trace.nodes}
    kept = _kept(trace, operations, multiple)
    if all(keep.all() for keep in kept.values()):
        return whole
    for node, op in operations.items():
        if isinstance(op, Affine):
            _thin_affine(op, kept[op.source], kept[node])
        elif isinstance(op, Norm):
            _thin_norm(op.module, kept[node])
        elif isinstance(op, Passing) and op.flattens and not kept[node].all():
            _flatten(node, op)
    trace.graph_module.recompile()
    return trace.graph_module.eval()


def _kept(trace: Trace, operations: Mapping[fx.Node, Operation], multiple: int) -> dict[fx.Node, Tensor]:
    """Of each node with channels, (channels,) bool: which stay."""
    channels = _Channels()
    numbers: dict[fx.Node, Tensor] = {}
    pinned: list[Tensor] = []
    for node in trace.nodes:
        op = operations[node]
        if isinstance(op, Norm) or (isinstance(op, Affine) and op.depthwise):
            numbers[node] = numbers[op.source]
        elif isinstance(op, Passing):
            numbers[node] = torch.full((trace.shapes[node][0],), -1)
            for source, taken in op.sources:
                here = taken >= 0
                theirs, ours = numbers[source][taken[here]], numbers[node][here]
                channels.join(ours[ours >= 0], theirs[ours >= 0])
                numbers[node][here] = torch.where(ours >= 0, ours, theirs)
            pinned += [numbers[node]] if op.whole else []
        elif node in trace.shapes:
            numbers[node] = channels.new(trace.shapes[node][0])
        if isinstance(op, Affine) and op.groups > 1 and not op.depthwise:
            pinned += [numbers[op.source], numbers[node]]
        elif not isinstance(op, Affine | Norm | Passing):
            pinned += [numbers[other] for other in (node, *op.sources) if other in numbers]
    roots = channels.roots()
    alive = torch.zeros(len(roots), dtype=torch.bool)
    for fixed in pinned:
        alive[roots[fixed]] = True
    for node, read in channels_read(trace, operations).items():
        alive[roots[numbers[node][read]]] = True
    for own in numbers.values():
        if len(own) and not alive[roots[own]].any():
            alive[roots[own[0]]] = True  # no layer without channels
    for node, op in operations.items():
        if isinstance(op, Affine) and not isinstance(op.module, nn.Linear):
            own = roots[numbers[node]]
            dead = own[~alive[own]]
            alive[dead[: -int(alive[own].sum()) % multiple]] = True
    return {node: alive[roots[own]] for node, own in numbers.items()}


class _Channels:
    """Numbered channels, and which of them are one (union-find)."""

    def __init__(self) -> None:
        self._parents: list[int] = []

    def new(self, count: int) -> Tensor:
        start = len(self._parents)
        self._parents += range(start, start + count)
        return torch.arange(start, start + count)

    def join(self, some: Tensor, others: Tensor) -> None:
        for one, other in zip(some.tolist(), others.tolist(), strict=True):
            self._parents[self._root(one)] = self._root(other)

    def roots(self) -> Tensor:
        """(channels,) one number for all that are one."""
        return torch.tensor([self._root(channel) for channel in range(len(self._parents))], dtype=torch.long)

    def _root(self, channel: int) -> int:
        while self._parents[channel] != channel:
            self._parents[channel] = self._parents[self._parents[channel]]
            channel = self._parents[channel]
        return channel


def _thin_affine(op: Affine, inputs: Tensor, outputs: Tensor) -> None:
    module = op.module
    module.weight = _taken(module.weight, outputs)
    if op.groups == 1:
        module.weight = _taken(module.weight, inputs, axis=1)
    if module.bias is not None:
        module.bias = _taken(module.bias, outputs)
    if isinstance(module, nn.Linear):
        module.in_features, module.out_features = int(inputs.sum()), int(outputs.sum())
    else:
        module.groups = int(inputs.sum()) if op.depthwise else module.groups
        module.in_channels, module.out_channels = int(inputs.sum()), int(outputs.sum())


def _thin_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, keep: Tensor) -> None:
    assert module.running_mean is not None
    assert module.running_var is not None
    module.num_features = int(keep.sum())
    if module.affine:
        module.weight, module.bias = _taken(module.weight, keep), _taken(module.bias, keep)
    module.running_mean = module.running_mean[keep.to(module.running_mean.device)]
    module.running_var = module.running_var[keep.to(module.running_var.device)]


def _taken(parameter: Tensor, keep: Tensor, axis: int = 0) -> nn.Parameter:
    taken = parameter.detach().index_select(axis, keep.nonzero().flatten().to(parameter.device))
    return nn.Parameter(taken, requires_grad=parameter.requires_grad)


def _flatten(node: fx.Node, op: Passing) -> None:
    """Flattens whatever is left, where the original may have named a number of features."""
    ((source, _),) = op.sources
    with node.graph.inserting_after(node):
        after = node.graph.call_function(torch.flatten, (source, 1))
    node.replace_all_uses_with(after)
    node.graph.erase_node(node)
