from __future__ import annotations

import pytest
import torch
from torch import nn

from atmc_search.training.parts import Average, Moment


def model_of(value: float) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    write(model, value)
    return model


@torch.no_grad()
def write(model: nn.Module, value: float) -> None:
    for tensor in model.state_dict().values():
        tensor.fill_(value)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.998])
def test_the_average_is_the_weighted_sum_with_warmed_up_decays(decay):
    values = [1.0, 3.0, -2.0, 5.0, 0.5, 4.0]
    model = model_of(values[0])
    average = Average(model, decay)
    for step, value in enumerate(values[1:]):
        write(model, value)
        average.after_step(Moment(step, 5))
    decays = [min(decay, (1 + t) / (10 + t)) for t in range(5)]
    weights = [torch.tensor(decays[t:]).prod() * (1 - decays[t - 1] if t else 1.0) for t in range(6)]
    expected = float(sum(w * v for w, v in zip(weights, values, strict=True)))
    assert sum(weights) == pytest.approx(1.0)
    assert average.steps == 5
    for name in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
        assert torch.allclose(average.tensors[name], torch.tensor(expected)), name


def test_the_model_holds_the_average_only_while_asked_to():
    model = model_of(1.0)
    average = Average(model, 0.5)
    write(model, 2.0)
    average.after_step(Moment(0, 1))  # 0.1 · 1 + 0.9 · 2
    with average.final():
        assert torch.allclose(model[0].weight, torch.tensor(1.9))
        assert torch.allclose(model[1].running_mean, torch.tensor(1.9))
        assert int(model[1].num_batches_tracked) == 2
    assert torch.equal(model[0].weight, torch.full((3, 2), 2.0))
    assert torch.allclose(average.tensors["0.bias"], torch.tensor(1.9))


def test_after_an_error_the_model_has_its_own_weights_again():
    model = model_of(1.0)
    average = Average(model, 0.5)
    write(model, 2.0)
    with pytest.raises(KeyError), average.final():
        raise KeyError
    assert torch.equal(model[0].weight, torch.full((3, 2), 2.0))
