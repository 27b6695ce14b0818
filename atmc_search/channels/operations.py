"""What an operation of a graph does to channels: the tables of those that are understood.

To add an elementwise operation, list it in `_MONOTONE` or `_ELEMENTWISE`; one that takes each channel to itself by a
mean or maximum over positions, in `_POOLS`. Whatever is in no table reads all it is given and may give anything.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from atmc_search.channels.bounds import Bounds
from atmc_search.channels.trace import Trace, attribute


@dataclass(frozen=True)
class Affine:
    """A convolution or a linear layer that only this node uses.

    Attributes:
        name: of the layer.
        module: it.
        source: what it is given.
        inside: (taps,) bool, whether a tap of the kernel reads the image at every position of the output.
        outside: (taps,) bool, whether it reads padding at every position: its weights are without effect.
    """

    name: str
    module: nn.Conv2d | nn.Linear
    source: fx.Node
    inside: Tensor
    outside: Tensor

    @property
    def groups(self) -> int:
        return self.module.groups if isinstance(self.module, nn.Conv2d) else 1

    @property
    def depthwise(self) -> bool:
        module = self.module
        return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels == module.out_channels

    def matrix(self, tensor: Tensor) -> Tensor:
        """(groups, outputs, inputs, taps) view of a tensor of the weight's shape; outputs and inputs of one group."""
        return tensor.reshape(self.groups, len(tensor) // self.groups, tensor.shape[1], len(self.inside))


@dataclass(frozen=True)
class Norm:
    """A batch norm with running statistics that only this node uses."""

    name: str
    module: nn.BatchNorm1d | nn.BatchNorm2d
    source: fx.Node


@dataclass(frozen=True)
class Passing:
    """An operation in which an output channel depends on one channel of each source, and keeps a constant constant.

    Attributes:
        sources: each with the (outputs,) numbers of the channels that are read, -1 for none.
        bounds: of the output from those of each source's channels in that order.
        whole: whether it needs all channels, in number and order.
        flattens: whether the output is the input as (n, -1).
    """

    sources: tuple[tuple[fx.Node, Tensor], ...]
    bounds: Callable[[Sequence[Bounds]], Bounds]
    whole: bool = False
    flattens: bool = False


@dataclass(frozen=True)
class Opaque:
    """Anything else: it reads all channels of its sources, and what it gives is unknown."""

    sources: tuple[fx.Node, ...]


Operation: TypeAlias = Affine | Norm | Passing | Opaque

_KEEPING: Callable[[Sequence[Bounds]], Bounds] = operator.itemgetter(0)

_MONOTONE: tuple[Any, ...] = (
    *(nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardsigmoid),
    *(functional.relu, functional.relu6, functional.hardtanh, functional.sigmoid, functional.tanh),
    *(functional.softplus, functional.hardsigmoid, torch.relu, torch.relu_, torch.sigmoid, torch.tanh, torch.clamp),
    *("relu", "relu_", "sigmoid", "tanh", "clamp"),
)
"""Elementwise and never falling."""

_ELEMENTWISE: tuple[Any, ...] = (
    *(nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish, nn.Softsign, nn.LogSigmoid),
    *(functional.leaky_relu, functional.elu, functional.celu, functional.selu, functional.silu, functional.gelu),
    *(functional.mish, functional.hardswish, functional.softsign, functional.logsigmoid, torch.abs, torch.neg),
)
"""Elementwise."""

_POOLS: tuple[Any, ...] = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout),
    *(nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    *(functional.max_pool2d, functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d),
)
"""Each channel to itself: a mean or a maximum of its values (padded with -infinity), or they themselves."""

_DROPOUTS: tuple[Any, ...] = (functional.dropout, functional.dropout1d, functional.dropout2d)
_MEANS: tuple[Any, ...] = (torch.mean, "mean")
_RESHAPES: tuple[Any, ...] = (nn.Flatten, torch.flatten, torch.reshape, torch.squeeze)
_RESHAPING_METHODS = ("flatten", "reshape", "view", "squeeze")
_SUMS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_DIFFERENCES: tuple[Any, ...] = (operator.sub, operator.isub, torch.sub, "sub", "sub_")
_PRODUCTS: tuple[Any, ...] = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
_QUOTIENTS: tuple[Any, ...] = (operator.truediv, operator.itruediv, torch.div, "div", "div_")


def operation(node: fx.Node, trace: Trace) -> Operation:
    """What a node does to channels."""
    if node.op in ("call_module", "call_function", "call_method") and node in trace.shapes:
        try:
            found = _layer(node, trace) or _elementwise(node, trace) or _passing(node, trace) or _binary(node, trace)
        except Exception:  # arguments of a shape or type that a table did not expect
            found = None
        if found is not None:
            return found
    if node.target == "size" and node.args[1:] == (0,) and not node.kwargs:
        return Opaque(())  # the number of images
    return Opaque(tuple(node.all_input_nodes))


def _module(node: fx.Node, trace: Trace) -> nn.Module | None:
    """The layer in eval mode that a node calls on one tensor, if no hook has a part in it."""
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs or node.args[0] not in trace.shapes:
        return None
    module = trace.graph_module.get_submodule(str(node.target))
    return None if module.training or module._forward_hooks or module._forward_pre_hooks else module


def _kind(node: fx.Node, trace: Trace) -> Any:
    """What the tables know a node by: the exact type of a layer, since a subclass may do anything; else its target."""
    if node.op == "call_module":
        return type(_module(node, trace))
    return node.target


def _layer(node: fx.Node, trace: Trace) -> Affine | Norm | None:
    module, name = _module(node, trace), str(node.target)
    if module is None or name not in trace.owned:
        return None
    source = node.args[0]
    assert isinstance(source, fx.Node)
    given, got = trace.shapes[source], trace.shapes[node]
    if type(module) is nn.Linear and len(given) == 1:
        return Affine(name, module, source, torch.tensor([True]), torch.tensor([False]))
    if type(module) is nn.Conv2d and len(given) == 3:
        return Affine(name, module, source, *_taps(module, given, got))
    if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
        assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        return Norm(name, module, source) if module.running_mean is not None else None
    return None


def _taps(module: nn.Conv2d, given: Sequence[int], got: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Which taps of a kernel read the image at every position, and which padding at every position."""
    inside, outside = torch.tensor([True]), torch.tensor([False])
    for axis, size in enumerate(module.kernel_size):
        reach = torch.arange(size) * module.dilation[axis]
        if isinstance(module.padding, str):
            before = (size - 1) * module.dilation[axis] // 2 if module.padding == "same" else 0
        else:
            before = module.padding[axis]
        at = torch.arange(got[axis + 1])[:, None] * module.stride[axis] + reach - before
        within = (at >= 0) & (at < given[axis + 1])
        if module.padding_mode != "zeros":
            within = torch.ones_like(within)
        # A tap of a 2-D kernel is inside if it is so along both axes, outside if along one.
        inside = (inside[:, None] & within.all(0)).flatten()
        outside = (outside[:, None] | ~within.any(0)).flatten()
    return inside, outside


def _elementwise(node: fx.Node, trace: Trace) -> Passing | None:
    kind = _kind(node, trace)
    if kind not in _MONOTONE and kind not in _ELEMENTWISE:
        return None
    source = node.args[0]
    if not isinstance(source, fx.Node) or node.all_input_nodes != [source]:
        return None
    if trace.shapes[source] != trace.shapes[node]:
        return None
    others, kwargs = node.args[1:], node.kwargs
    module = _module(node, trace)

    def run(values: Tensor) -> Tensor:
        values = values.clone()  # it may be in place
        called: Any = module if module is not None else node.target
        found: Tensor = (
            getattr(values, called)(*others, **kwargs) if isinstance(called, str) else called(values, *others, **kwargs)
        )
        return found

    def bounds(given: Sequence[Bounds]) -> Bounds:
        (only,) = given
        found = Bounds.of(run(only.low), run(only.high))
        if kind in _MONOTONE:
            return found
        unknown = Bounds.unknown(len(found.low))
        return Bounds(
            torch.where(only.constant, found.low, unknown.low), torch.where(only.constant, found.low, unknown.high)
        )

    return Passing(((source, _all(trace, node)),), bounds)


def _passing(node: fx.Node, trace: Trace) -> Passing | None:
    kind = _kind(node, trace)
    if kind is torch.cat:
        return _concatenation(node, trace)
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or source not in trace.shapes:
        return None
    given, got = trace.shapes[source], trace.shapes[node]
    same = ((source, _all(trace, node)),)
    module = _module(node, trace)
    if kind in _DROPOUTS and node.kwargs.get("training") is False:
        return Passing(same, _KEEPING)
    if kind is nn.AvgPool2d or kind is functional.avg_pool2d:
        return Passing(same, _average(node, module))
    if kind in _POOLS:
        return Passing(same, _KEEPING)
    if kind in _MEANS and len(given) == 3 and _axes(node) == {2, 3}:
        return Passing(same, _KEEPING)
    if kind == "contiguous":
        return Passing(same, _KEEPING)
    reshapes = kind in _RESHAPES or (node.op == "call_method" and kind in _RESHAPING_METHODS)
    if reshapes and len(got) == 1:
        each = got[0] // given[0]
        return Passing(((source, torch.arange(given[0]).repeat_interleave(each)),), _KEEPING, flattens=True)
    # It may name the number of channels, or drop the axis of a single one.
    return Passing(same, _KEEPING, whole=True) if reshapes and given == got else None


def _axes(node: fx.Node) -> set[int]:
    """Of a tensor (n, channels, height, width), those that a mean is taken over."""
    axes: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    return {axis % 4 for axis in ([axes] if isinstance(axes, int) else axes or [])}


def _average(node: fx.Node, module: nn.Module | None) -> Callable[[Sequence[Bounds]], Bounds]:
    """Padding counts as zeros in an average."""
    if isinstance(module, nn.AvgPool2d):
        plain = module.padding in (0, (0, 0)) and module.divisor_override is None
    else:
        plain = len(node.args) < 4 and node.kwargs.keys() <= {"kernel_size", "stride", "ceil_mode"}
    return _KEEPING if plain else lambda given: _zero_or_unknown(given[0])


def _zero_or_unknown(given: Bounds) -> Bounds:
    """A sum of a channel's values with any weights: of zeros it is zero."""
    zero, unknown = given.constant & (given.low == 0), Bounds.unknown(len(given.low))
    return Bounds(unknown.low.masked_fill(zero, 0), unknown.high.masked_fill(zero, 0))


def _concatenation(node: fx.Node, trace: Trace) -> Passing | None:
    parts = node.args[0]
    along = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    if along != 1 or not isinstance(parts, list | tuple):
        return None
    total, start = trace.shapes[node][0], 0
    sources = []
    for part in parts:
        if not isinstance(part, fx.Node) or len(trace.shapes[part]) != len(trace.shapes[node]):
            return None
        channels = torch.full((total,), -1)
        extent = trace.shapes[part][0]
        channels[start : start + extent] = torch.arange(extent)
        sources.append((part, channels))
        start += extent

    def bounds(given: Sequence[Bounds]) -> Bounds:
        low, high = torch.empty(total).double(), torch.empty(total).double()
        for part, (_, channels) in zip(given, sources, strict=True):
            low[channels >= 0], high[channels >= 0] = part.low[channels >= 0], part.high[channels >= 0]
        return Bounds(low, high)

    return Passing(tuple(sources), bounds)


def _binary(node: fx.Node, trace: Trace) -> Passing | None:
    kind = node.target
    tables = (_SUMS, _DIFFERENCES, _PRODUCTS, _QUOTIENTS)
    if node.op == "call_module" or node.kwargs or len(node.args) != 2 or not any(kind in table for table in tables):
        return None
    whole = False
    operands: list[Bounds | None] = []
    for arg in node.args:
        if isinstance(arg, fx.Node) and arg in trace.shapes:
            if len(trace.shapes[arg]) != len(trace.shapes[node]) or trace.shapes[arg][0] != trace.shapes[node][0]:
                return None
            operands.append(None)
        else:
            value = attribute(trace, arg) if isinstance(arg, fx.Node) else arg
            each = _of_each_channel(value, trace.shapes[node])
            if each is None:
                return None
            whole = whole or isinstance(value, Tensor)
            operands.append(each)
    if kind in _QUOTIENTS and (operands[1] is None or bool((operands[1].low == 0).any())):
        return None
    nodes = [arg for arg, fixed in zip(node.args, operands, strict=True) if fixed is None]

    def bounds(given: Sequence[Bounds]) -> Bounds:
        left = iter(given)
        a, b = (next(left) if fixed is None else fixed for fixed in operands)
        if kind in _SUMS:
            return Bounds.of(a.low + b.low, a.high + b.high)
        if kind in _DIFFERENCES:
            return Bounds.of(a.low - b.high, a.high - b.low)
        if kind in _PRODUCTS:
            ends = torch.stack([x * y for x in (a.low, a.high) for y in (b.low, b.high)])
            ends = ends.nan_to_num(0.0, float("inf"), -float("inf"))
        else:
            ends = torch.stack([a.low / b.low, a.high / b.low])
        return Bounds.of(ends.amin(0), ends.amax(0))

    sources = tuple((source, _all(trace, node)) for source in nodes if isinstance(source, fx.Node))
    return Passing(sources, bounds, whole=whole)


def _of_each_channel(value: object, shape: Sequence[int]) -> Bounds | None:
    """A number, or a tensor that has one for each channel, as bounds of (channels,)."""
    if isinstance(value, Tensor):
        extents = [1] * (len(shape) + 1 - value.ndim) + list(value.shape)
        if len(extents) != len(shape) + 1 or extents[1] not in (1, shape[0]) or value.numel() != extents[1]:
            return None
        values = value.detach().double().cpu().flatten().expand(shape[0])
    elif isinstance(value, int | float):
        values = torch.full((shape[0],), float(value)).double()
    else:
        return None
    return Bounds(values, values) if values.isfinite().all() else None


def _all(trace: Trace, node: fx.Node) -> Tensor:
    return torch.arange(trace.shapes[node][0])
