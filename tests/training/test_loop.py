from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import PrivateAttr
from stages import plain_stage
from torch import Tensor, nn

from atmc_search.attacks import FGSM, PGD, Attack, ThreatModel, perturb
from atmc_search.compress import Codebook, CubicSchedule, GlobalL0, GrowSchedule, constrained_weights, factorise
from atmc_search.data import DeviceData, ImageSet, Splits
from atmc_search.errors import TrialFailed
from atmc_search.models import build_model
from atmc_search.tasks.atmc.spec import AtmcSpec
from atmc_search.training import (
    Constrained,
    EpochStats,
    all_finite,
    learning_rate,
    make_optimizer,
    seeded,
    train_epoch,
)
from atmc_search.training.stage import StageSpec

THREAT = ThreatModel(norm="linf", eps=0.1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tiny_splits: Splits) -> DeviceData:
    return DeviceData(tiny_splits.train, "cpu")


def fresh(name: str = "small_cnn", **args: object) -> nn.Module:
    shape = (1, 8, 8)
    args = args or {"width": 4}
    return build_model(name, args, input_shape=shape, classes=10, mean=[0.3], std=[0.3], seed=0)


def train(
    model: nn.Module,
    data: DeviceData,
    stage: StageSpec,
    *,
    attack: Attack | None = None,
    constrained: Constrained | None = None,
    seed: int = 0,
    label: str = "train",
    epochs: range | None = None,
) -> list[EpochStats]:
    optimizer = make_optimizer(model, stage)
    return [
        train_epoch(
            model,
            data,
            optimizer,
            stage=stage,
            epoch=epoch,
            seed=seed,
            label=label,
            attack=attack or PGD(steps=2),
            threat=THREAT,
            constrained=constrained,
        )
        for epoch in epochs or range(stage.epochs)
    ]


# --- learning rate


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


def test_the_rate_falls_with_every_step_over_all_epochs(digits):
    stage = plain_stage(epochs=3, lr=0.1, batch_size=64)
    model = fresh()
    rates: list[float] = []
    optimizer = make_optimizer(model, stage)
    optimizer.register_step_pre_hook(lambda opt, args, kwargs: rates.append(opt.param_groups[0]["lr"]))
    for epoch in range(3):
        train_epoch(model, digits, optimizer, stage=stage, epoch=epoch, seed=0, label="x", attack=FGSM(), threat=THREAT)
    steps = 3 * math.ceil(256 / 64)
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * i / steps)) for i in range(steps)])


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_optimizer_is_sgd_over_every_parameter(nesterov):
    stage = plain_stage(epochs=1, lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=nesterov)
    model = fresh()
    (group,) = make_optimizer(model, stage).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.1, 0.8, 0.01, nesterov)


def test_by_default_an_epoch_is_plain_sgd_on_a_cosine_to_the_bit(digits):
    stage = plain_stage(epochs=2, lr=0.05, batch_size=64)
    model, reference = fresh(), fresh()
    found = train(model, digits, stage)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for epoch in range(2):
        total = torch.zeros(())
        with seeded(CPU, 0, "train", epoch) as generator:
            for i, (x, y) in enumerate(digits.batches(64, generator)):
                optimizer.param_groups[0]["lr"] = 0.05 * 0.5 * (1 + math.cos(math.pi * ((epoch * 4 + i) / 8)))
                loss = nn.functional.cross_entropy(
                    reference(perturb(PGD(steps=2), reference, x, y, THREAT, generator)), y
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(y)
        assert found[epoch].loss == float(total) / 256
    for name, tensor in reference.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.parametrize("norm", [1e-3, 0.5, 1e6])
def test_clipping_scales_the_gradient_of_all_parameters_to_the_norm(digits, norm):
    """One step from rest at rate 1: the weights move by the gradient, which torch clips in the reference."""
    stage = plain_stage(epochs=1, lr=1.0, batch_size=1000, momentum=0.0, weight_decay=0.0, clip_norm=norm)
    model, reference = fresh("mlp", hidden=[6]), fresh("mlp", hidden=[6])
    with seeded(CPU, 0, "train", 0) as generator:
        ((x, y),) = digits.batches(1000, generator)
        x_adv = perturb(PGD(steps=2), reference, x, y, THREAT, generator)
    nn.functional.cross_entropy(reference(x_adv), y).backward()
    whole = float(torch.cat([p.grad.reshape(-1) for p in reference.parameters()]).norm())
    nn.utils.clip_grad_norm_(reference.parameters(), norm)
    before = [p.detach().clone() for p in model.parameters()]
    train(model, digits, stage)
    moved = [old - new.detach() for old, new in zip(before, model.parameters(), strict=True)]
    for step, parameter in zip(moved, reference.parameters(), strict=True):
        assert torch.allclose(step, parameter.grad, atol=1e-6)
    assert float(torch.cat([step.reshape(-1) for step in moved]).norm()) == pytest.approx(min(norm, whole), rel=1e-3)


# --- seeds


def stream(*parts: int | str) -> list[float]:
    with seeded(CPU, *parts) as generator:
        return torch.rand(4, generator=generator).tolist()


def test_equal_parts_give_equal_streams_and_different_ones_different():
    parts = [(0, "train", 0), (0, "train", 1), (0, "dense", 0), (1, "train", 0), (0, "train", 10), (0, "evaluate")]
    streams = [stream(*p) for p in parts]
    assert streams == [stream(*p) for p in parts]
    assert len({tuple(s) for s in streams}) == len(parts)


def test_the_global_generator_is_seeded_inside_and_put_back_after():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with seeded(CPU, 0, "train", 0):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(9)
    with seeded(CPU, 0, "train", 0):
        assert torch.equal(torch.rand(3), first)


def test_the_global_generator_is_put_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), seeded(CPU, 1):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def trained(data: DeviceData, **changes: object) -> dict[str, Tensor]:
    model = fresh()
    train(model, data, plain_stage(epochs=1, lr=0.05, batch_size=64), **changes)  # type: ignore[arg-type]
    return model.state_dict()


@pytest.mark.parametrize(
    ("changes", "same"),
    [({}, True), ({"seed": 1}, False), ({"label": "dense"}, False), ({"attack": PGD(steps=3)}, False)],
)
def test_an_epoch_follows_from_seed_label_and_attack_and_not_from_the_global_state(digits, changes, same):
    reference = trained(digits)
    torch.rand(7)
    other = trained(digits, **changes)
    assert all(torch.equal(reference[k], other[k]) for k in reference) == same


def test_epochs_differ_in_order_and_attack(digits):
    stage = plain_stage(epochs=2, lr=1e-12, lr_schedule="constant", batch_size=64, weight_decay=0.0)
    first, second = train(fresh(), digits, stage)
    assert first.loss != second.loss  # the weights stand still


# --- the loss


def test_the_loss_goes_down_and_accuracy_up(digits):
    stats = train(fresh("mlp", hidden=[32]), digits, plain_stage(epochs=6, lr=0.05, batch_size=32))
    assert stats[-1].loss < 0.5 * stats[0].loss
    assert stats[-1].adversarial_accuracy > stats[0].adversarial_accuracy
    assert all(0 <= s.adversarial_accuracy <= 1 for s in stats)


def test_stats_are_means_over_images_not_over_batches(digits):
    """With weights that stand still and no adversary, an uneven last batch must not weigh more than its images."""
    model = fresh()
    images = ImageSet(digits.images[:100].numpy(), digits.labels[:100].numpy())
    data = DeviceData(images, "cpu")
    stage = plain_stage(epochs=1, lr=1e-12, batch_size=64, weight_decay=0.0)
    still = ThreatModel(eps=0.0)
    stats = train_epoch(
        model,
        data,
        make_optimizer(model, stage),
        stage=stage,
        epoch=0,
        seed=0,
        label="train",
        attack=FGSM(),
        threat=still,
    )
    logits = model(data.images.float() / 255).detach()
    assert stats.loss == pytest.approx(float(nn.functional.cross_entropy(logits, data.labels)), rel=1e-5)
    assert stats.adversarial_accuracy == pytest.approx(float((logits.argmax(1) == data.labels).float().mean()))


def test_training_is_on_adversarial_images(digits):
    stage = plain_stage(epochs=1, lr=1e-12, batch_size=64)
    (weak,) = train(fresh(), digits, stage, attack=PGD(steps=1, step_size=1e-9, random_start=False))
    (strong,) = train(fresh(), digits, stage, attack=PGD(steps=5))
    assert strong.loss > weak.loss + 0.01


@pytest.mark.parametrize("lr", [1e3, 1e8, 1e30])
@pytest.mark.parametrize("codebook_from", [0.0, 0.5])
def test_divergence_is_a_failed_trial_with_a_reason(digits, tiny_trial, lr, codebook_from):
    model = fresh()
    constrained = bound(
        model, tiny_trial(compress={"codebook_from": codebook_from, "dual_every": 1, "bits": 2}), "none"
    )
    stage = plain_stage(epochs=3, lr=lr, batch_size=16)
    with pytest.raises(
        TrialFailed, match=r"diverged: (train loss is (nan|inf) in epoch \d \(peak lr|weights are not finite)"
    ) as caught:
        train(model, digits, stage, constrained=constrained)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("value", "finite"), [(0.0, True), (1e38, True), (math.nan, False), (-math.inf, False)])
def test_all_finite(value, finite):
    assert all_finite({"a": torch.ones(2), "b": torch.tensor([1.0, value])}) == finite


# --- batch norm


class Watcher(Attack):
    """Notes the mode and the batch norm statistics at its start and after several forward passes."""

    _seen: list[tuple[bool, Tensor, Tensor]] = PrivateAttr(default_factory=list)

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
        norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
        assert norm.running_mean is not None
        before = norm.running_mean.clone()
        for _ in range(3):
            model(x * 0.5)
        self._seen.append((norm.training, before, norm.running_mean.clone()))
        return x


def test_batch_norm_statistics_move_in_the_training_step_and_never_in_the_attack(digits):
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 10))
    attack = Watcher()
    train(model, digits, plain_stage(epochs=1, lr=0.01, batch_size=64), attack=attack)
    assert len(attack._seen) == 4
    for training, before, after in attack._seen:
        assert not training
        assert torch.equal(before, after)
    starts = [before for _, before, _ in attack._seen]
    assert all(not torch.equal(one, two) for one, two in pairwise(starts))
    assert all(module.training for module in model.modules())


# --- constraints


@dataclass
class Counted(Constrained):
    """Counts non-zeros after every step."""

    counts: list[int] = field(default_factory=list)

    def after_step(self, step: int, progress: float) -> None:
        super().after_step(step, progress)
        self.counts.append(sum(int(torch.count_nonzero(w)) for w in self.weights.values()))


def bound(model: nn.Module, spec: AtmcSpec, factors: str) -> Counted:
    layers = factorise(model, factors)  # type: ignore[arg-type]
    dense = sum(layer.rows * layer.columns for layer in layers)
    settings = spec.compress
    codebook = (lambda weights: Codebook(settings.bits)) if settings.bits < 32 else None
    budget = GlobalL0(round(settings.keep * dense))
    return Counted(constrained_weights(model, layers), budget, codebook, settings)


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
@pytest.mark.parametrize("keep", [0.01, 0.3])
def test_after_every_step_all_factors_together_keep_the_budget(
    digits, tiny_trial: Callable[..., AtmcSpec], factors, keep
):
    model = fresh()
    dense = sum(m.weight.numel() for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    constrained = bound(model, tiny_trial(compress={"keep": keep, "bits": 2, "codebook_from": 0.3}), factors)
    train(model, digits, plain_stage(epochs=2, lr=0.05, batch_size=64), constrained=constrained)
    assert len(constrained.counts) == 8
    assert constrained.counts == [round(keep * dense)] * 8  # full: dense gradients leave no weight at zero
    assert constrained.admm is not None


@pytest.mark.parametrize("factors", ["none", "uvc", "uvc_plain"])
def test_a_schedule_s_budget_is_kept_after_every_step(digits, tiny_trial, factors):
    model = fresh()
    constrained = bound(model, tiny_trial(compress={"bits": 32}), factors)
    entries, k = sum(w.numel() for w in constrained.weights.values()), constrained.pruning.k
    constrained.schedule = CubicSchedule(entries=entries, k=k, begin=0.25, end=0.625, freeze=0.75)
    train(model, digits, plain_stage(epochs=2, lr=0.05, batch_size=64), constrained=constrained)
    # Eight steps; after 3, 4 and 5 of them a third, two thirds and all of the way from 0.25 to 0.625.
    shares = [1, 1, (2 / 3) ** 3, (1 / 3) ** 3, 0, 0, 0, 0]
    budgets = [k + round((entries - k) * share) for share in shares]
    assert constrained.counts[2:] == budgets[2:]
    assert all(budgets[2] < count <= entries for count in constrained.counts[:2])  # of U some entries are 0 at first


@pytest.mark.parametrize("factors", ["none", "uvc_plain"])
def test_a_support_that_grows_and_drops_keeps_its_size_and_changes_on_time_alone(digits, tiny_trial, factors):
    constrained = bound(fresh(), tiny_trial(compress={"bits": 32}), factors)
    constrained.grow = GrowSchedule(every=3, share=0.5, begin=0.0, end=0.7)
    constrained.project(0.0)
    steps = 16
    supports = []
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        for weight in constrained.weights.values():
            weight.grad = torch.randn(weight.shape, generator=generator)
        constrained.before_step(step / steps, step)
        with torch.no_grad():
            for weight in constrained.weights.values():
                weight.sub_(weight.grad, alpha=0.01)
        constrained.after_step(step, (step + 1) / steps)
        supports.append(torch.cat([w.detach().reshape(-1) != 0 for w in constrained.weights.values()]))
    assert {int(support.sum()) for support in supports} == {constrained.pruning.k}
    moved = [step + 1 for step, (old, new) in enumerate(pairwise(supports)) if not torch.equal(old, new)]
    assert moved == [3, 6, 9]  # 12 of 16 is past the end


@pytest.mark.parametrize("factors", ["none", "uvc"])
def test_once_frozen_the_support_stands_still_whatever_the_steps_do(tiny_trial, factors):
    constrained = bound(fresh(), tiny_trial(compress={"bits": 32}), factors)
    entries, k = sum(w.numel() for w in constrained.weights.values()), constrained.pruning.k
    constrained.schedule = CubicSchedule(entries=entries, k=k, begin=0.25, end=0.625, freeze=0.75)
    supports = []
    for progress in (0.7, 0.74, 0.75, 0.9):
        constrained.before_step(progress)
        with torch.no_grad():
            for weight in constrained.weights.values():
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(round(100 * progress))))
        constrained.after_step(0, progress + 0.01)
        supports.append(torch.cat([w.detach().reshape(-1) != 0 for w in constrained.weights.values()]))
    assert [int(support.sum()) for support in supports] == [k] * 4
    assert not torch.equal(supports[0], supports[1])
    assert torch.equal(supports[1], supports[2])
    assert torch.equal(supports[2], supports[3])


def test_admm_sets_in_at_its_share_of_training_and_the_duals_follow_every_few_steps(digits, tiny_trial):
    model = fresh()
    settings = {"codebook_from": 0.5, "dual_every": 3, "bits": 2}
    constrained = bound(model, tiny_trial(compress=settings), "none")
    optimizer_steps: list[tuple[bool, float]] = []
    after = constrained.after_step

    def noted(step: int, progress: float) -> None:
        after(step, progress)
        admm = constrained.admm
        total = sum(float(d.abs().sum()) for d in admm.duals.values()) if admm else 0.0
        optimizer_steps.append((admm is not None, total))

    constrained.after_step = noted  # type: ignore[method-assign]
    train(model, digits, plain_stage(epochs=2, lr=0.05, batch_size=32), constrained=constrained)
    assert len(optimizer_steps) == 16
    assert [active for active, _ in optimizer_steps] == [step >= 8 for step in range(16)]
    totals = [total for _, total in optimizer_steps]
    moved = [step for step in range(1, 16) if totals[step] != totals[step - 1]]
    assert moved == [8, 11, 14]  # the steps for which step + 1 is a multiple of 3


def test_without_a_codebook_admm_never_sets_in(digits, tiny_trial):
    model = fresh()
    constrained = bound(model, tiny_trial(compress={"bits": 32, "codebook_from": 0.0}), "none")
    train(model, digits, plain_stage(epochs=1, lr=0.05, batch_size=64), constrained=constrained)
    assert constrained.admm is None


def test_admm_draws_the_weights_to_their_codebook(digits, tiny_trial):
    """The distance to 2 values a tensor is far smaller at the end with the penalty than without."""

    def distance(rho: float) -> float:
        model = fresh("mlp", hidden=[16])
        settings = {"bits": 1, "codebook_from": 0.0, "rho": rho, "dual_every": 10}
        constrained = bound(model, tiny_trial(compress=settings), "none")
        train(model, digits, plain_stage(epochs=8, lr=0.02, batch_size=32), constrained=constrained)
        codebook = Codebook(1)
        weights = {name: w.detach() for name, w in constrained.weights.items()}
        copies, _ = codebook.project(weights, codebook.init(weights))
        apart = sum(float((weights[n] - copies[n]).square().sum()) for n in weights)
        return apart / sum(float(w.square().sum()) for w in weights.values())

    assert distance(1.0) < 0.2 * distance(0.0)


def test_steps_with_rho_zero_equal_steps_without_a_codebook(digits, tiny_trial):
    states = []
    for settings in ({"rho": 0.0, "bits": 2, "codebook_from": 0.0}, {"bits": 32}):
        model = fresh()
        train(
            model,
            digits,
            plain_stage(epochs=1, lr=0.05, batch_size=64),
            constrained=bound(model, tiny_trial(compress=settings), "none"),
        )
        states.append(model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_one_constrained_step_is_the_paper_s(digits, tiny_trial):
    """θ ← top-k(θ − γ ∇[f + ρ/2 ‖θ − θ' + u‖²]), in numpy, on one batch without adversary, decay or momentum."""
    spec = tiny_trial(compress={"keep": 0.3, "bits": 1, "rho": 0.7, "codebook_from": 0.0, "dual_every": 1})
    model = fresh("mlp", hidden=[6])
    constrained = bound(model, spec, "none")
    stage = plain_stage(epochs=1, lr=0.1, batch_size=1000, momentum=0.0, weight_decay=0.0)
    before = {n: w.detach().clone() for n, w in constrained.weights.items()}
    copies, _ = Codebook(1).project(before, {})
    loss = nn.functional.cross_entropy(model(digits.images.float() / 255), digits.labels)
    gradients = torch.autograd.grad(loss, list(constrained.weights.values()))

    moved = [
        before[name].numpy() - 0.1 * (g.numpy() + 0.7 * (before[name] - copies[name]).numpy())
        for name, g in zip(before, gradients, strict=True)
    ]
    magnitudes = np.sort(np.abs(np.concatenate([m.reshape(-1) for m in moved])))[::-1]
    threshold = magnitudes[constrained.pruning.k - 1]
    expected = [np.where(np.abs(m) >= threshold, m, 0) for m in moved]

    optimizer = make_optimizer(model, stage)
    train_epoch(
        model,
        digits,
        optimizer,
        stage=stage,
        epoch=0,
        seed=0,
        label="train",
        attack=FGSM(),
        threat=ThreatModel(eps=0.0),
        constrained=replace(constrained),
    )
    for weight, want in zip(constrained.weights.values(), expected, strict=True):
        assert np.allclose(weight.detach().numpy(), want, atol=1e-6)
        assert np.array_equal(weight.detach().numpy() == 0, want == 0)


# --- augmentation


def test_images_are_augmented_before_the_attack_from_the_epoch_s_own_stream(digits):
    seen: list[Tensor] = []

    class Look(FGSM):
        def __call__(self, model, x, y, threat, generator, *, until_broken=False):
            seen.append(x.clone())
            return super().__call__(model, x, y, threat, generator)

    def epoch(augment):
        seen.clear()
        model = fresh()
        stage = plain_stage(epochs=1, lr=0.01, batch_size=64)
        train_epoch(
            model,
            digits,
            make_optimizer(model, stage),
            stage=stage,
            epoch=0,
            seed=0,
            label="train",
            attack=Look(),
            threat=THREAT,
            augment=augment,
        )
        return torch.cat(seen)

    plain = epoch(None)
    mirrored = epoch(lambda x, generator: x.flip(3))
    assert torch.equal(mirrored, plain.flip(3))
    drawn = epoch(lambda x, generator: x * torch.rand(len(x), 1, 1, 1, generator=generator))
    assert torch.equal(drawn, epoch(lambda x, generator: x * torch.rand(len(x), 1, 1, 1, generator=generator)))
    assert not torch.equal(drawn, plain)
