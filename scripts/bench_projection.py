"""Ratios behind choices in the hot path, each pair measured side by side in one run.

    python scripts/bench_projection.py

1. The k-th largest magnitude, for the global ℓ0 projection: numpy's introselect against torch's own.
2. The codebook: sorted 1-D k-means against Lloyd's iteration over an n × K distance matrix.
3. A PGD-7 attack on a factorised LeNet: effective weights computed once against once per step.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from atmc_search.artifact import Architecture
from atmc_search.attacks import PGD, ThreatModel, perturb
from atmc_search.compress import factorise, kmeans_with_zero


def side_by_side(title: str, variants: dict[str, Callable[[], object]], rounds: int = 7) -> None:
    """Runs all variants in turn, `rounds` times, and prints medians and ratios to the first."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(rounds + 1):
        for name, run in variants.items():
            began = time.perf_counter()
            run()
            if round_:  # the first round warms up
                times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in times.items()}
    base = next(iter(medians.values()))
    print(title)
    for name, median in medians.items():
        print(f"  {name:36} {1e3 * median:9.2f} ms   {median / base:6.2f} x")


def kth_largest() -> None:
    n, k = 1_100_000, 21_525  # the factors of LeNet in UV + C form, 5 % of its dense weights kept
    values = torch.randn(n).abs()
    side_by_side(
        f"k-th largest of {n:,} magnitudes, k = {k:,}",
        {
            "numpy.partition (ours)": lambda: np.partition(values.numpy(), n - k)[n - k],
            "torch.kthvalue": lambda: values.kthvalue(n - k + 1),
            "torch.topk": lambda: values.topk(k, sorted=False),
        },
    )


def codebooks() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(100_000).astype(np.float32)
    clusters = 16
    start = np.linspace(values.min(), values.max(), clusters)

    def matrix() -> None:
        centres = start.copy()
        for _ in range(20):  # fewer than the sorted form takes to stand still
            nearest = np.abs(values[:, None] - np.append(centres, 0.0)[None, :]).argmin(1)
            for j in range(clusters):
                if (nearest == j).any():
                    centres[j] = values[nearest == j].mean()

    side_by_side(
        f"codebook of {clusters} values for {len(values):,} weights",
        {
            "sorted, to convergence (ours, cold)": lambda: kmeans_with_zero(values, clusters),
            "n x K matrix, 20 iterations": matrix,
        },
        rounds=3,
    )


def attacks() -> None:
    model = Architecture("lenet", {}, (1, 28, 28), 10).build()
    factorise(model, "uvc")
    x, y = torch.rand(128, 1, 28, 28), torch.randint(10, (128,))
    threat, attack = ThreatModel(eps=0.1), PGD(steps=7)

    def every_step() -> None:
        x_adv = x.clone()
        for _ in range(attack.steps):
            x_adv.requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(x_adv), y, reduction="sum"), x_adv)
            x_adv = (x_adv + 0.01 * gradient.sign()).detach().clamp(0, 1)

    side_by_side(
        "PGD-7 on LeNet in UV + C form, batch 128",
        {
            "effective weights once (ours)": lambda: perturb(attack, model, x, y, threat, torch.Generator()),
            "effective weights every step": every_step,
        },
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, 1 thread")
    kth_largest()
    codebooks()
    attacks()
