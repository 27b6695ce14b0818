"""The threat model {x' in [0, 1]^d : ‖x' − x‖ ≤ eps} and its geometry: clip to it, start in it, measure in it."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from atmc_search.errors import AtmcError
from atmc_search.registry import validated
from atmc_search.spec import Section


class ThreatModel(Section):
    """What the adversary may do: move an image within [0, 1] by at most eps in the norm."""

    norm: Literal["linf", "l2"] = Field("linf", description="the norm of the perturbation")
    eps: float = Field(ge=0, description="its radius, in units of pixels scaled to [0, 1]")


def require_pixel_units(threat: ThreatModel, name: str) -> None:
    """Passes if the radius of `threat`, which the user wrote as `name`, can be in units of pixels scaled to [0, 1].

    Raises:
        ValueError: it cannot; most likely it is meant in 255ths.
    """
    if threat.norm == "linf" and threat.eps > 1:
        raise ValueError(
            f"{name} {threat.eps:g} lets every pixel be anything, as pixels are in [0, 1]; "
            f"for {threat.eps:g}/255 write {threat.eps / 255:.4g}"
        )


def checked_threat(norm: str, eps: float, where: str = "--eps") -> ThreatModel:
    """The threat model of a radius that a user gave as `where`.

    Raises:
        AtmcError: it is no radius for pixels scaled to [0, 1].
    """
    threat = validated(ThreatModel, {"norm": norm, "eps": eps}, path="")
    try:
        require_pixel_units(threat, where)
    except ValueError as error:
        raise AtmcError(str(error)) from None
    return threat


def distance(threat: ThreatModel, x: Tensor, x_adv: Tensor) -> Tensor:
    """The norm of each image's perturbation, shape (n,), in [0, 1] pixel units."""
    delta = (x_adv - x).flatten(1)
    return delta.abs().amax(1) if threat.norm == "linf" else delta.norm(dim=1)


def clip(threat: ThreatModel, x: Tensor, x_adv: Tensor) -> Tensor:
    """`x_adv` moved into the eps-ball around `x` and into [0, 1].

    For ℓ∞ this is the Euclidean projection on the intersection. For ℓ2 the ball comes first and the box second:
    the result lies in both (clamping to a box that holds x never moves a point away from x), though it is not
    always the nearest such point.
    """
    if threat.norm == "linf":
        return torch.minimum(torch.maximum(x_adv, x - threat.eps), x + threat.eps).clamp_(0, 1)
    delta = x_adv - x
    norm = per_image(delta.flatten(1).norm(dim=1), x).clamp_min(1e-12)
    return (x + delta * (threat.eps / norm).clamp_max(1)).clamp_(0, 1)


def random_start(threat: ThreatModel, x: Tensor, generator: torch.Generator) -> Tensor:
    """A point drawn uniformly from the eps-ball around each image, clipped to [0, 1]."""
    if threat.norm == "linf":
        noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return (x + (2 * noise - 1) * threat.eps).clamp_(0, 1)
    direction = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    # A uniform radius would crowd the centre: in d dimensions the volume grows with the d-th power of the radius.
    radius = torch.rand(len(x), generator=generator, device=x.device, dtype=x.dtype) ** (1 / x[0].numel())
    unit = direction / per_image(direction.flatten(1).norm(dim=1), x).clamp_min(1e-12)
    return (x + unit * per_image(radius, x) * threat.eps).clamp_(0, 1)


def ascend(threat: ThreatModel, x_adv: Tensor, gradient: Tensor, step_size: float | Tensor) -> Tensor:
    """One step of steepest ascent in the threat's norm: along the sign for ℓ∞, along the unit gradient for ℓ2.

    `step_size` is one number, or one an image as (n, 1, 1, 1).
    """
    if threat.norm == "linf":
        return x_adv + step_size * gradient.sign()
    # Largest entry first: a flat model's gradient (1e-25, say) must not pass for none, nor its square underflow.
    largest = per_image(gradient.flatten(1).abs().amax(1), gradient)
    direction = gradient / largest.clamp_min(torch.finfo(gradient.dtype).tiny)
    norm = per_image(direction.flatten(1).norm(dim=1), gradient).clamp_min(1e-12)
    return x_adv + step_size * direction / norm


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """(n,) values as (n, 1, 1, 1), to go with images."""
    return values.view(-1, *[1] * (like.dim() - 1))
