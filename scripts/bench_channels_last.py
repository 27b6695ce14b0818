"""Is a training step on the CPU faster with channels last? Both layouts side by side, in turn, in one run.

    python scripts/bench_channels_last.py

A step: PGD-2 in eval mode on a batch of 64 (ResNet-18: 8), then forward and backward in train mode. A ratio above 1
means that channels last is the faster.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch.nn import functional as F

from atmc_search.artifact import Architecture
from atmc_search.attacks import PGD, ThreatModel, perturb

MODELS = (
    ("lenet", {}, (1, 28, 28), 64),
    ("small_cnn", {}, (1, 8, 8), 64),
    ("mlp", {}, (1, 28, 28), 64),
    ("resnet18", {}, (3, 32, 32), 8),
)


def seconds(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    began = time.perf_counter()
    x_adv = perturb(PGD(steps=2), model, x, y, ThreatModel(eps=0.1), torch.Generator())
    F.cross_entropy(model(x_adv), y).backward()
    model.zero_grad()
    return time.perf_counter() - began


def main(rounds: int = 7) -> None:
    for name, args, shape, batch in MODELS:  # ResNet-18 on a smaller batch, for time
        x, y = torch.rand(batch, *shape), torch.randint(10, (batch,))
        variants = {}
        for layout in (torch.contiguous_format, torch.channels_last):
            model = Architecture(name, args, shape, 10).build().train().to(memory_format=layout)
            variants[layout] = model, x.to(memory_format=layout)
        ratios = []
        for round_ in range(rounds + 1):
            plain, last = (seconds(model, images, y) for model, images in variants.values())
            if round_:  # the first round warms up
                ratios.append(plain / last)
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:10} contiguous / channels last {middle:5.2f}   (quartiles {low:.2f} to {high:.2f}, n = {rounds})")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, 1 thread")
    main()
