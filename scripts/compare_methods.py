"""Methods side by side on equal data, epochs and gradient steps, over seeds; test images once, at the end.

    python scripts/compare_methods.py search_spaces/comparisons/fashion_lenet.yaml --check      # what it would run
    python scripts/compare_methods.py search_spaces/comparisons/fashion_lenet.yaml --workers 2
    python scripts/compare_methods.py search_spaces/comparisons/cifar10_resnet18.yaml --workers 1 --device cuda

Training needs no Ray. What was done before lies in runs/NAME and is not done again: stop it and start it as you like.
Only when every trial is trained are test images read, and each artifact is measured on them once.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from comparing.figure import draw
from comparing.gains import gains
from comparing.gains_figure import draw_gains
from comparing.plan import jobs, load_comparison, settings_of
from comparing.tables import frame, markdown
from comparing.work import work

from atmc_search.errors import AtmcError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, help="the comparison: a YAML file")
    parser.add_argument("--workers", type=int, default=1, help="processes at a time, each of one thread (default: 1)")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of results (default: runs)")
    parser.add_argument("--only", nargs="+", metavar="ARM", help="these arms alone, without test images")
    parser.add_argument("--seeds", nargs="+", type=int, help="these seeds alone, without test images")
    parser.add_argument("--check", action="store_true", help="say what would be run, and end")
    given = parser.parse_args()
    try:
        return compare(given)
    except AtmcError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last whole trial", file=sys.stderr)
        return 130


def compare(given: argparse.Namespace) -> int:
    whole = load_comparison(given.spec)
    unknown = [arm for arm in given.only or [] if arm not in whole.arms]
    if unknown:
        raise AtmcError(f"--only {unknown[0]}: no arm of {given.spec}; it has {', '.join(whole.arms)}")
    arms = {name: arm for name, arm in whole.arms.items() if name in (given.only or whole.arms)}
    seeds = sorted(set(given.seeds or [])) or whole.seeds
    part = whole.model_copy(update={"arms": arms, "seeds": seeds})
    if given.check:
        for job in jobs(part):
            print(job.arm, dict(settings_of(part, job)), "seed", job.seed)
        return 0
    partial = bool(given.only or given.seeds)
    folder = given.runs / whole.name
    rows = work(part, folder, workers=given.workers, device=given.device, measuring=not partial)
    trials = frame(rows)
    columns = [("clean_accuracy", "clean, validation"), ("robust_accuracy", "robust, validation")]
    if whole.test is not None and not partial:
        columns = [("test_clean", "clean, test"), *((f"test_{name}", f"{name}, test") for name in whole.test.attacks)]
    names = [name for name, _ in columns]
    relative = whole.reference in arms
    if relative:
        trials = gains(trials, whole.reference, names)
        names += [f"gain_{name}" for name in names]
        if trials[names[-1]].isna().all():
            print(
                f"nothing can be held against {whole.reference}: all of its trials failed, or its files differ in size"
            )
    table = markdown(part, trials, names)
    print(table)
    if not partial:
        trials.to_parquet(folder / "comparison.parquet")
        (folder / "comparison.md").write_text(table + "\n")
        written = ["comparison.parquet", "comparison.md"]
        if trials["size_bytes"].notna().any():
            draw(trials, list(arms), columns, folder / "comparison.png")
            written.append("comparison.png")
        if relative and trials[names[-1]].notna().any():
            draw_gains(part, trials, columns, folder / "gains.png")
            written.append("gains.png")
        print(f"\n{folder}: {', '.join(written)}, trials/, test/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
