"""Whether budgets of bytes are met: trains models under several, briefly, and prints budget, bytes and their ratio.

    python scripts/bench_budgets.py --model lenet --budgets 2500,6500,26000

Images are random, as what counts is the size of the files: each must be at most its budget and at least 0.97 of it.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

from atmc_search.data import ImageSet, Splits
from atmc_search.spec import TrialSpec
from atmc_search.tasks import AtmcTask

MODELS: dict[str, tuple[dict[str, Any], tuple[int, int, int], str]] = {
    "small_cnn": ({"name": "small_cnn", "width": 16}, (1, 8, 8), "1000,2500,6000"),
    "lenet": ({"name": "lenet"}, (1, 28, 28), "2500,6500,26000"),
    "mobilenet_quarter": ({"name": "mobilenet_v2", "width_mult": 0.25}, (3, 32, 32), "20000,40000,80000"),
    "mobilenet_v2": ({"name": "mobilenet_v2"}, (3, 32, 32), "60000,200000"),
    "resnet18": ({"name": "resnet18"}, (3, 32, 32), "40000,200000"),
}
SCHEDULE = {"name": "cubic", "from": 0.1, "to": 0.6, "freeze": 0.8}


def images(shape: tuple[int, int, int], n: int, seed: int) -> ImageSet:
    """`n` images whose brightness tells their class, under noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 10
    pixels = 20 * labels[:, None, None, None] + rng.integers(0, 60, (n, *shape))
    return ImageSet(pixels.astype(np.uint8), labels.astype(np.int64))


def spec_of(model: dict[str, Any], budget: int, args: argparse.Namespace) -> TrialSpec:
    """A trial of `args.epochs` epochs under this budget."""
    stage = {"batch_size": 32, "attack": {"name": "fgsm"}}
    return TrialSpec.model_validate(
        {
            "data": {"name": "digits"},
            "model": model,
            "threat": {"norm": "linf", "eps": 0.02},
            "dense": stage | {"epochs": 1, "lr": 0.02},
            "train": stage | {"epochs": args.epochs, "lr": 0.01},
            "compress": {
                "budget_bytes": budget,
                "codebook": args.codebook,
                "codebook_from": 0.6,
                "schedule": SCHEDULE if args.schedule else None,
            },
            "evaluate": {"attack": {"name": "fgsm"}, "masking_images": 0, "every": args.epochs},
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="lenet")
    parser.add_argument("--budgets", help="bytes, with commas between; default: some for the model")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=128, help="to train on")
    parser.add_argument("--codebook", choices=["admm", "straight_through"], default="straight_through")
    parser.add_argument("--schedule", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, shape, budgets = MODELS[args.model]
    splits = Splits(*(images(shape, n, seed) for seed, n in enumerate((args.images, 50, 50))), classes=10)
    start = None
    print(f"{'model':18} {'budget':>8} {'bytes':>8} {'ratio':>7} {'non-zeros':>9} {'pack s':>7} {'all s':>7}  bits")
    for budget in map(int, (args.budgets or budgets).split(",")):
        began = time.perf_counter()
        spec = spec_of(model, budget, args)
        AtmcTask.check(spec, splits)
        if start is None:
            start = AtmcTask.make_start(spec, splits, device="cpu", report=lambda row: None)
        task = AtmcTask(spec, splits, start, device="cpu", meta={"study": "budgets", "trial": 0})
        while not task.done:
            row = task.step()
        ratio = row["size_bytes"] / budget
        bits = sorted({int(part.split(":")[1]) for part in row["bits_per_tensor"].strip("{}").split(",")})
        print(
            f"{args.model:18} {budget:8} {row['size_bytes']:8} {ratio:7.4f} {row['nnz']:9} {row['pack_s']:7.1f} "
            f"{time.perf_counter() - began:7.1f}  {bits}{'' if 0.97 <= ratio <= 1 else '  MISSED'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
