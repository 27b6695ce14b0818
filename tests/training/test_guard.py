from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from stages import plain_stage
from torch import nn

from atmc_search.attacks import FGSMRS, PGD, ThreatModel
from atmc_search.data import DeviceData
from atmc_search.spec import Component
from atmc_search.training import Guard


@pytest.mark.parametrize(
    ("robust", "own", "collapsed_at"),
    [
        ([0.5, 0.6, 0.31], [0.6, 0.7, 0.9], 0),  # not below half of the best
        ([0.5, 0.6, 0.29], [0.6, 0.7, 0.9], 3),
        ([0.6, 0.2, 0.2], [0.7, 0.3, 0.3], 0),  # all robustness fell, that to the training attack too
        ([0.6, 0.1, 0.0], [0.7, 0.9, 0.9], 2),
        ([0.0, 0.0, 0.0], [0.9, 0.9, 0.9], 0),  # nothing to go back to
    ],
)
def test_collapse_is_half_of_the_best_and_half_of_what_survives_the_training_attack(
    tiny_splits, monkeypatch, robust, own, collapsed_at
):
    guard = Guard(DeviceData(tiny_splits.train, "cpu"), FGSMRS(), ThreatModel(eps=0.1), seed=0)
    for epoch in range(3):
        found = {True: own[epoch], False: robust[epoch]}
        monkeypatch.setattr(Guard, "_surviving", lambda self, m, attack, found=found: found[attack == FGSMRS()])
        assert guard.collapsed(nn.Identity(), epoch + 1) == (epoch + 1 == collapsed_at)
    assert guard.collapsed_at == collapsed_at
    assert guard.training == (PGD(steps=7) if collapsed_at else FGSMRS())


def test_what_survives_is_counted_on_the_same_images_and_leaves_the_model_as_it_was(tiny_splits):
    """A model of constant logits is right on one class whatever the attack."""
    torch.manual_seed(0)
    data = DeviceData(tiny_splits.train, "cpu")  # 256 images: the batch is all of them
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)).train()
    nn.init.zeros_(model[2].weight)
    with torch.no_grad():
        model[2].bias.copy_(torch.arange(10.0))
    guard = Guard(data, FGSMRS(), ThreatModel(eps=0.1), seed=0)
    assert not guard.collapsed(model, 1)
    assert guard.best == pytest.approx(float((data.labels == 9).float().mean()))
    assert model.training
    assert int(model[1].num_batches_tracked) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_schedule": "cyclic", "warmup": 0.5}, "rises over 40 %"),
        ({"guard": True, "attack": Component(name="none")}, "attack is none; remove guard"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        plain_stage(epochs=2, **settings)


def test_the_good_state_is_a_copy_and_is_gone_after_a_collapse(tiny_splits):
    def made() -> Guard:
        return Guard(DeviceData(tiny_splits.train, "cpu"), FGSMRS(), ThreatModel(eps=0.1), seed=0)

    guard, tensors, facts = made(), {"model/w": torch.zeros(2)}, {"a": {"steps": 1}}
    assert guard.state() == ({}, {"best": 0.0, "collapsed_at": 0, "good": None})
    guard.keep((tensors, facts))
    guard.best = 0.4
    tensors["model/w"] += 1
    facts["a"]["steps"] = 2
    assert guard.good is not None
    assert guard.good[0]["model/w"].tolist() == [0, 0]
    again = made()
    again.load(*guard.state())
    assert again.good is not None
    assert (again.best, again.collapsed_at, again.good[1]) == (0.4, 0, {"a": {"steps": 1}})
    assert again.good[0]["model/w"].tolist() == [0, 0]
    guard.collapsed_at = 3
    assert guard.state() == ({}, {"best": 0.4, "collapsed_at": 3, "good": None})
    again.load(*guard.state())
    assert again.training == PGD(steps=7)
