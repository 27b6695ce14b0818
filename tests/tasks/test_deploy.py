from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atmc_search.compress import Codebook
from atmc_search.tasks.atmc.deploy import deployable, half_precision


def sparse(seed: int, size: int = 400, density: float = 0.3, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = scale * torch.randn(size, generator=generator)
    return (values * (torch.rand(size, generator=generator) < density)).view(-1, 20)


def deploy(weights: dict[str, Tensor], bits: int, floats: str = "fp16", **rest: object) -> dict[str, Tensor]:
    codebook = Codebook(bits) if bits < 32 else None
    quantised, _ = deployable(weights, {}, codebook, rest.get("centres", {}), floats)  # type: ignore[arg-type]
    return quantised


def distinct(tensor: Tensor) -> int:
    return len(torch.unique(tensor[tensor != 0]))


@given(
    seed=st.integers(0, 999),
    bits=st.sampled_from([1, 2, 5, 8]),
    density=st.sampled_from([0.01, 0.3, 1.0]),
    scale=st.sampled_from([1e-3, 1.0, 1e6]),
    floats=st.sampled_from(["fp16", "fp32"]),
)
@settings(max_examples=60, deadline=None)
def test_the_support_stays_and_the_codebook_keeps_its_size(seed, bits, density, scale, floats):
    weight = sparse(seed, density=density, scale=scale)
    out = deploy({"w": weight, "zero": torch.zeros(3, 3)}, bits, floats)
    assert torch.equal(out["w"] != 0, weight != 0)
    assert distinct(out["w"]) <= 2**bits
    assert not out["zero"].any()
    if floats == "fp16" and scale <= 1:
        assert torch.equal(out["w"].half().float(), out["w"])


def test_strides_do_not_matter():
    weight = sparse(4)
    assert torch.equal(deploy({"w": weight.T.contiguous().T}, 2)["w"], deploy({"w": weight}, 2)["w"])


def test_each_value_goes_to_its_nearest_centre():
    weight = sparse(1)
    out = deploy({"w": weight}, 2)["w"]
    centres = torch.unique(out[out != 0])
    assert len(centres) == 4
    own = (out - weight).abs()
    best = (weight[..., None] - centres).abs().amin(-1)
    assert torch.allclose(own[weight != 0], best[weight != 0], atol=1e-7)


def test_small_values_do_not_fall_to_zero_though_zero_is_nearer():
    weight = torch.tensor([[1.0, 1.0, 0.0, 0.1, -1.0]])
    out = deploy({"w": weight}, 1)["w"]
    assert torch.equal(out != 0, weight != 0)


def test_few_values_are_their_own_centres():
    weight = torch.tensor([[0.5, 0.0, -0.25, 0.5, 1.5]])
    assert torch.equal(deploy({"w": weight}, 2)["w"], weight)


def test_the_centres_of_admm_are_one_of_the_starts():
    """128 clusters of random width and mass, which random starts do not all find; from their own means it is easy."""
    rng = np.random.default_rng(0)
    means = np.sort(rng.normal(size=128)).astype(np.float32)
    labels = np.concatenate([np.arange(128), rng.choice(128, 5000, p=rng.dirichlet(np.full(128, 0.3)))])
    weight = torch.from_numpy(means[labels] * (1 + 1e-4 * rng.normal(size=len(labels))).astype(np.float32)).view(1, -1)

    def error(centres: dict[str, Tensor]) -> float:
        return float((deploy({"w": weight}, 7, "fp32", centres=centres)["w"] - weight).square().sum())

    assert error({"w": torch.from_numpy(means)}) < 0.9 * error({})


def test_without_a_codebook_values_stay():
    weight = sparse(2)
    assert torch.equal(deploy({"w": weight}, 32)["w"], weight)


def test_the_inputs_are_left_alone():
    weight, bias = sparse(3), torch.tensor([0.1])
    kept = weight.clone()
    deployable({"w": weight}, {"bias": bias}, Codebook(1), {}, "fp16")
    assert torch.equal(weight, kept)
    assert bias.item() == np.float32(0.1)


OTHERS = {
    "bias": torch.tensor([0.1, -3.14159, 0.0]),
    "large": torch.tensor([0.1, 70_000.0]),  # over fp16's range
    "count": torch.tensor([2**40 + 1]),
    "tiny": torch.tensor([3e-8]),  # moved by less than 1e-7
    "subnormal": torch.tensor([0.1, 3.3e-5]),  # fp16 keeps it to within 1e-7
    "mask": torch.tensor([float("-inf"), 0.0]),
}
KEPT = {"large", "count", "mask"}


@pytest.mark.parametrize("name", OTHERS)
def test_other_tensors_are_rounded_to_fp16_unless_it_would_distort_them(name):
    tensor = OTHERS[name]
    _, halved = deployable({}, OTHERS, None, {}, "fp16")
    _, full = deployable({}, OTHERS, None, {}, "fp32")
    assert torch.equal(full[name], tensor)
    assert halved[name].dtype == tensor.dtype
    assert torch.equal(halved[name], tensor if name in KEPT else tensor.half().float())


@pytest.mark.parametrize(
    ("values", "keeps"),
    [([0.1], False), ([65_504.0], False), ([65_520.0], True), ([1e-4], False), ([1.0, 1e30], True)],
)
def test_half_precision_keeps_fp32_where_fp16_would_distort(values, keeps):
    tensor = torch.tensor(values)
    expected = tensor if keeps else tensor.half().float()
    assert torch.equal(half_precision(tensor), expected)
    assert torch.isfinite(half_precision(tensor)).all()


def test_a_codebook_that_fp16_would_distort_keeps_fp32():
    weight = torch.tensor([[1e5, 0.0, 1e5, -2e-3]])
    out = deploy({"w": weight}, 1)["w"]
    assert torch.allclose(out, weight)
    assert torch.isfinite(out).all()
