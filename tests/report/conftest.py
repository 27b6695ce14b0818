"""A study of 40 trials as it would be read back from a run folder, made up but with the shape of real ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from tables import described

from atmc_search.measure.intervals import wilson_interval
from atmc_search.results import STUDY_COLUMNS, parameter_columns, schema_of
from atmc_search.tasks.atmc.columns import ATMC_COLUMNS

SPACE = {
    "trial.compress.factors": CategoricalDistribution(("none", "uvc")),
    "trial.compress.keep": FloatDistribution(0.002, 0.3, log=True),
    "trial.compress.bits": CategoricalDistribution((2, 3, 4, 5, 8)),
    "trial.train.lr": FloatDistribution(0.003, 0.1, log=True),
}


@pytest.fixture
def params() -> list[str]:
    return list(SPACE)


@pytest.fixture
def objectives() -> dict[str, str]:
    return {"size_bytes": "min", "clean_accuracy": "max", "robust_accuracy": "max"}


@pytest.fixture
def trials() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    start = datetime(2026, 1, 5, 12, tzinfo=UTC)
    images, dense_weights = 5000, 430_500
    rows = []
    for number in range(40):
        keep = float(np.exp(rng.uniform(np.log(0.002), np.log(0.3))))
        bits = int(rng.choice([2, 3, 4, 5, 8]))
        lr = float(np.exp(rng.uniform(np.log(0.003), np.log(0.1))))
        size = int(900 + dense_weights * keep * (bits + 3.2) / 8)
        skill = 1 / (1 + (2600 / size) ** 1.3) - 0.07 * abs(np.log10(lr / 0.03)) - 0.04 * (bits == 2)
        clean = round(images * (0.30 + 0.555 * skill + rng.normal(0, 0.015)))
        robust = round(images * (0.12 + 0.53 * skill - 0.02 * (bits == 8) + rng.normal(0, 0.02)))
        state = {5: "failed", 17: "running", 23: "failed", 31: "interrupted"}.get(number, "complete")
        state = "stopped" if state == "complete" and number > 9 and skill < 0.5 else state
        row = {
            "trial": number,
            "state": state,
            "reason": "loss is not finite" if state == "failed" else "",
            "epoch": 3 if state == "stopped" else 9,
            "epochs": 9,
            "seed": number,
            "fingerprint": "0123456789ab",
            "started_at": start + timedelta(minutes=number),
            "reported_at": start + timedelta(minutes=number + 3),
            "trial.compress.factors": str(rng.choice(["none", "uvc"])),
            "trial.compress.keep": keep,
            "trial.compress.bits": bits,
            "trial.train.lr": lr,
        }
        if state != "failed":
            row |= {
                "size_bytes": size,
                "clean_accuracy": clean / images,
                "robust_accuracy": robust / images,
                "validation_images": images,
                "loss": 0.9,
                "dense_size_bytes": 4 * dense_weights,
                "dense_clean_accuracy": 0.8630,
                "dense_robust_accuracy": 0.6512,
            }
            row["clean_accuracy_low"], row["clean_accuracy_high"] = wilson_interval(clean, images)
            row["robust_accuracy_low"], row["robust_accuracy_high"] = wilson_interval(robust, images)
        rows.append(row)
    schema = schema_of((*STUDY_COLUMNS, *ATMC_COLUMNS, *parameter_columns(SPACE)))
    frame = pa.Table.from_pylist(rows, schema=schema).to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    frame.attrs["name"] = "fashion-lenet"
    return described(frame)
