"""Robustness curves: closed forms on a model of one pixel, and the laws of nested balls."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from atmc_search.attacks import FGSM, PGD, Attack, ThreatModel
from atmc_search.data import DeviceData, ImageSet
from atmc_search.errors import AtmcError
from atmc_search.measure import Accuracy, RobustnessCurves, clean_correct, measure, robustness_curve

THREAT = ThreatModel(norm="linf", eps=0.1)


class Brightness(nn.Module):
    """Class 1 if the image's only pixel is above 1/2, else class 0."""

    def forward(self, x: Tensor) -> Tensor:
        value = x.flatten(1)
        return torch.cat([torch.full_like(value, 0.5), value], 1)


def pixels(values: list[int], labels: list[int]) -> DeviceData:
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).numpy()
    return DeviceData(ImageSet(images, torch.tensor(labels).numpy()), "cpu")


# Distances to 1/2: 0.5, 0.108, wrong, 0.284, 0.5, 0.037.
PIXELS = pixels([0, 100, 120, 200, 255, 118], [0, 0, 1, 1, 1, 0])


def curve(model: nn.Module, data: DeviceData, attack: Attack, **kwargs) -> RobustnessCurves:
    return robustness_curve(model, data, attack, THREAT, batch_size=4, seed=0, **kwargs)


def counts(points: tuple[tuple[float, Accuracy], ...]) -> dict[float, int]:
    return {at: accuracy.correct for at, accuracy in points}


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=5), PGD(steps=4, step_size=0.05)], ids=repr)
def test_radii_by_hand(attack):
    found = curve(Brightness(), PIXELS, attack, eps=[0.3, 0.0, 0.05, 0.2, 0.05])
    assert counts(found.eps) == {0.0: 5, 0.05: 4, 0.2: 3, 0.3: 2}
    assert [at for at, _ in found.eps] == [0.0, 0.05, 0.2, 0.3]
    assert {accuracy.n for _, accuracy in found.eps} == {6}
    assert found.steps == ()


def test_steps_by_hand():
    """A fixed step of 0.03 from the image itself: three steps go 0.09, four are cut at 0.1, and 0.108 is never met."""
    attack = PGD(steps=7, step_size=0.03, random_start=False)
    data = pixels([100, 104, 110, 118], [0, 0, 0, 0])  # 0.108, 0.092, 0.069, 0.037
    found = curve(Brightness(), data, attack, steps=[50, 1, 2, 3, 4])
    assert found.steps == tuple((k, Accuracy(c, 4)) for k, c in ((1, 4), (2, 3), (3, 2), (4, 1), (50, 1)))
    assert found.eps == ()


class Noted(Attack):
    """Notes radius, steps and how many images it is given; breaks those of class 0."""

    steps: int = 3
    step_size: float | None = None

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
        CALLS.append((threat.eps, self.steps, len(x), self.step_size, until_broken))
        return torch.where(y.view(-1, 1, 1, 1) == 0, x + 1, x)


CALLS: list[tuple[float, int, int, float | None, bool]] = []


def test_what_is_broken_is_not_attacked_at_larger_radii_but_at_every_number_of_steps():
    CALLS.clear()
    data = pixels([120, 120, 255, 255], [0, 0, 1, 1])
    curve(Brightness(), data, Noted(), eps=[0.0, 0.1, 0.2], steps=[1, 2])
    assert CALLS == [(0.1, 3, 4, None, True), (0.2, 3, 2, None, True), (0.1, 1, 4, None, True), (0.1, 2, 4, None, True)]


def test_a_step_size_of_its_own_goes_with_the_radius_and_not_with_the_steps():
    CALLS.clear()
    curve(Brightness(), pixels([255], [1]), Noted(step_size=0.02), eps=[0.05, 0.3], steps=[6])
    assert [call[3] for call in CALLS] == pytest.approx([0.01, 0.06, 0.02])


def test_each_curve_holds_what_measuring_alone_gives(dense, validation):
    attack = PGD(steps=4)
    found = robustness_curve(
        dense, validation, attack, THREAT, eps=[0, 0.05, 0.1, 0.3], steps=[1, 4, 8], batch_size=50, seed=3
    )
    clean = int(clean_correct(dense, validation, 50).sum())
    assert counts(found.eps)[0.0] == clean
    values = [accuracy.correct for _, accuracy in found.eps]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[1] > values[-1]
    for steps, accuracy in found.steps:
        alone = measure(dense, validation, PGD(steps=steps), THREAT, batch_size=50, seed=3)
        assert accuracy == alone.robust
    first = robustness_curve(dense, validation, attack, THREAT, eps=[0.05], batch_size=50, seed=3)
    assert first.eps[0] == found.eps[1]


def test_no_lists_no_curves(validation, dense):
    assert robustness_curve(dense, validation, FGSM(), THREAT, batch_size=50, seed=0) == RobustnessCurves((), ())


@pytest.mark.parametrize(
    ("attack", "lists", "said"),
    [
        (FGSM(), {"steps": [5]}, "steps = 5: FGSM takes no number of steps"),
        (PGD(), {"steps": [5, 0]}, "steps = 0"),
        (PGD(), {"eps": [0.1, -0.1]}, "eps = -0.1"),
        (PGD(), {"eps": [float("nan")]}, "eps = nan"),
    ],
)
def test_mistakes_are_one_line_before_any_work(attack, lists, said):
    class Untouched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("ran")

    with pytest.raises(AtmcError, match=said) as caught:
        curve(Untouched(), PIXELS, attack, **lists)
    assert "\n" not in str(caught.value)
