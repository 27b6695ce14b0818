"""Whether budgets of bytes are met: trains models under several, briefly, and prints budget, bytes and their ratio.

    python scripts/bench_budgets.py
    python scripts/bench_budgets.py --model lenet --budgets 2500,6500,26000 --allocation mixed

A few images of Fashion-MNIST, two epochs against FGSM: what counts is the size of the files. Each must be at most its
budget and at least 0.97 of it; the script ends with 1 where one is not. `packs` are the files that a trial made to get
there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import torch

from atmc_search.errors import AtmcError
from atmc_search.tasks import start_of
from atmc_search.tasks.atmc import AtmcSpec, AtmcTask
from atmc_search.tasks.atmc.byte_budget import ByteBudget

MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "lenet": ({"name": "lenet"}, "2500,6500,26000"),
    "resnet18": ({"name": "resnet18"}, "150000,600000"),
    "mobilenet_v2": ({"name": "mobilenet_v2"}, "60000,250000"),
    "mobilenet_quarter": ({"name": "mobilenet_v2", "width_mult": 0.25}, "20000,40000,80000"),
}
DEFAULT = ("lenet", "resnet18", "mobilenet_v2")
SCHEDULE = {"name": "cubic", "from": 0.1, "to": 0.6, "freeze": 0.8}


def spec_of(model: dict[str, Any], budget: int, args: argparse.Namespace) -> AtmcSpec:
    """A trial of `args.epochs` epochs under this budget."""
    plain = {"lr_schedule": "cosine", "warmup": 0.0, "nesterov": False, "clip_norm": None}
    stage = {**plain, "batch_size": 8, "attack": {"name": "fgsm"}}
    return AtmcSpec.model_validate(
        {
            "data": {
                "name": "fashion_mnist",
                "root": args.root,
                "train_size": args.images,
                "validation_size": 50,
                "test_size": 10,
            },
            "model": model,
            "threat": {"norm": "linf", "eps": 0.02},
            "dense": stage | {"epochs": 1, "lr": 0.02},
            "train": stage | {"epochs": args.epochs, "lr": 0.01},
            "compress": {
                "budget_bytes": budget,
                "factors": args.factors,
                "codebook": args.codebook,
                "codebook_from": 0.6,
                "count": "all",
                "schedule": SCHEDULE if args.schedule else None,
                "bit_allocation": args.allocation,
            },
            "evaluate": {"attack": {"name": "fgsm"}, "masking_images": 0, "every": args.epochs},
        }
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, help=f"default: {', '.join(DEFAULT)}")
    parser.add_argument("--budgets", help="bytes, with commas between; default: some for the model")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--images", type=int, default=64, help="to train on")
    parser.add_argument("--root", help="folder of Fashion-MNIST's files")
    parser.add_argument("--factors", choices=["none", "uvc", "uvc_plain"], default="none")
    parser.add_argument("--codebook", choices=["admm", "straight_through"], default="straight_through")
    parser.add_argument("--allocation", choices=["uniform", "mixed"], default="uniform")
    parser.add_argument("--schedule", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    missed = 0
    print(
        f"{'model':17} {'weights':>9} {'budget':>7} {'bytes':>7} {'ratio':>6} {'non-zeros':>9} {'packs':>5} "
        f"{'pack s':>6} {'all s':>6}  bits",
        flush=True,
    )
    for name in [args.model] if args.model else DEFAULT:
        model, budgets = MODELS[name]
        start = None
        for budget in map(int, (args.budgets or budgets).split(",")):
            began = time.perf_counter()
            spec = spec_of(model, budget, args)
            data = AtmcTask.load(spec)
            AtmcTask.check(spec, data)
            if start is None:
                start = start_of(AtmcTask, spec, data, device="cpu", report=lambda row: None)
            try:
                task = AtmcTask(spec, data, start, device="cpu", meta={"study": "budgets", "trial": 0})
                while not task.done:
                    row = task.step()
            except AtmcError as error:
                print(f"{name:17} {'':9} {budget:7} MISSED  {error}", flush=True)
                missed += 1
                continue
            packer = task._training.parts.packer
            assert isinstance(packer, ByteBudget)
            ratio = row["size_bytes"] / budget
            met = 0.97 <= ratio <= 1
            missed += not met
            bits = sorted({width for width in json.loads(row["bits_per_tensor"]).values() if width})
            print(
                f"{name:17} {row['dense_weights']:9} {budget:7} {row['size_bytes']:7} {ratio:6.4f} {row['nnz']:9} "
                f"{packer.files.packed:5} {row['pack_s']:6.1f} {time.perf_counter() - began:6.1f}  "
                f"{','.join(map(str, bits))}{'' if met else '  MISSED'}",
                flush=True,
            )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
