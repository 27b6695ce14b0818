"""SHA-256 of the artifacts of many small trials and of a whole study, to show that a change changes no result.

Before the change and after it, on one machine:

    python scripts/trial_digests.py before.json
    python scripts/trial_digests.py after.json --compare before.json

Every method and every kind of constraint trains a small CNN (and a batch-normalised net) on 256 digits, on one CPU
thread; then a study of twelve trials runs on one worker. Takes two minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

_STAGE = {"batch_size": 32, "attack": {"name": "pgd", "steps": 2}}
_TRIAL: dict[str, Any] = {
    "data": {"name": "digits", "train_size": 256, "validation_size": 100, "test_size": 50},
    "model": {"name": "small_cnn", "width": 4},
    "threat": {"norm": "linf", "eps": 0.05},
    "dense": {**_STAGE, "epochs": 4},
    "train": {**_STAGE, "epochs": 3},
    "compress": {"keep": 0.2, "bits": 3, "dual_every": 3},
    "evaluate": {"attack": {"name": "pgd", "steps": 3}, "masking_images": 20},
}
_WRN = {"name": "wide_resnet", "depth": 10, "widen_factor": 1}

# By name: what differs from the trial above, section by section; a section's None takes a key out of it.
CASES: dict[str, dict[str, Any]] = {
    **{f"method {name}": {"method": name} for name in ("nap", "da", "ap", "al0", "alr", "atmc_32", "atmc")},
    "method atmc_mixed": {"method": "atmc_mixed"},
    "method atmc_mixed, bytes": {"method": "atmc_mixed", "compress": {"budget_bytes": 1500}},
    "method continuous": {"method": "continuous", "dense": {"epochs": 0}},
    "method continuous, bytes": {
        "method": "continuous",
        "compress": {"keep": None, "bits": None, "budget_bytes": 1200},
    },
    "defaults": {},
    "admm": {"compress": {"codebook": "admm"}},
    "no codebook": {"compress": {"bits": 32}},
    "no schedule": {"compress": {"schedule": None}},
    "no schedule, all, admm": {"compress": {"schedule": None, "count": "all", "codebook": "admm"}},
    "uvc, straight through": {"compress": {"factors": "uvc"}},
    "uvc_plain, admm": {"compress": {"factors": "uvc_plain", "codebook": "admm"}},
    "low_rank, bytes": {"method": "alr", "compress": {"keep": None, "bits": None, "budget_bytes": 5000}},
    "low_rank, energy": {"compress": {"factors": "low_rank", "pruning": "none", "energy": 0.8, "bits": 4}},
    "one_shot, live": {"compress": {"pruning": "one_shot", "count": "live"}},
    "grow": {"compress": {"schedule": {"name": "grow", "every": 3}}},
    "hydra": {"compress": {"pruning": "hydra"}},
    "hydra, global, admm": {"compress": {"pruning": "hydra", "codebook": "admm", "scores": {"budget": "global"}}},
    "harp": {"compress": {"pruning": "harp", "keep": 0.05}},
    "bytes": {"compress": {"keep": None, "bits": None, "budget_bytes": 1500}},
    "bytes, no schedule": {"compress": {"keep": None, "bits": None, "budget_bytes": 1500, "schedule": None}},
    "bytes, mixed": {"compress": {"keep": None, "bits": None, "budget_bytes": 1500, "bit_allocation": "mixed"}},
    "target": {"compress": {"keep": None, "target": {"robust_accuracy": 0.3}}, "train": {"epochs": 5}},
    "ema": {"train": {"ema": 0.9}},
    "ema, no schedule": {"train": {"ema": 0.9}, "compress": {"schedule": None}},
    "ema, hydra": {"train": {"ema": 0.9}, "compress": {"pruning": "hydra"}},
    "ema, bytes": {"train": {"ema": 0.9}, "compress": {"keep": None, "bits": None, "budget_bytes": 1500}},
    "guard, fast": {
        "dense": {"attack": {"name": "fgsm_rs"}, "lr_schedule": "cyclic", "guard": True},
        "train": {"attack": {"name": "fgsm_rs"}, "guard": True, "lr": 1.0, "clip_norm": None, "epochs": 6},
    },
    "trades": {"train": {"loss": {"name": "trades", "beta": 3.0}}, "dense": {"loss": {"name": "trades"}}},
    "distillation": {"train": {"distillation": {"weight": 0.5}}},
    "price, code_price": {"compress": {"price": "bytes", "code_price": 0.02}},
    "lamp, fp32": {"compress": {"importance": "lamp", "floats": "fp32"}},
    "select best": {"dense": {"select": "best"}, "train": {"epochs": 5}, "evaluate": {"select": "best"}},
    "patience": {"train": {"epochs": 9, "patience": 1}, "compress": {"schedule": None, "codebook_from": 0.1}},
    "every 2, augment": {"evaluate": {"every": 2}, "data": {"augment": {"crop_padding": 1, "flip": True}}},
    "batch norm": {"model": _WRN},
    "batch norm, mixed, admm": {"model": _WRN, "method": "atmc_mixed"},
    "l2, wrm": {"threat": {"norm": "l2", "eps": 0.5}, "train": {"attack": {"name": "wrm"}}},
    "clean": {"dense": {"attack": {"name": "none"}}, "train": {"attack": {"name": "none"}, "eps": 0.0}},
}
_STUDY: dict[str, Any] = {
    "compress": {"keep": {"log_uniform": [0.02, 0.3]}, "bits": {"choice": [2, 3, 4]}},
    "train": {"lr": {"log_uniform": [0.05, 0.3]}, "epochs": 4},
    "method": {"choice": ["al0", "atmc", "continuous"]},
}
_SEARCH = {"trials": 12, "sampler": {"startup_trials": 4}, "scheduler": {"name": "mo_asha", "reduction_factor": 2}}


def merged(changes: dict[str, Any]) -> dict[str, Any]:
    """The trial with these changes; `method` is a key of its own."""
    document: dict[str, Any] = {key: dict(section) for key, section in _TRIAL.items()}
    for key, change in changes.items():
        if key == "method" or "name" in change:
            document[key] = change
            continue
        section = document[key] | change
        optional = ("keep", "bits")
        document[key] = {name: value for name, value in section.items() if not (name in optional and value is None)}
    return document


def digests(folder: Path, only: str) -> dict[str, str]:
    """Trains every case in this process, then the study on a Ray of one worker."""
    import torch

    from atmc_search.cli import cli

    torch.set_num_threads(1)
    found: dict[str, str] = {}
    for name, changes in CASES.items():
        if only not in name:
            continue
        spec, out = folder / "case.yaml", folder / "case.atmc"
        spec.write_text(yaml.safe_dump({"name": "digests", "trial": merged(changes), "search": {"trials": 1}}))
        try:
            cli.main(["trial", str(spec), "--out", str(out)], standalone_mode=False)
            found[name] = hashlib.sha256(out.read_bytes()).hexdigest()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
        print(f"{found[name][:90]}  {name}", file=sys.stderr)
    return found


def study_digests(folder: Path) -> dict[str, str]:
    """The artifacts of a study on one worker, and the plain figures of its trials."""
    import pandas as pd

    document = {"name": "study", "trial": merged({}), "search": _SEARCH}
    for key, section in _STUDY.items():
        document["trial"][key] = section if key == "method" else document["trial"][key] | section
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "atmc_search", "run", "study.yaml", "--cpus", "1"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = folder / "runs" / "study"
    found = {f"study {path.name}": _digest(path) for path in sorted((run / "artifacts").iterdir())}
    trials = pd.read_parquet(run / "trials.parquet")
    names = ["trial", "state", "epoch", "reason", "fingerprint", "trial_fingerprint", "size_bytes", "robust_accuracy"]
    found["study trials"] = hashlib.sha256(trials[names].to_csv(index=False).encode()).hexdigest()
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--compare", type=Path, help="an earlier file; exit code 1 where a digest differs")
    parser.add_argument("--only", default="", help="cases that have this word in their name, and no study")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        found = digests(Path(folder), args.only)
        if not args.only:
            found |= study_digests(Path(folder))
    args.out.write_text(json.dumps(found, indent=1))
    if args.compare is not None:
        before = json.loads(args.compare.read_text())
        differ = [name for name in found if found[name] != before.get(name)]
        print(f"{len(found) - len(differ)} of {len(found)} are as before; others: {', '.join(differ) or 'none'}")
        sys.exit(bool(differ))


if __name__ == "__main__":
    main()
