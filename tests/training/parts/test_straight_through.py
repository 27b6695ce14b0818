from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import PrivateAttr
from stages import plain_stage, step_of
from stages import train as train_all
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_search.attacks import Attack, NoAttack, ThreatModel
from atmc_search.compress import Codebook, GlobalL0, constrained_weights, factorise, kmeans_with_zero
from atmc_search.data import DeviceData
from atmc_search.models import build_model
from atmc_search.training.parts import Moment, Part, Projected, StraightThrough, fitted_centres, on_centres

THREAT = ThreatModel(norm="linf", eps=0.05)


@pytest.fixture(scope="module")
def images(tiny_splits: Any) -> DeviceData:
    return DeviceData(tiny_splits.train, torch.device("cpu"))


def fresh() -> nn.Module:
    mean, std = [0.3], [0.4]
    return build_model("mlp", {"hidden": [6]}, input_shape=(1, 8, 8), classes=10, mean=mean, std=std, seed=0)


def bound(
    model: nn.Module, k: int, factors: Any = "none", *, bits: int = 4, sets_in: float = 0.0, every: int = 1
) -> tuple[Projected, StraightThrough]:
    """A support of the k largest weights, and codes on it."""
    support = Projected(constrained_weights(model, factorise(model, factors)), k)
    return support, StraightThrough(support, lambda weights: Codebook(bits), sets_in=sets_in, every=every)


def train(model: nn.Module, data: DeviceData, parts: Sequence[Part], attack: Attack | None = None) -> None:
    stage = plain_stage(epochs=1, lr=0.1, batch_size=64, lr_schedule="constant")
    train_all(step_of(model, stage, attack or NoAttack(), THREAT, parts=parts), data, label="t")


@given(seed=st.integers(0, 999), clusters=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_every_non_zero_goes_to_its_nearest_centre(seed, clusters):
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(7, 9, generator=generator) * (torch.rand(7, 9, generator=generator) < 0.6)
    centres = torch.randn(clusters, generator=generator).sort().values
    brute = centres[(tensor[..., None] - centres).abs().argmin(-1)]
    assert torch.equal(on_centres(tensor, centres), torch.where(tensor == 0, 0.0, brute))


def test_half_way_goes_to_the_lower_centre_and_no_centre_moves_nothing():
    tensor = torch.tensor([0.5, 0.0, -2.0])
    assert on_centres(tensor, torch.tensor([0.0, 1.0])).tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(on_centres(tensor, torch.empty(0)), tensor)


def test_where_codes_have_a_price_every_non_zero_goes_to_the_cheapest_of_them():
    generator = torch.Generator().manual_seed(0)
    tensor = torch.randn(30, 40, generator=generator) * (torch.rand(30, 40, generator=generator) < 0.6)
    state = fitted_centres({"w": tensor}, Codebook(3, price=0.05), {})
    centres, edges = state.centres["w"], state.edges["w"]
    moved = on_centres(tensor, centres, edges)
    shares = torch.stack([(moved == c).sum() for c in centres]) / (tensor != 0).sum()
    costs = (tensor[..., None] - centres) ** 2 - 0.05 * tensor[tensor != 0].square().mean() * shares.log2()
    chosen = (moved[..., None] == centres).float().argmax(-1, keepdim=True)
    dearer = (costs.gather(-1, chosen)[..., 0] - costs.amin(-1))[tensor != 0]
    assert dearer.max() < 0.02 * costs.abs().max()  # shares are those of the step before, all but still
    assert (dearer > 1e-5).float().mean() < 0.02
    assert torch.equal(moved == 0, tensor == 0)
    assert (moved != on_centres(tensor, centres)).any()  # where the nearest is another


class Watching(Attack):
    """Counts each constrained tensor's values as the attack finds them."""

    _weights: dict[str, Tensor] = PrivateAttr()
    _seen: list[list[int]] = PrivateAttr(default_factory=list)

    def __call__(self, model: nn.Module, x: Tensor, *rest: Any, **settings: Any) -> Tensor:
        self._seen.append([len(w[w != 0].unique()) for w in self._weights.values()])
        return x


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
def test_attacks_see_the_codebook_s_values_and_training_goes_on_from_the_latent_ones(images, factors):
    model = fresh()
    support, codes = bound(model, 200, factors, bits=2, sets_in=0.5)
    watching = Watching()
    watching._weights = dict(support.weights)
    train(model, images, [support, codes], watching)
    assert all(max(counts) > 4 for counts in watching._seen[:2])
    assert all(max(counts) <= 4 for counts in watching._seen[2:])
    assert len(watching._seen) == 4
    assert max(len(w[w != 0].unique()) for w in support.weights.values()) > 4


def test_one_step_is_the_gradient_at_the_quantised_weights_applied_to_the_latent_ones(images):
    model = fresh()
    support, codes = bound(model, 150, bits=1)
    support.begin()
    stage = plain_stage(epochs=1, lr=0.1, batch_size=len(images), lr_schedule="constant", weight_decay=0.0)
    quantised = copy.deepcopy(model)
    expected = {name: w.detach().clone() for name, w in support.weights.items()}
    for layer in (m for m in quantised.modules() if isinstance(m, nn.Linear)):
        values = layer.weight.detach()
        centres = torch.from_numpy(kmeans_with_zero(values[values != 0].numpy(), 2, zero=False))
        nearest = centres[(values[..., None] - centres).abs().argmin(-1)]
        layer.weight.data = torch.where(values == 0, 0.0, nearest)
    F.cross_entropy(quantised.train()(images.images.float() / 255), images.labels).backward()
    for name, parameter in quantised.named_parameters():
        if name in expected:
            expected[name] -= 0.1 * parameter.grad
    expected, _ = GlobalL0(150).project(expected, None)
    train_all(step_of(model, stage, NoAttack(), THREAT, parts=[support, codes]), images, label="t")
    for name, weight in support.weights.items():
        assert torch.allclose(weight, expected[name], atol=1e-6)


def test_with_a_centre_for_every_weight_training_is_that_without_a_codebook(images):
    states = []
    for count in (2, 1):
        model = fresh()
        parts = bound(model, 150, bits=8)  # 150 weights, 256 centres
        parts[0].begin()
        train(model, images, parts[:count])
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_centres_are_fitted_anew_every_few_steps_from_the_ones_before():
    support, codes = bound(fresh(), 400, bits=3, every=2)
    support.begin()
    fits = []
    for step in range(4):
        at = Moment(step, 4)
        with codes.seen(at):
            pass
        with torch.no_grad():
            for weight in support.weights.values():
                weight.mul_(1.01)
        before = codes.fitted
        support.after_step(at)
        codes.after_step(at)
        after = codes.fitted
        assert before is not None
        assert after is not None
        fits.append(after is not before)
        if fits[-1]:
            for name, weight in support.weights.items():
                values = weight.detach()[weight != 0].numpy()
                warm = kmeans_with_zero(values, 8, warm=before.centres[name].numpy(), zero=False)
                assert torch.equal(after.centres[name], torch.from_numpy(warm))
    assert fits == [False, True, False, True]
