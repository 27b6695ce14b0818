"""What a file's length changes against the paper's count, non-zeros × bits: the figures of docs/fashion-methods.md.

python scripts/honest_bytes.py docs/fashion-methods.parquet        # or runs/<study>/trials.parquet
"""

from __future__ import annotations

import sys
from itertools import combinations

import pandas as pd

from atmc_search import front

ACCURACIES = {"clean_accuracy": "max", "robust_accuracy": "max"}
LEAST_CLEAN = {"clean_accuracy": {"min": 0.5}}


def main(path: str) -> None:
    trials = pd.read_parquet(path)
    measured = trials[trials["state"].isin(["complete", "stopped"])].astype({"size_bytes": float, "paper_bits": float})
    ratio = 8 * measured["size_bytes"] / measured["paper_bits"]
    print("bits of the file for each of the paper's, by method (least, median, most)")
    print(ratio.groupby(measured["trial.method"]).agg(["min", "median", "max"]).round(2).to_string())

    pairs = wrong = fewer_bits = 0
    measured = measured.assign(width=measured["paper_bits"] / measured["nnz"])
    for a, b in combinations(measured.itertuples(), 2):
        pairs += 1
        if (a.size_bytes - b.size_bytes) * (a.paper_bits - b.paper_bits) < 0:
            favoured, other = (a, b) if a.paper_bits < b.paper_bits else (b, a)
            wrong += 1
            fewer_bits += favoured.width < other.width
    print(f"\n{wrong} of {pairs} pairs of trials are ranked otherwise by the paper's count,")
    print(f"{fewer_bits} of them in favour of the trial with fewer bits a non-zero")

    by_bytes, by_paper = (
        set(front(trials, {size: "min", **ACCURACIES}, LEAST_CLEAN)["trial"]) for size in ("size_bytes", "paper_bits")
    )
    print(f"on the front by bytes only: trials {sorted(map(int, by_bytes - by_paper))}")
    print(f"by the paper's count only:  trials {sorted(map(int, by_paper - by_bytes))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
