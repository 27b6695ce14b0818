from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from pydantic import PrivateAttr
from stages import THREAT, plain_stage, small_model, step_of, train
from torch import Tensor, nn

from atmc_search.attacks import FGSM, PGD, Attack, ThreatModel, perturb
from atmc_search.data import DeviceData, ImageSet, Splits
from atmc_search.training import seeded

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tiny_splits: Splits) -> DeviceData:
    return DeviceData(tiny_splits.train, "cpu")


def test_by_default_an_epoch_is_plain_sgd_on_a_cosine_to_the_bit(digits):
    stage = plain_stage(epochs=2, lr=0.05, batch_size=64)
    model, reference = small_model(), small_model()
    found = train(step_of(model, stage), digits)
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
    model, reference = small_model("mlp", hidden=[6]), small_model("mlp", hidden=[6])
    with seeded(CPU, 0, "train", 0) as generator:
        ((x, y),) = digits.batches(1000, generator)
        x_adv = perturb(PGD(steps=2), reference, x, y, THREAT, generator)
    nn.functional.cross_entropy(reference(x_adv), y).backward()
    whole = float(torch.cat([p.grad.reshape(-1) for p in reference.parameters()]).norm())
    nn.utils.clip_grad_norm_(reference.parameters(), norm)
    before = [p.detach().clone() for p in model.parameters()]
    train(step_of(model, stage), digits)
    moved = [old - new.detach() for old, new in zip(before, model.parameters(), strict=True)]
    for step, parameter in zip(moved, reference.parameters(), strict=True):
        assert torch.allclose(step, parameter.grad, atol=1e-6)
    assert float(torch.cat([step.reshape(-1) for step in moved]).norm()) == pytest.approx(min(norm, whole), rel=1e-3)


def trained(data: DeviceData, **changes: Any) -> dict[str, Tensor]:
    model = small_model()
    attack = changes.pop("attack", PGD(steps=2))
    train(step_of(model, plain_stage(epochs=1, lr=0.05, batch_size=64), attack), data, **changes)
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
    first, second = train(step_of(small_model(), stage), digits)
    assert first.loss != second.loss  # the weights stand still


# --- the loss


def test_the_loss_goes_down_and_accuracy_up(digits):
    stats = train(step_of(small_model("mlp", hidden=[32]), plain_stage(epochs=6, lr=0.05, batch_size=32)), digits)
    assert stats[-1].loss < 0.5 * stats[0].loss
    assert stats[-1].adversarial_accuracy > stats[0].adversarial_accuracy
    assert all(0 <= s.adversarial_accuracy <= 1 for s in stats)


def test_stats_are_means_over_images_not_over_batches(digits):
    """With weights that stand still and no adversary, an uneven last batch must not weigh more than its images."""
    model = small_model()
    images = ImageSet(digits.images[:100].numpy(), digits.labels[:100].numpy())
    data = DeviceData(images, "cpu")
    stage = plain_stage(epochs=1, lr=1e-12, batch_size=64, weight_decay=0.0)
    still = ThreatModel(eps=0.0)
    (stats,) = train(step_of(model, stage, FGSM(), still), data)
    logits = model(data.images.float() / 255).detach()
    assert stats.loss == pytest.approx(float(nn.functional.cross_entropy(logits, data.labels)), rel=1e-5)
    assert stats.adversarial_accuracy == pytest.approx(float((logits.argmax(1) == data.labels).float().mean()))


def test_training_is_on_adversarial_images(digits):
    stage = plain_stage(epochs=1, lr=1e-12, batch_size=64)
    (weak,) = train(step_of(small_model(), stage, PGD(steps=1, step_size=1e-9, random_start=False)), digits)
    (strong,) = train(step_of(small_model(), stage, PGD(steps=5)), digits)
    assert strong.loss > weak.loss + 0.01


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
    train(step_of(model, plain_stage(epochs=1, lr=0.01, batch_size=64), attack), digits)
    assert len(attack._seen) == 4
    for training, before, after in attack._seen:
        assert not training
        assert torch.equal(before, after)
    starts = [before for _, before, _ in attack._seen]
    assert all(not torch.equal(one, two) for one, two in pairwise(starts))
    assert all(module.training for module in model.modules())


def test_images_are_augmented_before_the_attack_from_the_epoch_s_own_stream(digits):
    seen: list[Tensor] = []

    class Look(FGSM):
        def __call__(self, model, x, y, threat, generator, *, until_broken=False):
            seen.append(x.clone())
            return super().__call__(model, x, y, threat, generator)

    def epoch(augment):
        seen.clear()
        train(step_of(small_model(), plain_stage(epochs=1, lr=0.01, batch_size=64), Look(), augment=augment), digits)
        return torch.cat(seen)

    plain = epoch(None)
    mirrored = epoch(lambda x, generator: x.flip(3))
    assert torch.equal(mirrored, plain.flip(3))
    drawn = epoch(lambda x, generator: x * torch.rand(len(x), 1, 1, 1, generator=generator))
    assert torch.equal(drawn, epoch(lambda x, generator: x * torch.rand(len(x), 1, 1, 1, generator=generator)))
    assert not torch.equal(drawn, plain)
