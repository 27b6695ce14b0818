"""Whether an export is the model it was made from: the same labels, the same logits, for any number of images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from atmc_search.errors import AtmcError

TOLERANCE = 1e-5
"""Most that a logit may differ, as a share of the largest logit, or of 1 where all are smaller.

Deep nets round more than that: a MobileNetV2's logits lie up to 1e-5 from those of float64, and adding up in another
order moves them as far. Eight times the model's own distance from float64 is let pass, but never more than `_MOST`.
"""

_MOST = 1e-3


def probes(input_shape: tuple[int, int, int]) -> Tensor:
    """Images that exports are compared on: four random, black, white, grey, and noise of black and white."""
    generator = torch.Generator().manual_seed(0)
    random = torch.rand(4, *input_shape, generator=generator)
    even = [torch.full((1, *input_shape), value) for value in (0.0, 1.0, 0.5)]
    return torch.cat([random, *even, torch.rand(1, *input_shape, generator=generator).round()])


@torch.no_grad()
def check_logits(
    model: nn.Module, exported: Callable[[Tensor], Tensor], input_shape: tuple[int, int, int], target: str
) -> None:
    """Passes if `exported` answers as `model` does, on all probes at once and on each alone.

    Args:
        model: the original.
        exported: the reread file: images (n, c, h, w) to logits (n, classes).
        input_shape: of an image.
        target: its name, for the message.

    Raises:
        AtmcError: it does not.
    """
    images = probes(input_shape)
    most = 0.0
    for batch in (images, *(images[i : i + 1] for i in range(len(images)))):
        try:
            ours, theirs = model(batch), exported(batch)
        except Exception as error:  # another library, on code of a user's
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise AtmcError(
                f"to = {target!r}: what was made fails on {len(batch)} images ({reason}); {_REMEDY}"
            ) from None
        if theirs.shape != ours.shape:
            raise AtmcError(
                f"to = {target!r}: what was made gives {tuple(theirs.shape)} for {tuple(ours.shape)}; {_REMEDY}"
            )
        if batch is images:
            finite = ours.isfinite()  # infinity may stand in a mask
            scale = max(1.0, float(ours[finite].abs().max()) if finite.any() else 1.0)
            most = scale * min(_MOST, max(TOLERANCE, 8 * _rounding(model, images, ours) / scale))
        apart = torch.where(ours.isfinite(), (ours - theirs).abs(), torch.where(ours == theirs, 0.0, torch.inf))
        if not bool((apart <= most).all()):  # NaN is never <=
            raise AtmcError(
                f"to = {target!r}: logits of what was made are off by {float(apart.max()):.2g}, over the "
                f"{most:.2g} that rounding explains; {_REMEDY}"
            )
        # Where labels differ, ours must be a tie to rounding: the label of the other is as good.
        chosen = ours.gather(1, theirs.argmax(1, keepdim=True)).squeeze(1)
        if not bool((ours.amax(1) - chosen <= most).all()):
            raise AtmcError(f"to = {target!r}: what was made gives other labels; {_REMEDY}")


def _rounding(model: nn.Module, batch: Tensor, ours: Tensor) -> float:
    """How far float32 takes the model's logits from those of float64; 0 where it cannot be had."""
    try:
        exact = copy.deepcopy(model).double()(batch.double())
    except Exception:  # a user's model may know float32 only
        return 0.0
    apart = (exact - ours).abs()
    return float(apart[apart.isfinite()].max()) if apart.isfinite().any() else 0.0


def check_tensors(state: Mapping[str, Tensor], reread: Mapping[str, Tensor], target: str) -> None:
    """Passes if both hold the same tensors to the bit.

    Raises:
        AtmcError: they do not.
    """
    same = state.keys() == reread.keys() and all(torch.equal(state[name], reread[name]) for name in state)
    if not same:
        raise AtmcError(f"to = {target!r}: what was made does not read back the same; {_REMEDY}")


_REMEDY = "nothing was written, try another format"
