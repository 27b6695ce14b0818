"""What an arm gains over another at equal bytes, seed by seed: what a technique is good for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def gains(trials: pd.DataFrame, reference: str, accuracies: Sequence[str]) -> pd.DataFrame:
    """`trials` with a column `gain_…` for every accuracy: the trial's, less the reference's at as many bytes.

    The reference's accuracy is read off the line through its points of the same seed over the logarithm of bytes. An
    arm of smaller files thereby gains, although its accuracy is the same. NaN where the reference has no file as small
    or as large, for a failed trial, and for all of a seed of which the reference has no trial.

    Args:
        trials: arm, seed, failed, size_bytes and the accuracies, a row a trial.
        reference: the arm that others are compared with; its own gains are 0 but for rounding.
        accuracies: columns in [0, 1].
    """
    found = trials.copy()
    for name in accuracies:
        found[f"gain_{name}"] = np.nan
    done = trials[trials["failed"].isna()]
    for seed, own in done[done["arm"] == reference].groupby("seed"):
        line = own.sort_values("size_bytes")
        rows = done.index[done["seed"] == seed]
        for name in accuracies:
            level = np.interp(
                np.log(done.loc[rows, "size_bytes"].astype(float)),
                np.log(line["size_bytes"].astype(float)),
                line[name].astype(float),
                left=np.nan,
                right=np.nan,
            )
            found.loc[rows, f"gain_{name}"] = done.loc[rows, name].astype(float) - level
    return found
