"""Which weights live: against folding, which finds it by interval arithmetic to a fixpoint."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from damaged import MODELS_SMALL, built, damage, state
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn

from atmc_search.channels import EffectiveEntries, folded

MODELS = ("lenet", "mlp", "small_cnn")


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    return {f"{name}.weight": layer.weight.detach().clone() for name, layer in layers.items()}


@pytest.mark.parametrize("name", MODELS)
def test_what_folding_leaves_are_the_living_non_zeros(name: str) -> None:
    shape = MODELS_SMALL[name][0]
    model = damage(built(name), 0, share=0.3)
    given, left = weights_of(model), weights_of(folded(model, shape))
    effective = EffectiveEntries.of(model, shape)(given)
    dead = 0
    for key, weight in given.items():
        assert effective[key].shape == weight.shape
        # Folding finds more dead where a ReLU's argument is never positive, which no zero shows.
        assert not ((left[key] != 0) & ~effective[key]).any(), key
        dead += int(((weight != 0) & ~effective[key]).sum())
    kept = {key: weight.masked_fill(~effective[key], 0) for key, weight in given.items()}
    most = sum(int((weight != 0).sum()) for weight in given.values())
    folded_away = most - sum(int((weight != 0).sum()) for weight in left.values())
    assert 0 < dead <= folded_away <= 1.2 * dead
    assert all((EffectiveEntries.of(model, shape)(kept)[key] | (weight == 0)).all() for key, weight in kept.items())


@drawn(st.integers(0, 10**6), st.sampled_from([0.1, 0.3, 0.6]), st.booleans())
@settings(max_examples=25, deadline=None)
def test_in_an_mlp_entries_live_between_units_on_a_path_from_image_to_logits(
    seed: int, share: float, bias: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(3, 5, bias=bias),
        nn.ReLU(),
        nn.Linear(5, 4, bias=bias),
        nn.Tanh(),
        nn.Linear(4, 2, bias=bias),
    )
    given = {name: (torch.rand(w.shape, generator=generator) < share).float() for name, w in weights_of(model).items()}
    matrices = list(given.values())
    on_path = [[True] * 3, *([False] * len(matrix) for matrix in matrices[:-1]), [True] * 2]
    paths = product(range(3), range(5), range(4), range(2))
    for path in paths:
        if all(matrix[o, i] for matrix, (i, o) in zip(matrices, pairwise(path), strict=True)):
            for units, unit in zip(on_path, path, strict=True):
                units[unit] = True
    effective = EffectiveEntries.of(model, (1, 1, 3))(given)
    for mask, (left, right) in zip(effective.values(), pairwise(on_path), strict=True):
        assert torch.equal(mask, torch.tensor(right)[:, None] & torch.tensor(left))


def test_biases_count_as_they_are_when_asked_and_the_model_is_left_alone() -> None:
    """A padded constant is no constant: what reads it lives as long as the bias that makes it is not 0."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(75, 2))
    given = weights_of(model)
    given["0.weight"][1] = 0
    effective = EffectiveEntries.of(model, (1, 5, 5))
    before = state(model)
    with_bias = effective(given)["1.weight"]
    border = torch.ones(3, 3, dtype=torch.bool)
    border[1, 1] = False  # the middle alone never reads padding, and its constant goes into the bias
    assert torch.equal(with_bias[:, 1], border.expand(3, 3, 3))
    assert with_bias[:, 0].all()
    assert all(torch.equal(tensor, before[key]) for key, tensor in state(model).items())
    with torch.no_grad():
        model[0].bias[1] = 0
    assert not effective(given)["1.weight"][:, 1].any()
    assert effective(given)["0.weight"].flatten().tolist() == [True, False]


def test_a_model_without_a_graph_lives_whole() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.flatten(1)) if x.sum() > 0 else self.layer(x.flatten(1) + 1)

    effective = EffectiveEntries.of(Branching(), (3, 1, 1))({"layer.weight": torch.zeros(2, 3)})
    assert effective["layer.weight"].all()
