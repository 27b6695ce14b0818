from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from stages import plain_stage, small_model, step_of
from torch import Tensor, nn

from atmc_search.attacks import NoAttack
from atmc_search.training.losses import CrossEntropy, Loss
from atmc_search.training.parts import Average, Moment, Part

AT = Moment(3, 10)


def batch(images: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(images, 1, 8, 8, generator=generator), torch.randint(10, (images,), generator=generator)


class Telling(Part):
    """Tells of every call, with what it finds of a parameter."""

    name = "telling"

    def __init__(self, model: nn.Module, log: list[Any], name: str = "telling") -> None:
        self.name = name  # type: ignore[misc]
        self.parameter = next(model.parameters())
        self.log = log

    def tell(self, hook: str, at: Moment) -> None:
        assert at == AT
        self.log.append((self.name, hook, self.parameter.grad is not None, self.parameter.detach().clone()))

    @contextmanager
    def seen(self, at: Moment) -> Iterator[None]:
        self.tell("seen", at)
        yield
        self.tell("unseen", at)

    def objective(self, value: Tensor, x: Tensor, logits: Tensor, weights: Tensor | None) -> Tensor:
        self.log.append((self.name, "objective"))
        return 3 * value + 1

    def before_step(self, at: Moment) -> None:
        self.tell("before", at)

    def after_step(self, at: Moment) -> None:
        self.tell("after", at)

    @contextmanager
    def final(self) -> Iterator[None]:
        self.log.append((self.name, "final"))
        yield
        self.log.append((self.name, "over"))

    def catch_up(self, progress: float) -> None:
        self.log.append((self.name, "catch_up", progress))


def test_hooks_are_called_in_the_order_of_the_parts_and_find_what_they_are_promised():
    model, log = small_model("mlp", hidden=[6]), []
    step = step_of(model, plain_stage(epochs=1), parts=[Telling(model, log, "a"), Telling(model, log, "b")])
    before = next(model.parameters()).detach().clone()
    figures = step(*batch(), torch.Generator(), AT)
    assert [entry[:2] for entry in log] == [
        ("a", "seen"), ("b", "seen"), ("a", "objective"), ("b", "objective"), ("b", "unseen"), ("a", "unseen"),
        ("a", "before"), ("b", "before"), ("a", "after"), ("b", "after"),
    ]  # fmt: skip
    told = [entry for entry in log if entry[1] in ("before", "after")]
    assert all(has_gradient for _, _, has_gradient, _ in told)
    assert [torch.equal(found, before) for *_, found in told] == [True, True, False, False]
    plain = step_of(small_model("mlp", hidden=[6]), plain_stage(epochs=1))(*batch(), torch.Generator(), AT)
    assert figures.loss.item() == pytest.approx(3 * (3 * plain.loss.item() + 1) + 1)  # b's term is of a's
    assert figures.hits == plain.hits
    log.clear()
    with step.final():
        assert log == [("a", "final"), ("b", "final")]
    assert log[2:] == [("b", "over"), ("a", "over")]
    log.clear()
    step.go_back(*step.state(), 0.25)
    assert log == [("a", "catch_up", 0.25), ("b", "catch_up", 0.25)]


def test_two_parts_of_one_name_are_a_mistake():
    model = small_model()
    with pytest.raises(AssertionError):
        step_of(model, plain_stage(epochs=1), parts=[Average(model, 0.5), Average(model, 0.9)])


def test_a_step_on_weighted_examples_moves_as_one_on_those_that_count():
    """Weights of 0 and 1 without an adversary: the same step as on the images of weight 1 alone."""
    x, y = batch()
    weights = (torch.arange(16) % 2).float()
    moved = []
    for images, labels, given in ((x, y, weights), (x[1::2], y[1::2], None)):
        model = small_model("mlp", hidden=[6])
        step = step_of(model, plain_stage(epochs=1), NoAttack())
        figures = step(images, labels, torch.Generator(), AT, given)
        moved.append((figures.loss, [parameter.detach() for parameter in model.parameters()]))
    assert moved[0][0].item() == pytest.approx(moved[1][0].item())
    for weighted, alone in zip(moved[0][1], moved[1][1], strict=True):
        assert torch.allclose(weighted, alone, atol=1e-6)


class WithoutWeights(Loss):
    """As a user wrote it before examples had weights."""

    def __call__(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return CrossEntropy()(model, x, x_adv, y)


def test_a_user_s_loss_without_weights_works_where_none_are_given():
    found = []
    for loss in (WithoutWeights(), CrossEntropy()):
        step = step_of(small_model("mlp", hidden=[6]), plain_stage(epochs=1), loss=loss)
        found.append(step(*batch(), torch.Generator().manual_seed(0), AT).loss)
    assert torch.equal(found[0], found[1])
    with pytest.raises(TypeError):
        step_of(small_model(), plain_stage(epochs=1), loss=WithoutWeights())(
            *batch(), torch.Generator(), AT, torch.ones(16)
        )


def test_a_state_is_left_alone_by_the_steps_after_it_is_loaded():
    step = step_of(small_model("mlp", hidden=[6]), plain_stage(epochs=1))
    generator = torch.Generator().manual_seed(0)
    step(*batch(), generator, AT)
    state = {name: tensor.clone() for name, tensor in step.state()[0].items()}
    kept = {name: tensor.clone() for name, tensor in state.items()}
    assert {name.partition("/")[0] for name in state} == {"model", "momentum"}
    step.load(state, {})
    step(*batch(), generator, AT)
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())
    assert any(not torch.equal(step.state()[0][name], tensor) for name, tensor in kept.items())


def test_loading_a_state_without_momentum_takes_it_away():
    step = step_of(small_model("mlp", hidden=[6]), plain_stage(epochs=1))
    start = {name: tensor.clone() for name, tensor in step.state()[0].items()}
    step(*batch(), torch.Generator(), AT)
    step.load(start, {})
    found = step.state()[0]
    assert found.keys() == start.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in start.items())
