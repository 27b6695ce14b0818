"""Figures over seeds, with intervals, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from comparing.plan import Comparison


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a trial: arm, point, seed, size_bytes, paper_bytes, clean and robust on validation images, `test_…`."""
    found = []
    for row in rows:
        metrics = row.get("metrics", {})
        flat = {"arm": row["arm"], "point": row["point"], "seed": row["seed"], "failed": row.get("failed")}
        flat |= {name: metrics.get(name) for name in ("size_bytes", "clean_accuracy", "robust_accuracy", "nnz")}
        flat["paper_bytes"] = metrics["paper_bits"] / 8 if "paper_bits" in metrics else None
        found.append(flat | {f"test_{name}": value for name, value in row["test"].items()})
    return pd.DataFrame(found)


def summary(trials: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Per arm and point: n, and of each column the mean, the median and half the width of Student's 95 % interval.

    The interval is of the mean over seeds (of training and attack, the images being the same); missing for one seed.
    """
    done = trials[trials["failed"].isna()]
    found = []
    for (arm, point), group in done.groupby(["arm", "point"], sort=False):
        row: dict[str, Any] = {"arm": arm, "point": point, "n": len(group)}
        for column in columns:
            values = group[column].dropna().to_numpy(float)
            if column.startswith("gain_") and len(values) < len(group):  # some seeds' files are of no size to compare
                values = values[:0]
            row[column] = values.mean() if len(values) else np.nan
            row[f"{column}_median"] = np.median(values) if len(values) else np.nan
            row[f"{column}_half"] = half_width(values)
        found.append(row)
    figures = [f"{column}{end}" for column in columns for end in ("", "_median", "_half")]
    return pd.DataFrame(found, columns=["arm", "point", "n", *figures])


def half_width(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Half the width of Student's 95 % interval of the mean."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5) if n > 1 else float("nan")


def markdown(comparison: Comparison, trials: pd.DataFrame, accuracies: Sequence[str]) -> str:
    """The table, smallest first within an arm."""
    means = summary(trials, ["size_bytes", "paper_bytes", *accuracies])
    head = [
        "arm",
        "point",
        "n",
        "bytes",
        "paper's count",
        *(name.replace("test_", "").replace("_accuracy", "").replace("_", " ") for name in accuracies),
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    order = {arm: number for number, arm in enumerate(comparison.arms)}
    for row in sorted(means.to_dict("records"), key=lambda row: (order[row["arm"]], row["size_bytes"])):
        cells = [
            row["arm"],
            label(comparison, row) or "-",
            str(row["n"]),
            _bytes(row, "size_bytes"),
            _bytes(row, "paper_bytes"),
        ]
        cells += [_share(row, name, sign="+" if name.startswith("gain_") else "") for name in accuracies]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("\nMeans over n seeds ± half the width of Student's 95 % interval, and medians in brackets.")
    if any(name.startswith("gain_") for name in accuracies):
        lines[-1] += (
            f" Gains are over {comparison.reference} at as many bytes; none where it has no file of such a size."
        )
    failed = trials[trials["failed"].notna()]
    lines += [f"\n{row.arm}, point {row.point}, seed {row.seed} failed: {row.failed}" for row in failed.itertuples()]
    if comparison.published:
        lines += ["\nPublished:\n", "| method | point | clean | robust | source, protocol |", "|---|---|---|---|---|"]
    for paper in comparison.published:
        said = ", ".join(part for part in (paper.source, paper.note) if part)
        lines.append(f"| {paper.label} | {paper.point} | {paper.clean} | {paper.robust} | {said} |")
    return "\n".join(lines)


def label(comparison: Comparison, row: Mapping[str, Any]) -> str:
    """The settings of a row's point, in words; empty where there are none."""
    point = comparison.arms[row["arm"]].points[row["point"]]
    return ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in point.items())


def _bytes(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:,.0f}" + (f" ± {row[f'{name}_half']:,.0f}" if row[f"{name}_half"] >= 0.5 else "")


def _share(row: Mapping[str, Any], name: str, sign: str) -> str:
    if np.isnan(row[name]):
        return ""
    half = row[f"{name}_half"]
    return f"{row[name]:{sign}.4f}" + ("" if np.isnan(half) else f" ± {half:.4f} ({row[f'{name}_median']:{sign}.4f})")
