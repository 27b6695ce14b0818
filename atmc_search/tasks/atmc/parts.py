"""Where a spec becomes the parts of its training. To add a constraint: a file in `training.parts`, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from atmc_search.compress import Codebook, Constraint, FactorisedLayer, FixedSupport, Weights, constrained_weights
from atmc_search.tasks.atmc.byte_budget import ByteBudget
from atmc_search.tasks.atmc.byte_files import CodeBits
from atmc_search.tasks.atmc.constraints import budget_of, grow_of, l0_budget, schedule_of, search_of
from atmc_search.tasks.atmc.deploy import Deployer
from atmc_search.tasks.atmc.model_facts import dense_weights
from atmc_search.tasks.atmc.packer import AsTrained, Packer
from atmc_search.tasks.atmc.spec import AtmcSpec, CompressSpec
from atmc_search.tasks.atmc.target import TargetControl
from atmc_search.training import AttackedBatches
from atmc_search.training.parts import (
    Admm,
    Average,
    Codes,
    Distillation,
    Fixed,
    Grown,
    Part,
    Projected,
    Scored,
    StraightThrough,
    Support,
)


@dataclass(frozen=True)
class TrialParts:
    """The parts of a trial's training, and those of them that somebody asks for by name.

    Attributes:
        support: which weights stay.
        packer: makes the file.
        target: the accuracy to hold; None: the spec names none.
        ordered: all of them, in the order that a step calls them in.
    """

    support: Support
    packer: Packer
    target: TargetControl | None
    ordered: tuple[Part, ...]


def parts_of(
    spec: AtmcSpec,
    model: nn.Module,
    layers: Sequence[FactorisedLayer],
    *,
    deployer: Deployer,
    input_shape: tuple[int, int, int],
    batches: Callable[[], AttackedBatches],
    teacher: Callable[[], nn.Module],
) -> TrialParts:
    """Makes the parts, and moves the weights to where training starts.

    Args:
        spec: of the trial.
        model: the dense start in its factors, on the device of training.
        layers: its compressed layers.
        deployer: makes files of the model.
        input_shape: of its images.
        batches: gives training batches, attacked as training attacks now.
        teacher: gives the dense start, in eval mode on the device of training.

    Raises:
        TrialFailed: a budget of bytes is impossible for this start.
    """
    settings, weights, dense = spec.compress, constrained_weights(model, layers), dense_weights(layers)
    averaged, taught = spec.train.ema, spec.train.distillation
    support = support_of(spec, weights, dense, budget_of(settings, model, layers, input_shape))
    packer: Packer
    codes: Codes | None
    if settings.sized_in_bytes:
        assert isinstance(support, Projected)
        bits = CodeBits(seed=spec.seed, price=settings.code_price)
        codes = codes_of(settings, support, bits.codebook)
        packer = size = ByteBudget(deployer, support, codes, bits, batches)
        size.start()
    else:
        codes = codes_of(settings, support, deployer.codebook) if settings.quantised else None
        packer, size = AsTrained(deployer, support, codes, batches, averaged=averaged is not None), None
    target = None
    if settings.target is not None:
        assert isinstance(support, Projected)
        target = TargetControl(settings.target, support, dense, len(layers))
        target.start()
    listed: list[Part | None] = [
        support,
        codes,
        None if averaged is None else Average(model, averaged),
        None if taught is None else Distillation(teacher(), taught.weight, taught.temperature),
        size,
        target,
    ]
    ordered = tuple(part for part in listed if part is not None)
    for part in ordered:
        part.begin()
    return TrialParts(support, packer, target, ordered)


def support_of(
    spec: AtmcSpec,
    weights: dict[str, nn.Parameter],
    dense_weights: int,
    budget: Callable[[int], Constraint[None]],
) -> Support:
    """How the trial finds the weights that stay.

    Args:
        spec: of the trial.
        weights: as training starts, dense; a support that is fixed before training is that of their largest.
        dense_weights: of the plain model.
        budget: projects onto so many non-zeros (`budget_of`).
    """
    settings = spec.compress
    k = l0_budget(settings, dense_weights)
    match settings.pruning:
        case "none":
            return Fixed(weights, None)
        case "one_shot":
            return Fixed(weights, FixedSupport.of(budget(k).project(weights, None)[0]))
        case "hydra" | "harp":
            return Scored(weights, search_of(spec, weights, budget(k), k), budget(k))
        case "projected":
            grow = grow_of(settings)
            if grow is not None:
                return Grown(weights, budget(k), grow)
            return Projected(weights, k, budget, schedule_of(settings, weights, dense_weights))


def codes_of(settings: CompressSpec, support: Support, codebook_of: Callable[[Weights], Codebook]) -> Codes:
    """How the weights of the support go to codebooks."""
    sets_in, every = settings.codebook_from, settings.dual_every
    match settings.codebook:
        case "admm":
            return Admm(support, codebook_of, sets_in=sets_in, every=every, rho=settings.rho)
        case "straight_through":
            return StraightThrough(support, codebook_of, sets_in=sets_in, every=every)
