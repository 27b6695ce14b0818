from __future__ import annotations

import numpy as np
import pytest
import torch

from atmc_search.compress import GlobalL0, LampBudget, requantised
from atmc_search.compress.byte_estimate import RateModel, least_distortion


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(60, 50, generator=generator)
    return {"a": wide * wide.abs(), "b": 0.3 * torch.randn(500, generator=generator)}


def entropy(symbols: np.ndarray) -> float:
    _, counts = np.unique(symbols, return_counts=True)
    return float(-(counts * np.log2(counts / counts.sum())).sum())


@pytest.mark.parametrize("bits", [2, 4, 7])
@pytest.mark.parametrize("budget", [300.0, 1200.0])
def test_an_estimate_is_the_entropy_and_the_error_of_weights_projected_and_quantised(bits, budget):
    given = weights()
    found = RateModel.of(given).at(budget, bits)
    kept, _ = GlobalL0(found.k).project(given, None)
    quantised = {name: requantised(tensor.numpy(), bits) for name, tensor in kept.items()}
    centres = sum(min(2**bits, np.count_nonzero(q)) for q in quantised.values())
    size = sum(entropy(q.reshape(-1)) for q in quantised.values()) / 8 + 2 * centres
    whole, energy = (sum(float((w.double() ** 2).sum()) for w in some.values()) for some in (given, kept))
    error = sum(float(((q.astype(float) - kept[name].numpy()) ** 2).sum()) for name, q in quantised.items())
    assert found.bytes_ == pytest.approx(size, rel=0.03)
    assert found.bytes_ <= budget
    assert found.distortion == pytest.approx(0.25 * (1 - energy / whole) + error / energy, rel=0.03)


@pytest.mark.parametrize("layers", [None, {}, {"a": "of a and b", "b": "of a and b"}])
def test_counts_are_those_of_the_projection(layers):
    given = weights(1) | {"c": 1e-3 * weights(2)["a"]}
    budget = GlobalL0(700) if layers is None else LampBudget(700, layers)
    kept, _ = budget.project(given, None)
    assert RateModel.of(given, layers).counts(700).tolist() == [int(tensor.count_nonzero()) for tensor in kept.values()]


def test_at_a_density_of_a_few_percent_3_bits_beat_2():
    given = {"wide": torch.randn(400, 500, generator=torch.Generator().manual_seed(0))}
    assert least_distortion(RateModel.of(given, {}), 5_000.0, range(2, 9)).bits == 3


def test_the_bits_chosen_distort_least_of_all():
    given, model = weights(2), RateModel.of(weights(2))
    each = {bits: model.at(700.0, bits).distortion for bits in range(1, 9)}
    assert each[least_distortion(RateModel.of(given), 700.0, range(1, 9)).bits] == min(each.values())


def test_real_bytes_per_estimated_byte_scale_the_estimate():
    model = RateModel.of(weights(3))
    assert model.at(600.0, 3, scale=2.0).k == pytest.approx(model.at(300.0, 3).k, rel=0.03)
