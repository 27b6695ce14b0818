"""A model as a graph of operations on tensors (n, channels, ...), by torch.fx; or none, where that cannot be had."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from atmc_search.channels.counting import blank_images

_UPDATES = (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.setitem)
_LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
_ARITHMETIC = (operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul, torch.div)


@dataclass(frozen=True)
class Trace:
    """A traced model.

    Attributes:
        graph_module: runs the graph; its layers are the model's own objects.
        shapes: of an image's share, (channels, ...), of every tensor whose first axis is the images.
        owned: names of the layers that are called once, without hooks, and share no tensor with anything else.
    """

    graph_module: fx.GraphModule
    shapes: Mapping[fx.Node, tuple[int, ...]]
    owned: frozenset[str]

    @property
    def nodes(self) -> Iterable[fx.Node]:
        return self.graph_module.graph.nodes


@torch.no_grad()
def traced(model: nn.Module, input_shape: tuple[int, int, int]) -> Trace | None:
    """The graph of a model in eval mode; None if torch.fx cannot trace it, or it writes into tensors read elsewhere.

    Args:
        model: on images (n, channels, height, width).
        input_shape: (channels, height, width).
    """
    try:
        graph_module = fx.symbolic_trace(model)
        of_two, of_three = (_Shapes.of(graph_module, blank_images(model, n, input_shape)) for n in (2, 3))
    except Exception:  # code of a user's may do anything
        return None
    nodes = graph_module.graph.nodes
    if not all(_updates_its_own(node, graph_module) for node in nodes):
        return None
    shapes = {
        node: shape[1:]
        for node, shape in of_two.items()
        if len(shape) > 1 and (shape[0], of_three[node]) == (2, (3, *shape[1:]))
    }
    return Trace(graph_module, shapes, _owned(graph_module))


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shapes of its tensors."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.found: dict[fx.Node, tuple[int, ...]] = {}

    @classmethod
    def of(cls, graph_module: fx.GraphModule, images: Tensor) -> dict[fx.Node, tuple[int, ...]]:
        interpreter = cls(graph_module)
        interpreter.run(images)
        return interpreter.found

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n] = tuple(value.shape)
        return value


def _owned(graph_module: fx.GraphModule) -> frozenset[str]:
    uses: Counter[int] = Counter()
    called: Counter[str] = Counter()
    memories: dict[str, list[int]] = {}
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            value = _attribute(graph_module, str(node.target))
            uses.update([_memory(value)] if isinstance(value, Tensor) else [])
        if node.op == "call_module":
            name = str(node.target)
            module = graph_module.get_submodule(name)
            memories[name] = [_memory(tensor) for tensor in (*module.parameters(), *module.buffers()) if tensor.numel()]
            uses.update(memories[name])
            called[name] += 1
            if module._forward_hooks or module._forward_pre_hooks:
                called[name] += 1  # a hook may read or change anything
    return frozenset(
        name for name in called if called[name] == 1 and all(uses[memory] == 1 for memory in memories[name])
    )


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _attribute(graph_module: fx.GraphModule, name: str) -> Any:
    found: Any = graph_module
    for part in name.split("."):
        found = getattr(found, part)
    return found


def attribute(trace: Trace, node: fx.Node) -> Tensor | None:
    """The tensor that a `get_attr` node stands for; None for any other node."""
    if node.op != "get_attr":
        return None
    found = _attribute(trace.graph_module, str(node.target))
    return found if isinstance(found, Tensor) else None


def _updates_its_own(node: fx.Node, graph_module: fx.GraphModule) -> bool:
    """Whether a node that writes into its argument writes where nobody else reads; the graph shows values alone."""
    if not _in_place(node, graph_module):
        return True
    written = [node.args[0]] if node.args and isinstance(node.args[0], fx.Node) else node.all_input_nodes
    while written:
        at = written.pop()
        if not isinstance(at, fx.Node) or len(at.users) > 1 or at.op == "get_attr":
            return False
        written += _shares_memory_of(at, graph_module)
    return True


def _in_place(node: fx.Node, graph_module: fx.GraphModule) -> bool:
    if node.op == "call_module":
        return bool(getattr(graph_module.get_submodule(str(node.target)), "inplace", False))
    if node.op not in ("call_function", "call_method"):
        return False
    name = str(getattr(node.target, "__name__", node.target))
    flagged = any(arg is True for arg in node.args) or node.kwargs.get("inplace") is True or "out" in node.kwargs
    return node.target in _UPDATES or (name.endswith("_") and not name.endswith("__")) or flagged


def _shares_memory_of(node: fx.Node, graph_module: fx.GraphModule) -> list[fx.Node]:
    """The arguments of which a node's value may be a view."""
    if _in_place(node, graph_module):
        return node.all_input_nodes[:1]
    fresh = node.op == "call_module" and isinstance(graph_module.get_submodule(str(node.target)), _LAYERS)
    if fresh or node.target in _ARITHMETIC:
        return []
    return node.all_input_nodes
