from __future__ import annotations

import pytest
import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from atmc_search.attacks import FGSM, PGD, Attack, ThreatModel
from atmc_search.data import DeviceData, ImageSet, Splits
from atmc_search.measure import Accuracy, Measurement, clean_correct, measure, robust_correct, wilson_interval
from atmc_search.models import build_model
from atmc_search.tasks import Start
from atmc_search.tasks.atmc.spec import AtmcSpec

THREAT = ThreatModel(norm="linf", eps=0.1)


class Noted(Attack):
    """Notes what it is given; answers with the images as far up as they may go."""

    _images: list[Tensor] = PrivateAttr(default_factory=list)
    _labels: list[Tensor] = PrivateAttr(default_factory=list)

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        generator: torch.Generator,
        *,
        until_broken: bool = False,
    ) -> Tensor:
        self._images.append(x.clone())
        self._labels.append(y.clone())
        return x + 1


class Brightness(nn.Module):
    """Class 1 if the image's only pixel is above 0.5, else class 0."""

    def forward(self, x: Tensor) -> Tensor:
        value = x.flatten(1)
        return torch.cat([torch.zeros_like(value) + 0.5, value], 1)


def pixels(values: list[int], labels: list[int]) -> DeviceData:
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).numpy()
    return DeviceData(ImageSet(images, torch.tensor(labels).numpy()), "cpu")


# Right and far from 0.5, right and within 0.1 below it, wrong, right and above.
PIXELS = pixels([0, 110, 120, 200, 30, 255, 118], [0, 0, 1, 0, 1, 1, 0])
CLEAN = [True, True, False, False, False, True, True]
ROBUST = [True, False, False, False, False, True, False]


@pytest.fixture(scope="module")
def digits(tiny_splits: Splits) -> DeviceData:
    return DeviceData(tiny_splits.validation, "cpu")


@pytest.fixture(scope="module")
def model(digits: DeviceData) -> nn.Module:
    """Half trained, so that images are right and robust, right and not, or wrong."""
    made = build_model("mlp", {"hidden": [32]}, input_shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.3], seed=0)
    x, y = next(iter(digits.batches(len(digits))))
    optimizer = torch.optim.SGD(made.parameters(), lr=0.2)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(made(x), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    return made.eval()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_counted_by_hand(batch_size):
    clean = clean_correct(Brightness(), PIXELS, batch_size)
    assert clean.tolist() == CLEAN
    robust = robust_correct(Brightness(), PIXELS, Noted(), THREAT, batch_size=batch_size, seed=0, clean=clean)
    assert robust.tolist() == ROBUST
    assert clean.tolist() == CLEAN  # left alone
    figures = measure(Brightness(), PIXELS, Noted(), THREAT, batch_size=batch_size, seed=0)
    assert figures == Measurement(Accuracy(4, 7), Accuracy(2, 7))


@pytest.mark.parametrize("batch_size", [2, 3, 100])
def test_images_that_are_wrong_untouched_are_not_attacked(batch_size):
    attack = Noted()
    measure(Brightness(), PIXELS, attack, THREAT, batch_size=batch_size, seed=0)
    attacked = (torch.cat(attack._images).flatten() * 255).round().tolist()
    assert attacked == [0, 110, 255, 118]
    assert torch.cat(attack._labels).tolist() == [0, 0, 1, 0]


class Up(Noted):
    """Goes up by at most this much."""

    by: float = 1.0

    def __call__(self, model, x, y, threat, generator, *, until_broken=False):
        assert until_broken  # measuring needs no more of an image that is broken
        super().__call__(model, x, y, threat, generator)
        return x + self.by


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_of_several_attacks_each_sees_what_survived_those_before(batch_size):
    clean = clean_correct(Brightness(), PIXELS, batch_size)
    weak, strong, late = Up(by=0.05), Up(by=0.1), Up(by=0.1)
    robust = robust_correct(
        Brightness(), PIXELS, [weak, strong, late], THREAT, batch_size=batch_size, seed=0, clean=clean
    )
    assert robust.tolist() == ROBUST
    seen = [(torch.cat(attack._images).flatten() * 255).round().tolist() for attack in (weak, strong, late)]
    assert seen == [[0, 110, 255, 118], [0, 110, 255], [0, 255]]  # 118 + 0.05 and 110 + 0.1 are above one half
    assert measure(Brightness(), PIXELS, [weak], THREAT, batch_size=batch_size, seed=0) == measure(
        Brightness(), PIXELS, weak, THREAT, batch_size=batch_size, seed=0
    )


def test_several_attacks_start_at_points_of_their_own(model, digits):
    class Started(Noted):
        def __call__(self, model, x, y, threat, generator, *, until_broken=False):
            super().__call__(model, x + torch.rand(x.shape, generator=generator), y, threat, generator)
            return x

    alone, first, second = Started(), Started(), Started()
    measure(model, digits, alone, THREAT, batch_size=30, seed=3)
    measure(model, digits, [first, second], THREAT, batch_size=30, seed=3)
    assert torch.equal(torch.cat(alone._images), torch.cat(first._images))
    assert not torch.equal(torch.cat(first._images), torch.cat(second._images))


def test_a_batch_with_nothing_right_is_no_call():
    attack = Noted()
    figures = measure(Brightness(), pixels([0, 0, 0, 200], [1, 1, 1, 1]), attack, THREAT, batch_size=2, seed=0)
    assert len(attack._images) == 1
    assert (figures.clean.correct, figures.robust.correct) == (1, 1)


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=5), PGD(steps=3, restarts=2)], ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps", [0.0, 0.05, 0.3, 1.0])
def test_robust_images_are_among_the_clean_ones(model, digits, attack, norm, eps):
    clean = clean_correct(model, digits, 40)
    threat = ThreatModel(norm=norm, eps=eps)
    robust = robust_correct(model, digits, attack, threat, batch_size=40, seed=0, clean=clean)
    assert not bool((robust & ~clean).any())
    if eps == 0:
        assert torch.equal(robust, clean)


def test_the_model_of_these_tests_tells_images_apart(model, digits):
    figures = measure(model, digits, PGD(steps=5), THREAT, batch_size=40, seed=0)
    assert 0 < figures.robust.correct < figures.clean.correct < figures.clean.n == 100


def test_equal_seeds_give_equal_images_and_other_seeds_other_starts(model, digits):
    def attacked(seed: int) -> Tensor:
        class Started(Noted):
            def __call__(self, model, x, y, threat, generator, *, until_broken=False):
                return super().__call__(model, x + torch.rand(x.shape, generator=generator), y, threat, generator)

        attack = Started()
        measure(model, digits, attack, THREAT, batch_size=30, seed=seed)
        return torch.cat(attack._images)

    first = attacked(3)
    torch.rand(11)
    assert torch.equal(first, attacked(3))
    assert not torch.equal(first, attacked(4))


def test_measuring_leaves_the_global_state_and_the_model_alone(model, digits):
    torch.manual_seed(1)
    state, before = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    measure(model, digits, PGD(steps=2), THREAT, batch_size=40, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("batch_size", [1, 7, 33, 100, 500])
def test_clean_accuracy_does_not_depend_on_the_batch_size(model, digits, batch_size):
    """Robust accuracy does: the random starts of all batches come from one stream, the size cuts it."""
    assert torch.equal(clean_correct(model, digits, batch_size), clean_correct(model, digits, 50))


def test_an_attack_without_randomness_does_not_depend_on_the_batch_size_or_seed(model, digits):
    figures = {
        measure(model, digits, PGD(steps=3, random_start=False), THREAT, batch_size=size, seed=seed).robust.correct
        for size, seed in [(1, 0), (33, 1), (100, 2)]
    }
    assert len(figures) == 1


def test_the_model_is_measured_in_eval_mode(digits):
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Dropout(0.9), nn.BatchNorm1d(64), nn.Linear(64, 10)]
    model = nn.Sequential(*layers).train()
    first = clean_correct(model, digits, 20)
    assert not any(m.training for m in model.modules())
    assert torch.equal(first, clean_correct(model, digits, 100))


def test_accuracy_names_its_figures():
    accuracy = Accuracy(3, 4)
    assert accuracy.value == 0.75
    assert accuracy.interval == wilson_interval(3, 4)
    figures = Measurement(accuracy, Accuracy(1, 4))
    assert figures.metrics() == {"clean_accuracy": 0.75, "robust_accuracy": 0.25}
    assert figures.metrics("dense_") == {"dense_clean_accuracy": 0.75, "dense_robust_accuracy": 0.25}


def test_the_dense_start_is_measured_by_the_same_measure(tiny_trial, tiny_start: Start, digits):
    spec: AtmcSpec = tiny_trial()
    model = build_model(
        spec.model.name, spec.model.args, input_shape=(1, 8, 8), classes=10, mean=[0.0], std=[1.0], seed=0
    )
    model.load_state_dict(dict(tiny_start.tensors))
    figures = measure(model, digits, PGD(steps=3), spec.threat, batch_size=500, seed=spec.evaluate.seed)
    expected = figures.metrics("dense_")
    assert expected == {name: tiny_start.facts[name] for name in expected}
