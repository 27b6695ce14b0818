"""What is known of an ATMC trial before it trains: whether it is possible, its least size, the dense figures."""

from __future__ import annotations

import math
from collections.abc import Mapping

from atmc_search.attacks import build_attack
from atmc_search.data import Splits
from atmc_search.errors import AtmcError, SpecError
from atmc_search.export.costs import dense_costs
from atmc_search.tasks.atmc.build import architecture_of
from atmc_search.tasks.atmc.constraints import check_bytes, l0_budget
from atmc_search.tasks.atmc.model_facts import model_facts
from atmc_search.tasks.atmc.spec import AtmcSpec
from atmc_search.training import build_loss


def check_possible(spec: AtmcSpec, data: Splits) -> None:
    """`Task.check`."""
    build_loss(spec.dense, path="trial.dense")
    build_loss(spec.train, path="trial.train")
    build_attack(spec.evaluate.attack, path="trial.evaluate.attack")
    known = model_facts(architecture_of(spec, data))
    budget, layers = l0_budget(spec.compress, known.weights), len(known.layers)
    if spec.compress.keep is not None and spec.compress.pruning != "none" and budget < layers:
        least = layers / known.weights
        digit = 10.0 ** (math.floor(math.log10(least)) - 1)  # two digits, rounded up so that the remedy is one
        raise SpecError(
            f"trial.compress.keep = {spec.compress.keep:g}: the budget is impossible, {budget} "
            f"non-zeros for {layers} layers of {known.weights} weights; "
            f"raise it to {math.ceil(least / digit) * digit:.2g} or more"
        )
    most = spec.compress.budget_bytes
    if spec.compress.sized_in_bytes:
        check_bytes(spec.compress, known)
    if most is not None and most < known.least_bytes:
        raise SpecError(
            f"trial.compress.budget_bytes = {most}: impossible, with every weight zero the artifact has "
            f"{known.least_bytes} bytes; raise it"
        )
    if spec.evaluate.runtime != "none":
        try:
            dense_costs(architecture_of(spec, data), spec.evaluate.runtime)
        except AtmcError as error:
            raise SpecError(f"trial.evaluate.runtime = {spec.evaluate.runtime!r}: {error}") from error


def least_figures(spec: AtmcSpec, data: Splits) -> Mapping[str, float]:
    """`Task.least`."""
    return {"size_bytes": float(model_facts(architecture_of(spec, data)).least_bytes)}


def dense_figures(spec: AtmcSpec, data: Splits) -> Mapping[str, float]:
    """`Task.reference`."""
    known = model_facts(architecture_of(spec, data))
    weights = float(known.weights)
    costs = dense_costs(architecture_of(spec, data), spec.evaluate.runtime)
    return {
        "size_bytes": float(known.dense_bytes),
        "nnz": weights,
        "density": 1.0,
        "paper_bits": 32 * weights,
        "entropy_bits": 32 * weights,
        **{name: float(value) for name, value in costs.items()},
    }
