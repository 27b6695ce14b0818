"""What folding and slimming do to single structures, and that what they do not understand is left as it was."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from damaged import apart, damage, state
from torch import Tensor, nn
from torch.nn import functional

from atmc_search.channels import folded, macs, slimmed, width

SHAPE = (2, 6, 6)


class Net(nn.Module):
    """Three convolutions and a linear layer, joined as a test says."""

    def __init__(self, join: Callable[[Net, Tensor], Tensor], features: int, groups: int = 1) -> None:
        super().__init__()
        self.join = join
        self.a = nn.Conv2d(2, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 6, 3, padding=1, groups=groups)
        self.c = nn.Conv2d(6, 6, 1)
        self.d = nn.Conv2d(12, 6, 1)
        self.scale = nn.Parameter(torch.rand(1, 6, 1, 1) + 0.5)
        self.head = nn.Linear(features, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.join(self, x))


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def attention(net: Net, x: Tensor) -> Tensor:
    y = torch.relu(net.a(x))
    return pooled(y * torch.sigmoid(net.c(functional.adaptive_avg_pool2d(y, 1))))


def in_place_residual(net: Net, x: Tensor) -> Tensor:
    y = functional.relu(net.a(x))
    out = net.c(functional.relu(net.b(y), inplace=True))
    out += y
    return pooled(functional.relu_(out))


JOINS: dict[str, tuple[Callable[[Net, Tensor], Tensor], int]] = {
    "residual": (lambda net, x: pooled(torch.relu(y := net.a(x)) + net.c(functional.silu(net.b(y)))), 6),
    "in-place residual": (in_place_residual, 6),
    "concatenation": (lambda net, x: pooled(net.d(torch.cat([(y := net.a(x)).relu(), net.c(y)], 1))), 6),
    "attention": (attention, 6),
    "named features": (lambda net, x: functional.max_pool2d(net.c(net.a(x)), 2).view(-1, 54), 54),
    "size of axis 0": (lambda net, x: functional.avg_pool2d(net.c(net.a(x)), 2, 2, 1).view(x.size(0), -1), 96),
    "scale": (lambda net, x: pooled(net.c(functional.gelu(1 - net.a(x) * net.scale))), 6),
    "dropout": (lambda net, x: pooled(net.c(functional.dropout(net.a(x), 0.5, net.training))), 6),
}
"""Structures that are understood; name to the join and the features it gives."""


def shared(net: Net, x: Tensor) -> Tensor:
    return pooled(net.b(net.b(net.a(x))))


def written_elsewhere(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    return pooled(torch.relu_(y) + y - net.c(y))


def by_position(net: Net, x: Tensor) -> Tensor:
    y = net.c(net.a(x))
    return pooled(y[:, torch.tensor([5, 0, 1, 2, 3, 4])] * torch.arange(1.0, 7).view(1, 6, 1, 1))


LEFT: dict[str, tuple[Callable[[Net, Tensor], Tensor], int]] = {
    "called twice": (shared, 6),
    "in place where others read": (written_elsewhere, 6),
    "index": (by_position, 6),
    "channels mixed": (lambda net, x: pooled(functional.channel_shuffle(net.a(x).cos(), 2)), 6),
    "softmax": (lambda net, x: pooled(torch.softmax(net.a(x), 1)), 6),
    "weight read by others": (lambda net, x: pooled(net.c(net.a(x)) + net.c.weight.sum()), 6),
    "other axis": (lambda net, x: net.a(x).mean((1, 2)), 6),
}
"""Structures that are not, or only in part."""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", JOINS | LEFT)
def test_every_structure_keeps_its_logits(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    join, features = (JOINS | LEFT)[name]
    model = damage(Net(join, features), seed, share=0.3)
    x = torch.randn(5, *SHAPE)
    fold, slim = folded(model, SHAPE), slimmed(model, SHAPE)
    assert apart(model, fold, x) < 1e-5
    assert apart(model, slim, x) < 1e-5
    assert apart(model, slim, x[:1]) < 1e-5


@pytest.mark.parametrize("name", JOINS)
def test_a_channel_that_nothing_makes_or_reads_goes_from_all_it_passes(name: str) -> None:
    torch.manual_seed(0)
    join, features = JOINS[name]
    model = Net(join, features).eval()
    with torch.no_grad():
        for layer in (model.a, model.b, model.c):  # channel 2 is made by nobody, and without a bias that is 0
            layer.weight[2], layer.bias[2] = 0, 0
            layer.weight[:, 2 if layer is not model.a else slice(0)] = 0
        model.scale[:, 2] = 1
        model.d.weight[:, [2, 8]], model.d.weight[2], model.d.bias[2] = 0, 0, 0
        model.head.weight.view(4, 6, -1)[:, 2] = 0
    slim = slimmed(model, SHAPE)
    x = torch.randn(5, *SHAPE)
    assert apart(model, slim, x) < 1e-5
    used = [module for module in slim.modules() if isinstance(module, nn.Conv2d)]
    assert used
    # A tensor with a number for every channel keeps all of them.
    kept = 6 if name == "scale" else 5
    assert slim.get_submodule("a").out_channels == kept
    assert all(module.out_channels == (5 if module is not slim.get_submodule("a") else kept) for module in used)
    assert macs(slim, SHAPE) < macs(model, SHAPE)


@pytest.mark.parametrize("name", ["called twice", "channels mixed", "softmax", "in place where others read"])
def test_what_is_not_understood_is_left_alone(name: str) -> None:
    torch.manual_seed(0)
    join, features = LEFT[name]
    model = damage(Net(join, features), 0, share=0.3)
    model.head.weight.data.fill_(1.0)
    fold = state(folded(model, SHAPE))
    assert torch.equal(fold["a.bias"], model.a.bias)
    assert torch.equal(fold["a.weight"], model.a.weight)
    assert slimmed(model, SHAPE).get_submodule("a").out_channels == 6


def test_a_model_that_cannot_be_traced_is_copied() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(72, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1)) if x.sum() > 0 else x.flatten(1)[:, :3]

    model = Branching()
    model.head.weight.data[1] = 0
    for found in (folded(model, SHAPE), slimmed(model, SHAPE)):
        assert type(found) is Branching
        assert found is not model
        assert all(torch.equal(tensor, state(model)[key]) for key, tensor in state(found).items())


def test_a_layer_with_a_hook_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(108, 2)).eval()
    model[0].weight.data[1] = 0
    model[0].register_forward_hook(lambda module, given, got: got + given[0].sum())
    x = torch.randn(3, *SHAPE)
    assert apart(model, folded(model, SHAPE), x) == 0
    assert slimmed(model, SHAPE).get_submodule("0").out_channels == 3


# --- constants


def test_a_constant_goes_into_the_bias_of_its_reader() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Sigmoid(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0, 2.0
    bias, weight = model[2].bias.clone(), model[2].weight.clone()
    inner = nn.Sequential(nn.AvgPool2d(1), nn.Flatten(), *model).eval()
    fold = folded(inner, (3, 1, 1))
    assert torch.allclose(fold[4].bias, bias + weight[:, 1] * torch.sigmoid(torch.tensor(2.0)))
    assert torch.equal(fold[4].weight[:, 1], torch.zeros(2))
    assert torch.equal(fold[4].weight[:, 0], weight[:, 0])
    assert fold[2].bias[1] == 0


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
def test_a_constant_before_padding_stays_but_for_taps_that_never_reach_it(padding_mode: str) -> None:
    second = nn.Conv2d(2, 3, 3, padding=1, padding_mode=padding_mode)
    model = nn.Sequential(nn.Conv2d(2, 2, 1), second, nn.Flatten(), nn.Linear(108, 2)).eval()
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0, 0.7
    fold = folded(model, SHAPE)
    stays = torch.ones(3, 3, dtype=torch.bool)
    stays[1, 1] = False  # the middle always reads the image
    if padding_mode != "zeros":
        stays[:] = False
    assert ((fold[1].weight[:, 1] != 0) == stays).all()
    assert apart(model, fold, torch.randn(4, *SHAPE)) < 1e-5


def test_taps_that_see_padding_alone_are_zero() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(3, 2)).eval()
    fold = folded(model, (2, 1, 1))
    middle = torch.zeros(3, 3, dtype=torch.bool)
    middle[1, 1] = True
    assert ((fold[0].weight != 0) == middle).all()
    assert apart(model, fold, torch.randn(4, 2, 1, 1)) < 1e-6


@pytest.mark.parametrize(("bias", "norm"), list(itertools.product([False, True], repeat=2)))
def test_who_absorbs_a_constant(bias: bool, norm: bool) -> None:
    torch.manual_seed(0)
    last = [nn.BatchNorm2d(3)] if norm else []
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 3, 1, bias=bias), *last, nn.Tanh()).eval()
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0, 0.7
    before = state(model)
    after = state(folded(model, SHAPE))
    share = 0.7 * before["1.weight"][:, 1, 0, 0]
    assert bool((after["1.weight"][:, 1] == 0).all()) == (bias or norm)
    if bias:
        assert torch.allclose(after["1.bias"], before["1.bias"] + share)
    if norm:
        assert torch.allclose(after["2.running_mean"], before["2.running_mean"] - (0 if bias else share))
    assert apart(model, folded(model, SHAPE), torch.randn(4, *SHAPE)) < 1e-6


def test_a_relu_that_never_opens_is_found_without_a_zero() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        model[3].weight[0], model[3].bias[0] = -1.0, 0.0  # of what a ReLU gives, never above 0
    slim = slimmed(model, (1, 2, 2))
    assert slim.get_submodule("3").out_features == 1
    assert apart(model, slim, 9 * torch.randn(50, 1, 2, 2)) < 1e-5


def test_depthwise_channels_go_and_groups_stay() -> None:
    torch.manual_seed(0)
    for groups, left in ((6, 4), (3, 6)):
        model = Net(lambda net, x: pooled(net.c(functional.relu6(net.b(torch.relu(net.a(x)))))), 6, groups=groups)
        model.eval()
        with torch.no_grad():
            model.c.weight[:, [1, 4]] = 0
        slim = slimmed(model, SHAPE)
        found = slim.get_submodule("b")
        assert (found.in_channels, found.out_channels, found.groups) == (left, left, 4 if groups == 6 else 3)
        assert apart(model, slim, torch.randn(4, *SHAPE)) < 1e-5


# --- against brute force


@torch.no_grad()
def removable(model: nn.Sequential, x: Tensor) -> int:
    """How many channels of the layers before the last change no logits when their output is held at a constant.

    One of every layer does not count.
    """
    expected, total = model(x), 0
    layers = [index for index, module in enumerate(model) if isinstance(module, nn.Conv2d | nn.Linear)]
    for index in layers[:-1]:
        got, count = model[: index + 1](x), 0
        for channel in range(got.shape[1]):
            for value in (0.0, float(got[:, channel].mean())):
                held = got.clone()
                held[:, channel] = value
                if torch.allclose(model[index + 1 :](held), expected, rtol=0, atol=1e-5):
                    count += 1
                    break
        total += min(count, got.shape[1] - 1)
    return total


@pytest.mark.parametrize("seed", range(6))
def test_no_removable_channel_is_left_in_a_chain(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 5, 3),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 6, 2),
        nn.MaxPool2d(2, padding=1),
        nn.Flatten(),
        nn.Linear(24, 7),
        nn.ReLU(),
        nn.Linear(7, 3),
    )
    damage(model, seed, share=0.35)
    # So wide and so far to both sides that every ReLU opens and shuts, unless it cannot.
    x = 20 * torch.randn(600, 1, 8, 8) + 100 * torch.randn(600, 1, 1, 1)
    gone = removable(model, x)
    slim = slimmed(model, (1, 8, 8))
    assert apart(model, slim, x) < 1e-5
    assert width(model) - width(slim) >= gone > 0
