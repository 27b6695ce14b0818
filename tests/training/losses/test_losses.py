from __future__ import annotations

import copy

import pytest
import torch
from stages import plain_stage, step_of, train
from torch import nn

from atmc_search.attacks import PGD, ThreatModel, perturb
from atmc_search.data import DeviceData
from atmc_search.errors import SpecError
from atmc_search.models import build_model
from atmc_search.spec import Component
from atmc_search.training import build_loss, make_optimizer, seeded
from atmc_search.training.losses import CrossEntropy, Loss, Trades

THREAT = ThreatModel(eps=0.1)


class Halved(Loss):
    """A user's own."""

    def __call__(self, model, x, x_adv, y):
        logits = model(x_adv)
        return nn.functional.cross_entropy(logits, y) / 2, logits


def fresh(name: str = "small_cnn", **args: object) -> nn.Module:
    args = args or {"width": 4}
    return build_model(name, args, input_shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.3], seed=0)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(16, 1, 8, 8, generator=generator)
    x_adv = (x + 0.1 * (2 * torch.rand(x.shape, generator=generator) - 1)).clamp(0, 1)
    return x, x_adv, torch.randint(10, (16,), generator=generator)


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_trades_and_its_gradient_are_those_of_the_written_out_sum(beta):
    model = fresh("mlp", hidden=[12])
    x, x_adv, y = batch()
    value, logits = Trades(beta=beta)(model, x, x_adv, y)
    found = torch.autograd.grad(value, list(model.parameters()))
    p, q = model(x).softmax(1), model(x_adv).softmax(1)
    written = -p[torch.arange(16), y].log().mean() + beta * (p * (p / q).log()).sum(1).mean()
    assert torch.equal(logits, model(x_adv))
    assert value.item() == pytest.approx(written.item(), rel=1e-5)
    for a, b in zip(found, torch.autograd.grad(written, list(model.parameters())), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_under_trades_batch_norm_takes_in_the_clean_and_then_the_adversarial_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 10)).train()
    x, x_adv, y = batch()
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].mean((0, 2, 3)).detach()))
    Trades()(model, x, x_adv, y)
    clean, adversarial = seen
    assert torch.allclose(norm.running_mean, 0.9 * (0.1 * clean) + 0.1 * adversarial, atol=1e-6)


def test_an_epoch_of_trades_is_the_authors_loop(tiny_splits):
    """Their trades_loss, with the stage's attack in place of its own: eval mode in the attack, train mode after."""
    data = DeviceData(tiny_splits.train, "cpu")
    stage = plain_stage(epochs=1, lr=0.05, batch_size=64)
    model = fresh()
    reference = copy.deepcopy(model)
    kl = nn.KLDivLoss(reduction="sum")
    (stats,) = train(step_of(model, stage, PGD(steps=3), THREAT, loss=Trades(beta=4.0)), data)
    optimizer, total = make_optimizer(reference, stage), 0.0
    with seeded(torch.device("cpu"), 0, "train", 0) as generator:
        for i, (x, y) in enumerate(data.batches(64, generator)):
            reference.eval()
            noise = torch.rand(x.shape, generator=generator)
            x_adv = (x + (2 * noise - 1) * 0.1).clamp(0, 1)
            for _ in range(3):
                x_adv.requires_grad_()
                far = kl(reference(x_adv).log_softmax(1), reference(x).softmax(1).detach())
                (gradient,) = torch.autograd.grad(far, x_adv)
                x_adv = x_adv.detach() + 2.5 * 0.1 / 3 * gradient.sign()
                x_adv = torch.min(torch.max(x_adv, x - 0.1), x + 0.1).clamp(0, 1)
            reference.train()
            optimizer.param_groups[0]["lr"] = 0.05 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * i / 4))).item()
            logits = reference(x)
            loss = nn.functional.cross_entropy(logits, y)
            loss = loss + 4.0 / len(x) * kl(reference(x_adv).log_softmax(1), logits.softmax(1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
    assert stats.loss == pytest.approx(total / len(data), rel=1e-3)
    for (name, found), expected in zip(model.state_dict().items(), reference.state_dict().values(), strict=True):
        # Where a gradient is all but zero its sign, and so a pixel, may differ by rounding.
        assert torch.allclose(found.float(), expected.float(), atol=5e-3), name


def test_trades_keeps_predictions_closer_under_attack_than_clean_accuracy_alone(tiny_splits):
    data = DeviceData(tiny_splits.train, "cpu")
    x, y = next(data.batches(200))

    def moved(beta: float) -> float:
        model, stage = fresh("mlp", hidden=[32]), plain_stage(epochs=4, lr=0.05, batch_size=32)
        train(step_of(model, stage, PGD(steps=3), THREAT, loss=Trades(beta=beta)), data)
        x_adv = perturb(PGD(steps=10), model, x, y, THREAT, torch.Generator(), reference=Trades().reference)
        p, q = model(x).log_softmax(1), model(x_adv).log_softmax(1)
        return float(nn.functional.kl_div(q, p, reduction="batchmean", log_target=True))

    assert moved(6.0) < 0.5 * moved(0.0)


# --- weights of examples


@pytest.mark.parametrize("loss", [CrossEntropy(), Trades(beta=3.0)], ids=["cross_entropy", "trades"])
def test_with_weights_a_loss_is_the_weighted_mean_of_those_of_the_examples(loss):
    model = fresh("mlp", hidden=[12])
    x, x_adv, y = batch()
    weights = torch.rand(16, generator=torch.Generator().manual_seed(1)) * (torch.arange(16) % 3 > 0)
    each = torch.stack([loss(model, x[i : i + 1], x_adv[i : i + 1], y[i : i + 1])[0] for i in range(16)])
    value, logits = loss(model, x, x_adv, y, weights)
    assert torch.equal(logits, model(x_adv))
    assert value.item() == pytest.approx(float((weights * each).sum() / weights.sum()), rel=1e-5)
    alike = loss(model, x, x_adv, y, torch.full((16,), 0.3))[0]
    assert alike.item() == pytest.approx(loss(model, x, x_adv, y)[0].item(), rel=1e-6)


# --- names


def test_losses_are_found_by_name_and_by_module():
    assert build_loss(plain_stage(epochs=1), path="p") == CrossEntropy()
    trades = plain_stage(epochs=1, loss=Component(name="trades", beta=2.5))
    assert build_loss(trades, path="p") == Trades(beta=2.5)
    own = plain_stage(epochs=1, loss=Component(name=f"{__name__}:Halved"))
    model, (x, x_adv, y) = fresh("mlp", hidden=[4]), batch()
    halved, _ = build_loss(own, path="p")(model, x, x_adv, y)
    assert float(halved) == pytest.approx(float(CrossEntropy()(model, x, x_adv, y)[0]) / 2)


@pytest.mark.parametrize(
    ("loss", "attack", "message"),
    [
        ({"name": "trade"}, {"name": "pgd"}, "p.loss.name = 'trade': unknown name; did you mean 'trades'"),
        ({"name": "trades", "beta": -1.0}, {"name": "pgd"}, "p.loss.beta = -1.0"),
        ({"name": "builtins:dict"}, {"name": "pgd"}, "is no loss"),
        ({"name": "trades"}, {"name": "fgsm"}, "p.loss.name = 'trades': needs an attack on the divergence"),
        ({"name": "trades"}, {"name": "none"}, "p.loss.name = 'trades': needs an attack on the divergence"),
        ({"name": "trades"}, {"name": "pgd", "restarts": 2}, "use pgd with a random start"),
    ],
)
def test_a_loss_that_cannot_be_is_refused_in_one_line(loss, attack, message):
    stage = plain_stage(epochs=1, loss=Component(**loss), attack=Component(**attack))
    with pytest.raises(SpecError, match=r"^[^\n]*$") as caught:
        build_loss(stage, path="p")
    assert message in str(caught.value)
