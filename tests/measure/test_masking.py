"""The checks against gradient masking: an honest model passes, models known to mask are caught."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from atmc_search.attacks import FGSM, PGD, Attack, ThreatModel
from atmc_search.data import DeviceData, ImageSet, Splits
from atmc_search.measure import Accuracy, MaskingChecks, Paired, masking_checks
from atmc_search.models import build_model

LINF = ThreatModel(norm="linf", eps=0.1)
L2 = ThreatModel(norm="l2", eps=0.7)
PGD10 = PGD(steps=10)


class Fronted(nn.Module):
    """A model behind something that its attacker must get through."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class Rounded(Fronted):
    """Eight grey levels: the gradient is 0 almost everywhere (shattered gradients, Athalye et al.)."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(torch.round(8 * x) / 8)
        return logits


class Rippled(Fronted):
    """A ripple too fine to change an answer, but steeper than the image: the gradient's sign is noise."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x + 0.01 * torch.sin(12_000 * x))
        return logits


class Saturated(Fronted):
    """Probabilities that round to 0 and 1 in place of logits: vanishing gradients."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(1000 * self.model(x), 1)


class Scaled(Fronted):
    """Huge logits, on which the cross-entropy of a naive attack saturates; ours must not."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * self.model(x)


class Noisy(Fronted):
    """Random noise at inference (stochastic gradients)."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x + 0.2 * torch.randn_like(x))
        return logits


class Constant(nn.Module):
    """One class for everything, whatever the image."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.eye(10)[3] + 0 * x.flatten(1)[:, :10]


class Moat(nn.Module):
    """Class 1 for a first pixel more than 0.95 eps above 1/2; on the way there, from 0.3 to 0.8 eps, lies a slope down.

    Long steps cross it, short ones turn back: more steps save the image.
    """

    def forward(self, x: Tensor) -> Tensor:
        way = (x[:, 0, 0, 0] - 0.5) / LINF.eps
        shore = torch.minimum(way - 1, -0.4 - way)  # up to 0.3, then down
        height = torch.where(way < 0.8, shore, 6 * way - 5.7)
        return torch.stack([torch.zeros_like(height), height], 1)


def checks(model: nn.Module, data: DeviceData, threat: ThreatModel = LINF, attack: Attack = PGD10, **kwargs):
    return masking_checks(model.eval(), data, attack, threat, images=100, batch_size=50, seed=0, **kwargs)


def grey(n: int) -> DeviceData:
    """Images a little above mid-grey, of class 0."""
    return DeviceData(ImageSet(torch.full((n, 1, 2, 2), 128, dtype=torch.uint8).numpy(), torch.zeros(n).numpy()), "cpu")


@pytest.fixture(scope="module")
def other(tiny_splits: Splits) -> nn.Module:
    """An honest model of another kind, trained on clean images."""
    made = build_model("mlp", {"hidden": [32]}, input_shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.3], seed=0)
    x, y = next(iter(DeviceData(tiny_splits.train, "cpu").batches(1000)))
    optimizer = torch.optim.SGD(made.parameters(), lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(made(x), y).backward()
        optimizer.step()
    return made.eval()


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
@pytest.mark.parametrize(
    "attack",
    [PGD10, PGD(steps=3), PGD(steps=20, step_size=0.01), PGD(steps=5, restarts=2)],
    ids=["10", "3", "20 short", "5 twice"],
)
@pytest.mark.parametrize("front", [nn.Sequential, Scaled], ids=["plain", "scaled"])
def test_honest_models_pass(dense, other, validation, front, attack, threat):
    for model, surrogate in ((dense, other), (other, dense)):
        found = checks(front(model), validation, threat, attack, surrogate=surrogate)
        assert found.flags == ()
        assert found.metrics() == {"masking_flags": ""}
        assert found.growth is not None
        assert found.growth.n > 50  # so that there was something to find
        assert found.steps is not None
        assert found.transfer is not None
        assert found.transfer.n > 50


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
@pytest.mark.parametrize(
    ("front", "flags"),
    [
        (Rounded, {"eps_growth", "transfer"}),
        (Saturated, {"eps_growth", "transfer"}),
        (Rippled, {"transfer"}),
        (Noisy, {"random"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_models_known_to_mask_are_caught(other, dense, validation, front, flags, threat):
    found = checks(front(other), validation, threat, surrogate=dense)
    assert flags <= set(found.flags)
    assert found.metrics() == {"masking_flags": ",".join(found.flags)}
    assert found.findings.keys() == set(found.flags)
    for sentence in found.findings.values():
        assert "\n" not in sentence
        assert len(sentence) < 180


def test_without_a_surrogate_transfer_is_not_checked(other, validation):
    found = checks(Rounded(other), validation)
    assert found.transfer is None
    assert "transfer" not in found.flags
    assert "eps_growth" in found.flags


def test_steps_that_save_images_are_caught():
    attack = PGD(steps=3, random_start=False)
    found = checks(Moat(), grey(40), attack=attack)
    assert found.steps == Paired(stronger_only=0, weaker_only=40, n=40)
    assert found.growth is None  # mid-grey itself is of class 0
    assert found.flags == ("steps",)
    assert "steps" not in checks(Moat(), grey(6), attack=attack).flags  # 6 against 0: chance may do that


def test_an_attack_without_steps_is_not_doubled(other, dense, validation):
    found = checks(other, validation, attack=FGSM(), surrogate=dense)
    assert found.steps is None
    assert found.transfer is not None


def test_a_model_of_one_class_hides_nothing(dense, validation):
    """No image of its class can be broken, by anyone: robust in truth, if useless."""
    found = checks(Constant(), validation, surrogate=dense)
    assert found.growth is None
    assert found.flags == ()
    assert found.transfer is not None
    assert found.transfer.n == int((validation.labels == 3).sum())


def test_nothing_right_is_nothing_to_check(dense, validation):
    class Wrong(Fronted):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(self.model(x).argmax(1, keepdim=True) == torch.arange(10), -1.0, 0.0)

    wrong = DeviceData(ImageSet(validation.images.numpy(), ((dense_labels(dense, validation) + 1) % 10).numpy()), "cpu")
    found = checks(dense, wrong, surrogate=dense)
    assert (found.growth, found.steps, found.transfer) == (None, Paired(0, 0, 0), Paired(0, 0, 0))
    assert found.flags == ()


def dense_labels(model: nn.Module, data: DeviceData) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(x).argmax(1) for x, _ in data.batches(50)])


@pytest.mark.parametrize("images", [1, 7, 100, 1000])
def test_it_looks_at_the_first_images_only(dense, validation, images):
    found = masking_checks(dense, validation, PGD10, LINF, images=images, batch_size=50, seed=0)
    assert found.images == min(images, len(validation))
    right = (dense_labels(dense, validation) == validation.labels)[:images]
    assert found.steps is not None
    assert found.steps.n == int(right.sum())


class Counted(Fronted):
    """Counts the images that it takes gradients of."""

    gradients = 0

    def forward(self, x: Tensor) -> Tensor:
        self.gradients += len(x) if x.requires_grad else 0
        logits: Tensor = self.model(x)
        return logits


def test_the_costs_are_bounded_as_promised(dense, other, validation):
    model, surrogate = Counted(dense), Counted(other)
    masking_checks(model, validation, PGD10, LINF, surrogate=surrogate, images=40, batch_size=50, seed=0)
    assert 0 < surrogate.gradients <= 40 * 10
    assert 0 < model.gradients <= 40 * 10 * 4


def test_equal_seeds_give_equal_figures_and_nothing_is_left_behind(other, dense, validation):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = checks(Noisy(other), validation, surrogate=dense)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert checks(Noisy(other), validation, surrogate=dense) == first
    assert all(p.requires_grad and p.grad is None for p in dense.parameters())


def coin_p_value(tails: int, heads: int) -> float:
    """By brute force: the share of all throws of as many coins that have as many heads or more."""
    throws = [sum(coins) >= heads for coins in product((0, 1), repeat=tails + heads)]
    return sum(throws) / len(throws)


@pytest.mark.parametrize("stronger", range(6))
@pytest.mark.parametrize("weaker", range(9))
def test_the_paired_test_is_a_throw_of_coins(stronger, weaker):
    paired = Paired(stronger, weaker, 100)
    assert paired.p_value == pytest.approx(coin_p_value(stronger, weaker), abs=1e-12)
    assert paired.upset == (paired.p_value < 0.01)
    if weaker <= stronger:
        assert not paired.upset


def test_the_paired_test_takes_large_counts():
    assert Paired(5000, 5000, 20000).p_value == pytest.approx(0.504, abs=1e-3)
    assert Paired(5000, 5500, 20000).upset


@pytest.mark.parametrize(
    ("left", "n", "flagged"),
    [(0, 100, False), (9, 100, False), (10, 100, True), (17, 200, True), (16, 200, False), (0, 1, False), (9, 9, True)],
)
def test_growth_is_flagged_where_the_interval_lies_above_a_twentieth(left, n, flagged):
    found = MaskingChecks(n, True, Accuracy(left, n), None, None)
    assert found.flags == (("eps_growth",) if flagged else ())
