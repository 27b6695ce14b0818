"""What a trial's `compress` section and method mean for its weights: which pruning, which ranks, which codebooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from atmc_search.artifact import encoded_bytes, mixed_bits
from atmc_search.compress import (
    Codebook,
    Constraint,
    CubicSchedule,
    FactorisedLayer,
    FixedSupport,
    GlobalL0,
    Weights,
    factorisable,
    layers_to_compress,
    ranks_by_budget,
    ranks_by_energy,
    spectra,
)
from atmc_search.errors import SpecError, TrialFailed
from atmc_search.spec import CompressSpec
from atmc_search.tasks.outline import Outline

_HEADER_BYTES = 400
"""About the most that the facts of a trial add to a header."""


def l0_budget(settings: CompressSpec, dense_weights: int) -> int:
    """k = keep × dense weights, whatever the factors; all of them where bytes are to say how many."""
    if settings.keep is None:
        return dense_weights
    return round(settings.keep * dense_weights)


def check_bytes(settings: CompressSpec, known: Outline) -> None:
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


def pruning_of(settings: CompressSpec, weights: Weights, dense_weights: int) -> Constraint[None] | None:
    """What the weights are projected onto after every step; None where nothing is pruned.

    Args:
        settings: of the trial.
        weights: as training starts, dense; a support that is fixed before training is that of their largest.
        dense_weights: of the plain model.
    """
    if settings.pruning == "none":
        return None
    budget = GlobalL0(l0_budget(settings, dense_weights))
    if settings.pruning == "projected":
        return budget
    pruned, _ = budget.project(weights, None)
    return FixedSupport.of(pruned)


def schedule_of(settings: CompressSpec, weights: Weights, dense_weights: int) -> CubicSchedule | None:
    """The schedule of the ℓ0 budget; None where it is the same in all of training. Arguments as of `pruning_of`."""
    if settings.schedule is None:
        return None
    return CubicSchedule(
        entries=sum(tensor.numel() for tensor in weights.values()),
        k=l0_budget(settings, dense_weights),
        begin=settings.schedule.begin,
        end=settings.schedule.end,
        freeze=settings.schedule.freeze,
    )


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
        return Codebook(settings.bits, seed=seed)
    budget = None if settings.budget_bytes is None else settings.budget_bytes - overhead_bytes()
    bits = mixed_bits(
        weights,
        layers,
        uniform=settings.bits if budget is None else None,
        budget_bytes=budget,
        floats=settings.floats,
        seed=seed,
        centres=centres,
    )
    if bits is None:
        raise TrialFailed(
            f"budget_bytes = {settings.budget_bytes}: the weights kept do not fit even at 1 bit each; raise it or "
            "lower trial.compress.keep"
        )
    return Codebook(bits, seed=seed)
