"""A compressed model as plain data: architecture by name, factor matrices, and all other tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from atmc_search.compress import FactorisedLayer, constrained_weights, effective_weight
from atmc_search.errors import ArtifactError
from atmc_search.models import build_model


@dataclass(frozen=True)
class Architecture:
    """What `build` needs: a model's name and arguments, the shape of an image, the number of classes."""

    name: str
    args: Mapping[str, Any]
    input_shape: tuple[int, int, int]
    classes: int

    def build(
        self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None, seed: int = 0
    ) -> nn.Module:
        """The model on [0, 1] images with fresh weights; normalisation defaults to the identity."""
        channels = self.input_shape[0]
        return build_model(
            self.name,
            self.args,
            input_shape=self.input_shape,
            classes=self.classes,
            mean=[0.0] * channels if mean is None else mean,
            std=[1.0] * channels if std is None else std,
            seed=seed,
        )


@dataclass(frozen=True)
class CompressedModel:
    """All that defines the deployed model.

    Attributes:
        architecture: how to build it.
        layers: the compressed layers in the model's order.
        weights: their factor matrices by name, zeros included, (rows, columns) float32 on the CPU.
        others: every other tensor of the state dict that inference needs: biases, norm parameters and statistics.
        meta: small JSON-able facts that travel along: threat model, provenance.
        order: names of the plain model's tensors, those of `layers` and of `others`, in the order of the file.
    """

    architecture: Architecture
    layers: tuple[FactorisedLayer, ...]
    weights: Mapping[str, Tensor]
    others: Mapping[str, Tensor]
    meta: Mapping[str, Any]
    order: tuple[str, ...]

    @property
    def size(self) -> int:
        """Values of the plain model's state."""
        dense = sum(layer.rows * layer.columns for layer in self.layers)
        return dense + sum(tensor.numel() for tensor in self.others.values())

    @classmethod
    def of(
        cls,
        model: nn.Module,
        layers: Sequence[FactorisedLayer],
        architecture: Architecture,
        weights: Mapping[str, Tensor] | None = None,
        others: Mapping[str, Tensor] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> CompressedModel:
        """Takes a (parametrised) model apart.

        Args:
            model: what `layers` were factorised in.
            layers: its compressed layers.
            architecture: how to build the plain model.
            weights: constrained tensors to deploy in place of the model's own (projected ones, say).
            others: likewise, the other tensors.
            meta: facts that travel along.
        """
        chosen: Mapping[str, Tensor] = constrained_weights(model, layers) if weights is None else weights
        matrices = {}
        for layer in layers:
            for name, shape in layer.factor_shapes.items():
                # Adding 0 turns -0.0 into 0.0, which is what a position that is not stored decodes to. And products
                # round by how their factors lie in memory: contiguous, as they are decoded.
                matrices[name] = chosen[name].detach().reshape(shape).float().cpu().contiguous() + 0.0
        rest = {
            name: tensor + 0.0 if tensor.is_floating_point() else tensor
            for name, tensor in (other_tensors(model, layers) if others is None else others).items()
        }
        return cls(architecture, tuple(layers), matrices, rest, dict(meta or {}), state_order(model, layers))

    def materialise(self) -> nn.Module:
        """The plain model in eval mode on the CPU, its weights W computed from the factors."""
        return self.fill(self.architecture.build())

    def fill(self, model: nn.Module) -> nn.Module:
        """`model`, fresh from `architecture.build`, with these weights and in eval mode."""
        state = model.state_dict()
        with torch.no_grad():
            for layer in self.layers:
                state[layer.weight].copy_(effective_weight(layer, self.weights))
            for name, tensor in self.others.items():
                state[name].copy_(tensor)
        return model.eval()


def refuse_unpackable(model: CompressedModel) -> None:
    """What no artifact can hold, refused before it is worked on: with NaN, nothing is ever equal to itself.

    Raises:
        ArtifactError: a factor holds NaN or infinity, another tensor NaN or complex numbers.
    """
    for name, tensor in {**model.weights, **model.others}.items():
        if tensor.is_complex():
            raise ArtifactError(f"tensor {name!r} is complex and cannot be packed; split it into two real ones")
        bad = tensor.isfinite().logical_not() if name in model.weights else tensor.isnan()  # infinity: in a mask
        if bad.any():
            what = "NaN or infinity" if name in model.weights else "NaN"
            raise ArtifactError(f"tensor {name!r} holds {what} and cannot be packed; the training diverged")


def other_tensors(model: nn.Module, layers: Sequence[FactorisedLayer]) -> dict[str, Tensor]:
    """The state that no constraint binds and inference needs, by its name in the plain model, on the CPU."""
    constrained = {layer.weight for layer in layers}
    found = {}
    for name, tensor in model.state_dict().items():
        # Batch norm counts its batches for cumulative averages only; eval mode never reads the count.
        if ".parametrizations." in f".{name}" or name in constrained or name.endswith("num_batches_tracked"):
            continue
        found[name] = tensor.detach().clone().cpu()
    return found


def state_order(model: nn.Module, layers: Sequence[FactorisedLayer]) -> tuple[str, ...]:
    """Names of the plain model's tensors that an artifact holds, as its state has them, a layer's weight first.

    A parametrised model has its weights elsewhere in its state than the plain one, but in the same module.
    """
    of_module = {layer.module: layer.weight for layer in layers}
    order: dict[str, None] = {}
    for name in model.state_dict():
        module = f".{name.rpartition('.')[0]}.".split(".parametrizations.")[0].strip(".")
        if module in of_module:
            order[of_module[module]] = None
        if ".parametrizations." not in f".{name}" and not name.endswith("num_batches_tracked"):
            order[name] = None
    return tuple(order)
