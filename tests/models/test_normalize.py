from __future__ import annotations

import torch

from atmc_search.models import Normalize


def test_each_channel_is_shifted_and_scaled():
    layer = Normalize([0.5, 0.25], [0.5, 2.0])
    x = torch.rand(3, 2, 4, 5)
    out = layer(x)
    assert torch.equal(out[:, 0], (x[:, 0] - 0.5) / 0.5)
    assert torch.equal(out[:, 1], (x[:, 1] - 0.25) / 2.0)


def test_statistics_are_state_and_not_weights():
    layer = Normalize([0.5], [0.25])
    assert set(layer.state_dict()) == {"mean", "std"}
    assert list(layer.parameters()) == []
