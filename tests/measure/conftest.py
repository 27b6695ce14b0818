"""An honestly trained small model and its images."""

from __future__ import annotations

import pytest
from torch import nn

from atmc_search.data import DeviceData, Splits
from atmc_search.models import build_model
from atmc_search.tasks import Start


@pytest.fixture(scope="session")
def validation(tiny_splits: Splits) -> DeviceData:
    return DeviceData(tiny_splits.validation, "cpu")


@pytest.fixture(scope="session")
def dense(tiny_start: Start) -> nn.Module:
    """The adversarially trained dense start of the tiny trial."""
    model = build_model("small_cnn", {"width": 4}, input_shape=(1, 8, 8), classes=10, mean=[0.0], std=[1.0], seed=0)
    model.load_state_dict(dict(tiny_start.tensors))
    return model.eval()
