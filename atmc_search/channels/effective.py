"""Which weights can have an effect, given which are zero: the graph is traced once, and asked at every training step.

Folding without its interval arithmetic, which costs ten times as much. A channel is constant if all its weights on
varying inputs are 0; it is unused if all weights that read it are 0. What no zero shows is missed, such as a ReLU of a
sum of non-positive terms.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from atmc_search.channels.bounds import Bounds, of_norm
from atmc_search.channels.folding import absorber_of, channels_read, fold_constants, foldable
from atmc_search.channels.operations import Affine, Norm, Operation, Passing, operation
from atmc_search.channels.trace import Trace, traced


@dataclass(frozen=True, eq=False)
class EffectiveEntries:
    """Tells for each weight of a model whether it would have an effect, given which of the others are zero.

    Attributes:
        model: whose biases and norm parameters count, as they are when asked.
        copied: the same on the CPU in eval mode, to try weights in.
        trace: of `copied`; None if it cannot be had, and then every weight counts as effective.
        operations: of its nodes.
    """

    model: nn.Module
    copied: nn.Module
    trace: Trace | None
    operations: Mapping[fx.Node, Operation]

    @classmethod
    def of(cls, model: nn.Module, input_shape: tuple[int, int, int]) -> EffectiveEntries:
        """For a plain model (without parametrisations) on images of (channels, height, width)."""
        copied = copy.deepcopy(model).cpu().eval()
        trace = traced(copied, input_shape)
        return cls(
            model, copied, trace, {} if trace is None else {node: operation(node, trace) for node in trace.nodes}
        )

    @torch.no_grad()
    def __call__(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The effective entries, zero or not, in a model whose weights by these names are these.

        Returns:
            by name, bool of the weight's shape on its device: true where the entry reads a channel that effective
            weights make vary with the image, and makes one that effective weights read, or where this cannot be known.
        """
        effective = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        if self.trace is None:
            return effective
        own = self.copied.state_dict()
        for name, tensor in self.model.state_dict().items():
            own[name].copy_(weights[name].view_as(tensor) if name in weights else tensor)
        self._fold_constants()
        read = channels_read(self.trace, self.operations)
        for node, op in self.operations.items():
            if isinstance(op, Affine):
                op.module.weight[~read[node]] = 0
        # A second time, since channels that unread weights made vary no more. What is read stays so: nothing that is
        # unread made it vary.
        for node, gone in self._fold_constants().items():
            op = self.operations[node]
            assert isinstance(op, Affine)
            name = f"{op.name}.weight"
            if name in effective:
                outputs = read[node].view(op.groups, -1, 1, 1)
                entries = (outputs & ~gone).expand(op.matrix(op.module.weight).shape)
                effective[name] = entries.reshape(weights[name].shape).to(weights[name].device)
        return effective

    def _fold_constants(self) -> dict[fx.Node, Tensor]:
        """Of each layer, what is `foldable` in it; it is zeroed."""
        assert self.trace is not None
        bounds: dict[fx.Node, Bounds] = {}
        gone: dict[fx.Node, Tensor] = {}
        for node in self.trace.nodes:
            op = self.operations[node]
            if isinstance(op, Affine):
                absorber = absorber_of(node, op, self.operations)
                gone[node] = foldable(op, bounds[op.source], absorber)
                fold_constants(op, bounds[op.source], absorber, {})
                bounds[node] = _of_affine(op)
            elif isinstance(op, Norm):
                bounds[node] = of_norm(op.module, bounds[op.source])
            elif isinstance(op, Passing):
                bounds[node] = op.bounds([bounds[source][channels] for source, channels in op.sources])
            elif node in self.trace.shapes:
                bounds[node] = Bounds.unknown(self.trace.shapes[node][0])
        return gone


def _of_affine(op: Affine) -> Bounds:
    """The bias where every weight is zero, once constants are folded; anything elsewhere."""
    rows = (op.module.weight != 0).flatten(1).any(1)
    bias = torch.zeros(len(rows)) if op.module.bias is None else op.module.bias.detach().double()
    return Bounds(bias.masked_fill(rows, -torch.inf).double(), bias.masked_fill(rows, torch.inf).double())
