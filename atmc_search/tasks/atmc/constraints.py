"""What a trial's `compress` section and method mean for its weights: which pruning, which ranks, which codebooks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from atmc_search.artifact import encoded_bytes, mixed_bits
from atmc_search.channels import EffectiveEntries
from atmc_search.compress import (
    Codebook,
    Constraint,
    CubicSchedule,
    FactorisedLayer,
    GlobalL0,
    GrowSchedule,
    LampBudget,
    LiveBudget,
    RateBudget,
    Weights,
    factorisable,
    layers_to_compress,
    ranks_by_budget,
    ranks_by_energy,
    spectra,
)
from atmc_search.errors import SpecError, TrialFailed
from atmc_search.tasks.atmc.model_facts import ModelFacts
from atmc_search.tasks.atmc.spec import AtmcSpec, CompressSpec
from atmc_search.training import Quotas, ScoreSearch, largest_of_all, largest_of_each

_HEADER_BYTES = 400
"""About the most that the facts of a trial add to a header."""


def l0_budget(settings: CompressSpec, dense_weights: int) -> int:
    """k = keep × dense weights, whatever the factors; all of them where bytes are to say how many."""
    if settings.keep is None:
        return dense_weights
    return round(settings.keep * dense_weights)


def check_bytes(settings: CompressSpec, known: ModelFacts) -> None:
    """That a budget of bytes in place of `keep` pays for a weight, and for fewer than all of them.

    Raises:
        SpecError: it does not.
    """
    budget, bits = settings.budget_bytes, min(settings.bits, 8)
    assert budget is not None
    if budget <= known.least_bytes:
        raise SpecError(
            f"trial.compress.budget_bytes = {budget}: impossible, with every weight zero the artifact has "
            f"{known.least_bytes} bytes, and a weight takes one more; raise it"
        )
    # At most: codes of fixed length, and all other values, of which fp16 takes half.
    others = known.dense_bytes // 4 - known.weights
    dense = known.least_bytes + _HEADER_BYTES + bits * known.weights // 8 + 2 * others
    if budget >= dense:
        raise SpecError(
            f"trial.compress.budget_bytes = {budget}: pays for all {known.weights} weights at {bits} bits, about "
            f"{dense} bytes, so that there is nothing to prune; lower it, or write keep: 1 and bits: {bits}"
        )


def budget_of(
    settings: CompressSpec, model: nn.Module, layers: Sequence[FactorisedLayer], input_shape: tuple[int, int, int]
) -> Callable[[int], Constraint[None]]:
    """What projects onto at most so many non-zeros.

    Args:
        settings: of the trial.
        model: in training, on images of (channels, height, width).
        layers: its compressed layers.
        input_shape: that shape.
    """
    budget: Callable[[int], Constraint[None]] = GlobalL0
    if settings.by_lamp:
        budget = functools.partial(LampBudget, layers=layer_names(layers))
    if settings.price == "bytes":
        unknown = settings.bits == 32 and settings.sized_in_bytes  # then bytes choose the bits, later: about so many
        budget = functools.partial(RateBudget, code_bits=4 if unknown else settings.bits)
    if settings.count == "all":
        return budget
    effective = EffectiveEntries.of(model, input_shape)
    return lambda k: LiveBudget(budget(k), effective)


def layer_names(layers: Sequence[FactorisedLayer]) -> dict[str, str]:
    """The layer's weight by the names of its factors."""
    return {name: layer.weight for layer in layers for name in layer.factor_shapes}


def search_of(spec: AtmcSpec, weights: Weights, budget: Constraint[None], k: int) -> ScoreSearch:
    """The search for a support by scores, from the dense weights.

    Args:
        spec: of the trial.
        weights: as training starts, dense.
        budget: projects onto k non-zeros.
        k: the ℓ0 budget.
    """
    settings, quotas = spec.compress.scores, None
    if spec.compress.pruning == "harp":
        of = spec.compress.quotas
        quotas = Quotas.of(weights, k, start=of.start, gamma=of.gamma, lr=of.lr, momentum=spec.train.momentum)
    of_each = functools.partial(largest_of_each, k=k)
    choose = of_each if settings.budget == "layer" else largest_of_all(budget)
    return ScoreSearch.of(
        weights, choose, share=settings.share, lr=settings.lr, momentum=spec.train.momentum, quotas=quotas
    )


def schedule_of(settings: CompressSpec, weights: Weights, dense_weights: int) -> CubicSchedule | None:
    """The schedule of the ℓ0 budget for these weights; None where it is the same in all of training."""
    if settings.schedule is None or settings.schedule.name != "cubic":
        return None
    return CubicSchedule(
        entries=sum(tensor.numel() for tensor in weights.values()),
        k=l0_budget(settings, dense_weights),
        begin=settings.schedule.begin,
        end=settings.schedule.end,
        freeze=settings.schedule.freeze,
    )


def grow_of(settings: CompressSpec) -> GrowSchedule | None:
    """The exchange of non-zeros; None where there is none."""
    schedule = settings.schedule
    if schedule is None or schedule.name != "grow":
        return None
    return GrowSchedule(schedule.every, schedule.share, schedule.begin, schedule.end)


def low_ranks(model: nn.Module, settings: CompressSpec, overhead_bytes: int) -> dict[str, int]:
    """The rank of each layer of the low-rank form by its weight's name, from the dense weights; 0: stored whole.

    Ranks go to the directions with the most energy for their cost, over all layers together: until `budget_bytes`
    or, without it, keep × dense weights are spent; with `energy`, to the largest singular values that hold that share.
    No layer falls below rank 1: a `keep` that pays less is exceeded.

    Args:
        model: the dense start.
        settings: of the trial.
        overhead_bytes: what the artifact takes beside these weights.

    Raises:
        TrialFailed: `budget_bytes` does not pay for rank 1 everywhere.
    """
    layers = layers_to_compress(model)
    tensors = dict(model.named_parameters())
    matrices = [layer for layer in layers if factorisable(model, layer)]
    values = spectra(matrices, tensors)
    if settings.energy is not None:
        fewest = ranks_by_energy(values, settings.energy)
        return {layer.weight: _if_it_pays(layer, fewest[layer.weight]) for layer in matrices}
    whole = sum(layer.rows * layer.columns for layer in layers if layer not in matrices)
    if settings.budget_bytes is None:
        keep = l0_budget(settings, whole + sum(layer.rows * layer.columns for layer in matrices))
        ranks = ranks_by_budget(matrices, values, budget=keep - whole, value_cost=1)
        return {layer.weight: 1 for layer in matrices} if ranks is None else ranks
    # Codes of fixed length and a codebook at 2 bytes a value; or floats, at what the dense weights take packed and
    # 1.5 % more, as trained factors differ. Lengths and modes, by the most they take.
    value_bytes, tensor_bytes = settings.bits / 8, 32 + 2 * 2**settings.bits
    if settings.bits == 32:
        dense = {layer.weight: tensors[layer.weight] for layer in layers}
        value_bytes = 1.015 * encoded_bytes(dense, layers) / sum(tensor.numel() for tensor in dense.values())
        tensor_bytes = 64
    left = settings.budget_bytes - overhead_bytes - whole * value_bytes
    ranks = ranks_by_budget(matrices, values, budget=left, value_cost=value_bytes, layer_cost=tensor_bytes)
    if ranks is None:
        raise TrialFailed(
            f"budget_bytes = {settings.budget_bytes}: does not pay for rank 1 in each of {len(matrices)} layers at "
            f"{settings.bits} bits; raise it or lower trial.compress.bits"
        )
    return ranks


def _if_it_pays(layer: FactorisedLayer, rank: int) -> int:
    """`rank`, or 0 where the layer itself has no more entries than its factors."""
    return rank if rank * (layer.rows + layer.columns) < layer.rows * layer.columns else 0


def codebook_for(
    weights: Weights,
    layers: Sequence[FactorisedLayer],
    settings: CompressSpec,
    *,
    overhead_bytes: Callable[[], int],
    centres: Mapping[str, Tensor] | None = None,
    seed: int,
) -> Codebook:
    """The codebook constraint for pruned weights: `bits` everywhere, or mixed.

    Args:
        weights: as ADMM sets in, or as they are deployed.
        layers: that they belong to.
        settings: of the trial, bits 1 to 8.
        overhead_bytes: counts what the artifact takes beside these weights; called where there is a budget of bytes.
        centres: ADMM's, by weight name, where it has set in.
        seed: of the k-means++ starts.

    Raises:
        TrialFailed: `budget_bytes` does not even pay for codebooks of 1 bit.
    """
    if settings.bit_allocation == "uniform":
        return Codebook(settings.bits, seed=seed, price=settings.code_price)
    budget = None if settings.budget_bytes is None else settings.budget_bytes - overhead_bytes()
    bits = mixed_bits(
        weights,
        layers,
        uniform=settings.bits if budget is None else None,
        budget_bytes=budget,
        floats=settings.floats,
        seed=seed,
        centres=centres,
        price=settings.code_price,
    )
    if bits is None:
        raise TrialFailed(
            f"budget_bytes = {settings.budget_bytes}: the weights kept do not fit even at 1 bit each; raise it or "
            "lower trial.compress.keep"
        )
    return Codebook(bits, seed=seed, price=settings.code_price)
