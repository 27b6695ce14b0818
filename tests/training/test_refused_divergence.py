from __future__ import annotations

import math

import pytest
import torch

from atmc_search.training import all_finite


@pytest.mark.parametrize(("value", "finite"), [(0.0, True), (1e38, True), (math.nan, False), (-math.inf, False)])
def test_all_finite(value, finite):
    assert all_finite({"a": torch.ones(2), "b": torch.tensor([1.0, value])}) == finite
