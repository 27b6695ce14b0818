"""Bits and non-zeros that a budget of bytes pays for: on entropies (`compress.byte_estimate`), set right by a file."""

from __future__ import annotations

from dataclasses import dataclass

from atmc_search.compress.byte_estimate import RateModel, least_distortion
from atmc_search.tasks.atmc.byte_files import Bits, ByteFiles
from atmc_search.tasks.atmc.constraints import layer_names

_WIDTHS = range(2, 9)


@dataclass(frozen=True)
class Choice:
    """What a budget pays for.

    Attributes:
        k: non-zeros.
        width: bits of the codebooks, of all tensors.
        bits: the same; or, mixed, by name for the same bytes.
        size: bytes of such a file, in an estimate.
        scale: real bytes per estimated byte.
    """

    k: int
    width: int
    bits: Bits
    size: float
    scale: float


def choice(files: ByteFiles, budget: int, least_bytes: int, width: int | None = None) -> Choice:
    """The bits, of those that the trial leaves open, that distort the weights least, and their k; packs one file.

    Args:
        files: of the weights, dense or as dense as a schedule still holds them.
        budget: the most bytes of a file.
        least_bytes: of a file without weights.
        width: bits that were chosen before, on dense weights: half pruned ones seem to lose less by fewer bits.
    """
    settings, seed = files.deployer.spec.compress, files.deployer.spec.seed
    given = width or (settings.bits if settings.bits < 32 else None)
    widths = _WIDTHS if given is None else [given]
    room = max(1, budget - least_bytes)
    model = _rate_model(files)
    found = least_distortion(model, room, widths, seed=seed)
    size = len(files.packed_with(found.k, found.bits).artifact)
    scale = real_per_estimated(size - least_bytes, found.bytes_)
    found = model.at(room, found.bits, scale=scale, seed=seed)  # which bits is a matter of shares: the scale is not
    bits = files.mixed(found.k, found.bits) if settings.bit_allocation == "mixed" else found.bits
    return Choice(found.k, found.bits, bits, least_bytes + found.bytes_, scale)


def estimated(files: ByteFiles, k: int, bits: int) -> float:
    """Bytes of the k weights at `bits`, unscaled and without what a file has beside them."""
    return _rate_model(files).bytes_at(k, bits, seed=files.deployer.spec.seed)


def real_per_estimated(real: float, estimate: float) -> float:
    """The scale of an estimate, at least 0.1: a file may hold nothing, where everything is dead."""
    return max(0.1, real / max(1.0, estimate))


def _rate_model(files: ByteFiles) -> RateModel:
    by_lamp = files.deployer.spec.compress.by_lamp
    return RateModel.of(files.weights, layer_names(files.deployer.layers) if by_lamp else None)
