"""Laws that every architecture keeps, and what single ones promise."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_search.data import DataSpec, DeviceData, load_splits
from atmc_search.errors import SpecError
from atmc_search.models import MODELS, build_model

# The smallest image that an architecture takes.
SMALLEST = {
    "lenet": 16,
    "mlp": 1,
    "mobilenet_v2": 8,
    "resnet18": 8,
    "resnet34": 8,
    "resnet50": 8,
    "resnet101": 8,
    "small_cnn": 4,
    "wide_resnet": 4,
}
SIZES = (8, 28, 32)
# Settings for the laws: all that they show, a small model shows too.
SMALL: dict[str, dict[str, Any]] = {
    "mobilenet_v2": {"width_mult": 0.25},
    "wide_resnet": {"depth": 10, "widen_factor": 2, "dropout": 0.3},
}
# resnet18 with more or other blocks: one size is enough, and a second is spent on each.
DEEP = {"resnet34", "resnet50", "resnet101"}


def build(name: str, size: int, channels: int = 1, classes: int = 10, **args: Any) -> nn.Sequential:
    return build_model(
        name,
        args,
        input_shape=(channels, size, size),
        classes=classes,
        mean=[0.5] * channels,
        std=[0.25] * channels,
        seed=0,
    )


def weights(model: nn.Module) -> int:
    """Elements of kernels and matrices, without biases."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def outline(name: str, **args: Any) -> nn.Sequential:
    """The model for 32×32 images of three channels, shapes only."""
    with torch.device("meta"):
        return build(name, 32, 3, **args)


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_the_table_is_complete():
    assert set(SMALLEST) == set(MODELS)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "size"),
    [
        (name, size)
        for name, least in SMALLEST.items()
        for size in sorted({least} if name in DEEP else {least, *SIZES})
        if size >= least
    ],
)
def test_logits_have_their_shape_and_the_gradient_reaches_the_input(name, size, channels):
    model = build(name, size, channels, **SMALL.get(name, {}))
    x = torch.rand(3, channels, size, size, requires_grad=True)
    logits = model(x)
    assert logits.shape == (3, 10)
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, torch.arange(3)), x)
    assert gradient.abs().amax(dim=(1, 2, 3)).min() > 0


@pytest.mark.parametrize("name", [name for name, least in SMALLEST.items() if least > 1])
def test_an_image_too_small_is_one_line(name):
    least = SMALLEST[name]
    with pytest.raises(SpecError, match=f"at least {least}×{least}") as caught:
        build(name, least - 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_shapes_are_had_without_memory(name):
    size = SMALLEST[name]
    with torch.device("meta"):
        model = build(name, size)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert shapes(model) == shapes(build(name, size))


@pytest.mark.parametrize("name", [name for name in MODELS if name not in DEEP])
def test_a_training_step_repeats_to_the_bit(name, deterministic):
    size = SMALLEST[name]
    x, y = torch.rand(4, 3, size, size), torch.arange(4)

    def gradients() -> list[Tensor]:
        model = build(name, size, 3, **SMALL.get(name, {}))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of dropout
            loss = nn.functional.cross_entropy(model(x), y)
            assert not [node for node in nodes(loss.grad_fn) if "Adaptive" in node], "nondeterministic on CUDA"
            return list(torch.autograd.grad(loss, list(model.parameters())))

    assert all(torch.equal(one, two) for one, two in zip(gradients(), gradients(), strict=True))


def nodes(start: Any) -> set[str]:
    """The names of the backward functions of a graph."""
    found, waiting = set(), [start]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [before for before, _ in node.next_functions]
    return {node.name() for node in found}


@pytest.mark.parametrize("name", [name for name in MODELS if name not in DEEP])
def test_an_attack_in_eval_mode_leaves_the_state_alone_and_meets_one_function(name):
    size = SMALLEST[name]
    model = build(name, size, 3, **SMALL.get(name, {})).eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    x = torch.rand(2, 3, size, size, requires_grad=True)
    first, second = model(x), model(x)
    torch.autograd.grad(first.sum(), x)
    assert torch.equal(first, second)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


# Sources, for 10 classes and three channels:
# [T] torchvision's published counts for ImageNet (meta["num_params"] of its weights: 11,689,512; 21,797,672;
#     25,557,032; 44,549,160; 3,504,872), less the 990 classes and, of the ResNets, the 7×7 stem's 40 further positions;
# [O] github osmr/imgclsmob, the PyTorch table for CIFAR-10;
# [Z] Zagoruyko & Komodakis, arXiv 1605.07146, the table of various wide networks: in millions.
@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("resnet18", {}, 11_689_512 - 990 * (512 + 1) - 64 * 3 * 40),  # [T]
        ("resnet34", {}, 21_797_672 - 990 * (512 + 1) - 64 * 3 * 40),  # [T]
        ("resnet50", {}, 25_557_032 - 990 * (2048 + 1) - 64 * 3 * 40),  # [T]
        ("resnet101", {}, 44_549_160 - 990 * (2048 + 1) - 64 * 3 * 40),  # [T]
        ("mobilenet_v2", {}, 3_504_872 - 990 * (1280 + 1)),  # [T]
        ("wide_resnet", {"depth": 16, "widen_factor": 10}, 17_116_634),  # [O]
        ("wide_resnet", {"depth": 28, "widen_factor": 10}, 36_479_194),  # [O]
        ("wide_resnet", {"depth": 40, "widen_factor": 8}, 35_748_314),  # [O]
    ],
)
def test_parameters_are_as_many_as_published(name, args, expected):
    assert parameters(outline(name, **args)) == expected


@pytest.mark.parametrize(
    ("depth", "widen_factor", "millions"),
    [
        (40, 1, 0.6),
        (40, 2, 2.2),
        (40, 4, 8.9),
        (40, 8, 35.7),
        (28, 10, 36.5),
        (28, 12, 52.5),
        (22, 8, 17.2),
        (22, 10, 26.8),
        (16, 8, 11.0),
        (16, 10, 17.1),
    ],
)
def test_wide_resnets_have_the_millions_of_the_papers_table(depth, widen_factor, millions):  # [Z]
    model = outline("wide_resnet", depth=depth, widen_factor=widen_factor)
    assert round(parameters(model) / 1e6, 1) == millions


@pytest.mark.parametrize(("depth", "widen_factor"), [(10, 1), (28, 4), (34, 10)])
def test_wide_resnets_weights_follow_from_table_1(depth, widen_factor):
    widths = [16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
    expected = 9 * 3 * 16 + widths[-1] * 10
    for before, width in pairwise(widths):
        shortcut = before * width if before != width else 0
        expected += 9 * before * width + shortcut + ((depth - 4) // 3 - 1) * 9 * width * width
    assert weights(outline("wide_resnet", depth=depth, widen_factor=widen_factor)) == expected


@pytest.mark.parametrize(
    ("name", "args", "classes", "bits"),
    [
        # Gui et al., arXiv 1902.03538: the dense models' fp32 bits, which leave out biases and norms.
        ("resnet34", {}, 10, 680_482_816),
        ("resnet34", {}, 100, 681_957_376),
        ("wide_resnet", {"depth": 16, "widen_factor": 8}, 10, 350_533_120),
    ],
)
def test_weights_take_the_bits_of_atmcs_paper(name, args, classes, bits):
    assert 32 * weights(outline(name, classes=classes, **args)) == bits


def test_a_2_30_m_mobilenet_v2_is_the_ports_with_more_convolutions():
    # kuangliu/pytorch-cifar, models/mobilenetv2.py: shortcuts where stride is 1 and channels change, each with a norm,
    # and a first block that expands by 1.
    shortcuts = sum(inside * out + 2 * out for inside, out in [(32, 16), (16, 24), (64, 96), (160, 320)])
    expansion = 32 * 32 + 2 * 32
    assert round((parameters(outline("mobilenet_v2")) + shortcuts + expansion) / 1e6, 2) == 2.30


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("resnet18", "conv1"),
        ("resnet34", "conv1"),
        ("resnet50", "conv1"),
        ("resnet101", "conv1"),
        ("mobilenet_v2", "features.0.0"),
    ],
)
def test_all_but_the_stem_is_torchvisions(name, stem):
    ours = outline(name).get_submodule("net")
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None, num_classes=10)
    conv = ours.get_submodule(stem)
    assert (conv.kernel_size, conv.stride, conv.padding, conv.bias) == ((3, 3), (1, 1), (1, 1), None)
    expected = shapes(theirs)
    expected[f"{stem}.weight"] = conv.weight.shape  # type: ignore[assignment]
    assert shapes(ours) == expected


@pytest.mark.parametrize(
    ("name", "last", "side"), [("resnet18", "layer4", 4), ("mobilenet_v2", "features", 4), ("wide_resnet", "group3", 8)]
)
def test_the_mean_is_over_as_many_positions_as_in_the_cifar_forms(name, last, side):
    model = outline(name)
    maps: list[torch.Size] = []
    model.get_submodule(f"net.{last}").register_forward_hook(lambda module, inputs, out: maps.append(out.shape))
    model(torch.rand(2, 3, 32, 32, device="meta"))
    assert maps[0][2:] == (side, side)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "wide_resnet"])
def test_convolutions_start_as_he_et_al_say(name):
    # arXiv 1502.01852, by fan out: the stem that replaces torchvision's own must too.
    for module in build(name, 8, 3, **SMALL.get(name, {})).modules():
        if isinstance(module, nn.Conv2d):
            out, _, rows, columns = module.weight.shape
            std = (2 / (out * rows * columns)) ** 0.5
            assert float(module.weight.detach().std()) == pytest.approx(std, rel=0.2)


def test_width_mult_narrows_all_but_the_last_convolution():
    convs = [layer for layer in outline("mobilenet_v2", width_mult=0.5).modules() if isinstance(layer, nn.Conv2d)]
    assert [convs[0].out_channels, convs[-1].in_channels, convs[-1].out_channels] == [16, 160, 1280]


def test_wide_resnet_is_the_papers_by_a_second_way():
    # Written from figure 1(d) and table 1 on the state alone; random norms tell one norm from another.
    net = build("wide_resnet", 8, 3, depth=16, widen_factor=2, dropout=0.5).eval().get_submodule("net")
    state = {key: torch.rand_like(tensor) + 0.5 for key, tensor in net.state_dict().items() if tensor.ndim > 0}
    state |= {key: torch.randn_like(tensor) / 10 for key, tensor in state.items() if tensor.ndim > 1}
    net.load_state_dict(state, strict=False)  # all but the norms' counters

    def activated(x: Tensor, norm: str) -> Tensor:
        mean, var, weight, bias = (state[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias).relu()

    x = images = torch.randn(2, 3, 8, 8)
    x = F.conv2d(x, state["conv.weight"], padding=1)
    for group in (1, 2, 3):
        for block in (0, 1):
            at = f"group{group}.{block}"
            stride = 2 if group > 1 and block == 0 else 1
            active = activated(x, f"{at}.bn1")
            inner = activated(F.conv2d(active, state[f"{at}.conv1.weight"], stride=stride, padding=1), f"{at}.bn2")
            shortcut = F.conv2d(active, state[f"{at}.shortcut.weight"], stride=stride) if block == 0 else x
            x = shortcut + F.conv2d(inner, state[f"{at}.conv2.weight"], padding=1)
    logits = F.linear(activated(x, "bn").mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])
    torch.testing.assert_close(net(images), logits)


def test_wide_resnet_without_widening_needs_no_shortcut_in_its_first_group():
    names = shapes(outline("wide_resnet", depth=10, widen_factor=1))
    assert [name for name in names if "shortcut" in name] == [
        "net.group2.0.shortcut.weight",
        "net.group3.0.shortcut.weight",
    ]


def test_dropout_stands_in_every_block_of_wide_resnet():
    model = outline("wide_resnet", depth=22, widen_factor=1, dropout=0.3)
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.3] * 9


def test_lenet_is_caffes():
    model = build("lenet", 28)
    assert weights(model) == 430_500
    kinds = [type(layer).__name__ for layer in model.net]  # type: ignore[union-attr]
    assert kinds == ["Conv2d", "MaxPool2d", "Conv2d", "MaxPool2d", "Flatten", "Linear", "ReLU", "Linear"]


def test_width_scales_small_cnn():
    narrow, wide = build("small_cnn", 8, width=4), build("small_cnn", 8, width=8)
    # conv, conv, conv, fc (2×2 positions left of 8×8), fc
    assert weights(narrow) == 9 * (4 + 4 * 8 + 8 * 8) + 4 * 8 * 64 + 64 * 10
    assert weights(wide) > 2 * 9 * (4 + 4 * 8 + 8 * 8)


@pytest.mark.parametrize("hidden", [[], [5], [7, 3, 2]])
def test_mlp_has_the_layers_asked_for(hidden):
    layers = [layer for layer in build("mlp", 8, hidden=hidden).modules() if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in layers] == [*hidden, 10]


@pytest.mark.parametrize(
    ("name", "args", "start"),
    [
        ("small_cnn", {"width": 0}, "trial.model.width = 0: must be a positive integer"),
        ("small_cnn", {"width": 1.5}, "trial.model.width = 1.5: must be a positive integer"),
        ("small_cnn", {"width": True}, "trial.model.width = true: must be a positive integer"),
        ("small_cnn", {"width": "8\n"}, "trial.model.width = '8\\\\n': must be a positive integer"),
        ("mobilenet_v2", {"width_mult": 0}, "trial.model.width_mult = 0: must be a positive number"),
        ("mobilenet_v2", {"width_mult": float("inf")}, "trial.model.width_mult = inf: must be a positive number"),
        ("mobilenet_v2", {"width_mult": float("nan")}, "trial.model.width_mult = nan: must be a positive number"),
        ("mobilenet_v2", {"width_mult": True}, "trial.model.width_mult = true: must be a positive number"),
        ("mobilenet_v2", {"width_mult": "1\n"}, "trial.model.width_mult = '1\\\\n': must be a positive number"),
        ("mobilenet_v2", {"width_mult": 10**400}, "trial.model.width_mult = 1000.*: must be a positive number"),
        ("mobilenet_v2", {"width_mult": 1e300}, r"trial.model.name = 'mobilenet_v2': mobilenet_v2\(.*\) failed"),
        ("wide_resnet", {"depth": 17}, r"trial.model.depth = 17: must be 6n \+ 4, from 10 to 1000"),
        ("wide_resnet", {"depth": 4}, r"trial.model.depth = 4: must be 6n \+ 4, from 10 to 1000"),
        ("wide_resnet", {"depth": 1006}, r"trial.model.depth = 1006: must be 6n \+ 4, from 10 to 1000"),
        ("wide_resnet", {"depth": 16.0}, r"trial.model.depth = 16.0: must be 6n \+ 4, from 10 to 1000"),
        ("wide_resnet", {"widen_factor": 0}, "trial.model.widen_factor = 0: must be a positive integer"),
        ("wide_resnet", {"dropout": 1}, r"trial.model.dropout = 1: must be in \[0, 1\)"),
        ("wide_resnet", {"dropout": -0.1}, r"trial.model.dropout = -0.1: must be in \[0, 1\)"),
        ("wide_resnet", {"dropout": True}, r"trial.model.dropout = true: must be in \[0, 1\)"),
        ("mlp", {"hidden": 5}, "trial.model.hidden = 5: must be a list of positive integers"),
        ("mlp", {"hidden": [5, -1]}, r"trial.model.hidden.1 = -1: must be a positive integer"),
    ],
)
def test_settings_out_of_range_are_one_line(name, args, start):
    with pytest.raises(SpecError, match=start) as caught:
        build(name, 28, **args)
    assert "\n" not in str(caught.value)


def test_small_cnn_learns_the_digits_in_seconds():
    splits = load_splits(DataSpec(name="digits"))
    mean, std = splits.channel_stats()
    model = build_model("small_cnn", {}, input_shape=splits.input_shape, classes=10, mean=mean, std=std, seed=0)
    train, test = DeviceData(splits.train, "cpu"), DeviceData(splits.test, "cpu")
    generator = torch.Generator().manual_seed(0)
    epochs = 15
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * train.steps(64))
    for _ in range(epochs):
        for x, y in train.batches(64, generator):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        right = sum(int((model(x).argmax(dim=1) == y).sum()) for x, y in test.batches(500))
    assert right / len(test) > 0.97
