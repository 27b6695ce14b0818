"""What a trial in training is, as tensors and plain facts, so that another process goes on to the bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from atmc_search.compress import Codebook
from atmc_search.training import AdmmState, Constrained, StraightThroughState, WeightAverage

State = tuple[dict[str, Tensor], dict[str, Any]]


class Controller(Protocol):
    """What moves the constraints of a trial as it goes: a target, a budget of bytes."""

    def state(self) -> State: ...

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None: ...


def training_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    constrained: Constrained,
    average: WeightAverage | None,
    controllers: Sequence[Controller | None],
) -> State:
    """Weights, momentum, codebooks, scores, averages and controllers, by path: part, then name."""
    parts: dict[str, Mapping[str, Tensor]] = {"model": model.state_dict(), "momentum": _momentum(model, optimizer)}
    facts: dict[str, Any] = {}
    admm, codes, search = constrained.admm, constrained.codes, constrained.search
    if admm is not None:
        parts |= {"copies": admm.copies, "duals": admm.duals}
    if codes is not None:
        parts["centres"] = codes.centres
        facts["bits"] = codes.codebook.bits if isinstance(codes.codebook.bits, int) else dict(codes.codebook.bits)
    if constrained.straight_through is not None:
        parts["edges"] = constrained.straight_through.edges
    if search is not None:
        parts |= {"scores": search.scores, "velocities": search.velocities}
        if search.quotas is not None:
            parts["quotas"], facts["quotas"] = search.quotas.state()
    if average is not None:
        parts["average"] = average.tensors
        facts["averaged_steps"] = average.steps
    for controller in controllers:
        if controller is not None:
            name = type(controller).__name__
            parts[name], facts[name] = controller.state()
    return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}, facts


def restore_training(
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    constrained: Constrained,
    average: WeightAverage | None,
    controllers: Sequence[Controller | None],
    *,
    seed: int,
) -> None:
    """Puts back what `training_state` gave, on the device that `tensors` are on; `seed` is of the codebooks."""
    parts: dict[str, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        part, _, name = path.partition("/")
        parts.setdefault(part, {})[name] = tensor.clone()
    model.load_state_dict(parts["model"])
    for name, parameter in model.named_parameters():
        optimizer.state[parameter].pop("momentum_buffer", None)
        if name in parts.get("momentum", {}):
            optimizer.state[parameter]["momentum_buffer"] = parts["momentum"][name]
    constrained.admm = constrained.straight_through = None
    if "bits" in facts:
        centres = {name: tensor.cpu() for name, tensor in parts.get("centres", {}).items()}
        codebook = Codebook(facts["bits"], seed=seed, price=constrained.settings.code_price)
        edges = {name: tensor.cpu() for name, tensor in parts.get("edges", {}).items()}
        if "copies" in parts:
            constrained.admm = AdmmState(codebook, parts["copies"], parts["duals"], centres)
        else:
            constrained.straight_through = StraightThroughState(codebook, centres, edges)
    if "scores" not in parts:
        constrained.search = None  # over
    elif constrained.search is not None:
        constrained.search.scores, constrained.search.velocities = parts["scores"], parts["velocities"]
        if constrained.search.quotas is not None:
            constrained.search.quotas.load(parts["quotas"], facts["quotas"])
    if average is not None:
        average.load(parts["average"], facts["averaged_steps"])
    for controller in controllers:
        if controller is not None:
            name = type(controller).__name__
            controller.load(parts.get(name, {}), facts[name])


def _momentum(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    found = {name: optimizer.state[parameter].get("momentum_buffer") for name, parameter in model.named_parameters()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}
