"""The adapter to pyautoattack: what the package gives, wherever it would fail, and nothing disturbed."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pyautoattack
import pytest
import torch
from torch import Tensor, nn

from atmc_search.attacks import APGDCE, APGDT, AutoAttack, ThreatModel, perturb

N = 30
QUICK: dict[str, Any] = {"steps": 10, "square_queries": 20}
both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def problem(classes: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, and images that it gets right, of which some can be broken and some cannot."""
    with torch.random.fork_rng():
        torch.manual_seed(classes)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 32), nn.ReLU(), nn.Linear(32, classes)).eval()
        x = torch.rand(N, 1, 6, 6)
    with torch.no_grad():
        model[-1].bias -= model(x).mean(0)  # so that every class is near for some image
    return model, x, model(x).argmax(1)


def attacked(
    attack: Any, model: nn.Module, x: Tensor, y: Tensor, norm: Any, eps: float = 0.05, seed: int = 0
) -> Tensor:
    threat = ThreatModel(norm=norm, eps=eps if norm == "linf" else 4 * eps)
    return perturb(attack, model, x, y, threat, torch.Generator().manual_seed(seed), until_broken=True)


def broken(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return model(x).argmax(1) != y


@both_norms
def test_it_is_the_package(norm: Any) -> None:
    model, x, y = (part if isinstance(part, nn.Module) else part[:8] for part in problem(4))
    seed = int(torch.randint(2**31 - 1, (), generator=torch.Generator().manual_seed(0)))
    with torch.random.fork_rng():
        ensemble = pyautoattack.AutoAttack(
            model, eps=0.05 if norm == "linf" else 0.2, norm={"linf": "Linf", "l2": "L2"}[norm], seed=seed
        )
        ensemble.square.n_queries = 50
        ensemble.apgd_targeted.n_target_classes = ensemble.fab.n_target_classes = 3
        theirs, _ = ensemble.run_standard_evaluation(x, y)
    ours = attacked(AutoAttack(square_queries=50), model, x, y, norm)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert 0 < broken(model, ours, y).sum() < len(x)


@both_norms
@pytest.mark.parametrize(
    ("classes", "version"), [(2, "standard"), (3, "standard"), (4, "standard"), (2, "plus"), (3, "plus")]
)
def test_with_few_classes_it_is_as_strong_as_its_parts(classes: int, version: Any, norm: Any) -> None:
    model, x, y = problem(classes)
    found = broken(model, attacked(AutoAttack(version=version, **QUICK), model, x, y, norm), y)
    assert 0 < found.sum() < N
    for part in (APGDCE(steps=10), APGDT(steps=10)):
        missed = broken(model, attacked(part, model, x, y, norm), y) & ~found
        assert missed.sum() <= 1


@pytest.mark.parametrize("shape", [(1, 3, 3), (1, 28, 20), (3, 1, 8)])
@both_norms
def test_images_that_square_cannot_take_are_attacked_by_the_rest(shape: tuple[int, ...], norm: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = torch.rand(4, *shape)
        model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 5)).eval()
    y = model(x).argmax(1)
    assert broken(model, attacked(AutoAttack(**QUICK), model, x, y, norm, eps=0.3), y).any()


@both_norms
@pytest.mark.parametrize("classes", [2, 5])
def test_images_that_are_wrong_or_too_few_are_given_back(classes: int, norm: Any) -> None:
    model, x, y = problem(classes)
    wrong = (y + 1) % classes
    assert torch.equal(attacked(AutoAttack(**QUICK), model, x, wrong, norm), x)
    assert attacked(AutoAttack(**QUICK), model, x[:0], y[:0], norm).shape == x[:0].shape
    one = attacked(AutoAttack(**QUICK), model, x[:1], y[:1], norm, eps=1.0)
    assert broken(model, one, y[:1]).all()
    wrong[0] = y[0]  # a single right one among the wrong
    mixed = attacked(AutoAttack(**QUICK), model, x, wrong, norm, eps=1.0)
    assert broken(model, mixed, wrong).all()
    assert torch.equal(mixed[1:], x[1:])


def test_the_seed_comes_from_the_generator() -> None:
    model, x, y = problem(10)
    first, again, other = (attacked(AutoAttack(**QUICK), model, x, y, "linf", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_other_dtypes_come_back_as_they_were() -> None:
    model, x, y = problem(10)
    x_adv = attacked(AutoAttack(**QUICK), model.double(), x.double(), y, "linf")
    assert x_adv.dtype == torch.float64
    assert broken(model, x_adv, y).any()


def test_says_nothing_and_disturbs_nobody(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    caplog.set_level(logging.DEBUG)
    model, x, y = problem(3)
    before, trace, calls = torch.get_rng_state(), sys.gettrace(), []

    def tracer(frame: Any, event: str, arg: Any) -> None:
        calls.append(event)

    sys.settrace(tracer)
    try:
        attacked(AutoAttack(version="plus", **QUICK), model, x, y, "linf")
        kept = sys.gettrace()
    finally:
        sys.settrace(trace)
    assert kept is tracer
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert not [warning for warning in recwarn if "pyautoattack" in warning.filename]
    assert not logging.getLogger("auto-attack").disabled


def test_a_failure_leaves_nothing_behind() -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    model, x, y = problem(5)
    model.register_forward_hook(lambda module, args, output: fail() if len(args[0]) > 1 else None)
    before, trace = torch.get_rng_state(), sys.gettrace()
    with pytest.raises(RuntimeError, match="no"):
        attacked(AutoAttack(**QUICK), model, x, y, "linf")
    assert torch.equal(torch.get_rng_state(), before)
    assert sys.gettrace() is trace
    assert not logging.getLogger("auto-attack").disabled
