from __future__ import annotations

import math

import pytest
import torch
from stages import plain_stage, small_model, step_of

from atmc_search.data import DeviceData
from atmc_search.training import learning_rate, make_optimizer, train_epoch


@pytest.mark.parametrize(
    ("schedule", "progress", "share"),
    [
        ("constant", 0.0, 1),
        ("constant", 0.9, 1),
        ("cosine", 0.0, 1),
        ("cosine", 1 / 3, 0.75),
        ("cosine", 0.5, 0.5),
        ("cosine", 2 / 3, 0.25),
        ("cosine", 1.0, 0),
        ("linear", 0.0, 1),
        ("linear", 0.3, 0.7),
        ("linear", 1.0, 0),
        ("cyclic", 0.0, 0),
        ("cyclic", 0.1, 0.25),
        ("cyclic", 0.4, 1),
        ("cyclic", 0.7, 0.5),
        ("cyclic", 1.0, 0),
    ],
)
def test_learning_rate_is_half_a_cosine_a_line_or_constant(schedule, progress, share):
    stage = plain_stage(epochs=1, lr=0.4, lr_schedule=schedule)
    assert learning_rate(stage, progress) == pytest.approx(0.4 * share, abs=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warmup_and_schedule_are_torch_s_one_after_the_other(schedule):
    """12 steps of warmup out of 40: 4 epochs of 10 steps, of which 1.2 warm up."""
    lr_scheduler = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.4)
    parts = {
        "constant": lambda: lr_scheduler.ConstantLR(optimizer, 1.0),
        "linear": lambda: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=28),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, 28),
    }
    rising = lr_scheduler.LinearLR(optimizer, 1e-9, 1.0, total_iters=12)
    reference = lr_scheduler.SequentialLR(optimizer, [rising, parts[schedule]()], milestones=[12])
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    stage = plain_stage(epochs=4, lr=0.4, lr_schedule=schedule, warmup=1.2)
    assert [learning_rate(stage, step / 40) for step in range(40)] == pytest.approx(expected, abs=1e-8)


def test_the_rate_falls_with_every_step_over_all_epochs(tiny_splits):
    digits = DeviceData(tiny_splits.train, "cpu")
    stage = plain_stage(epochs=3, lr=0.1, batch_size=64)
    step = step_of(small_model(), stage)
    rates: list[float] = []
    step.optimizer.register_step_pre_hook(lambda opt, args, kwargs: rates.append(opt.param_groups[0]["lr"]))
    for epoch in range(3):
        train_epoch(step, digits, epoch=epoch, seed=0, label="x")
    steps = 3 * math.ceil(256 / 64)
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * i / steps)) for i in range(steps)])


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_optimizer_is_sgd_over_every_parameter(nesterov):
    stage = plain_stage(epochs=1, lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=nesterov)
    model = small_model()
    (group,) = make_optimizer(model, stage).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.1, 0.8, 0.01, nesterov)
