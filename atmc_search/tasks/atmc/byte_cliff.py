"""A budget of bytes beside a cliff: one weight more, and a path through the network comes alive at once."""

from __future__ import annotations

from collections.abc import Callable

from atmc_search.tasks.atmc.byte_files import Bits, ByteFiles
from atmc_search.tasks.atmc.deploy import Deployed
from atmc_search.tasks.atmc.fitting import Fit
from atmc_search.training import AttackedBatches

_MOST_BITS = 8
_MOST_FILLS = 24


def beside_a_cliff(
    best: Deployed,
    k: int,
    bits: Bits,
    *,
    files: ByteFiles,
    fit: Callable[[int], tuple[Fit | None, Deployed | None]],
    close: Callable[[int], bool],
    budget: int,
    batches: AttackedBatches,
) -> Deployed:
    """The file where no k comes close.

    Fewer bits pay for that path; else more bits fill what is left, one tensor at a time for as long as the file fits.

    Args:
        best: the largest file within the budget, of k weights at these bits.
        k: those weights.
        bits: of its codebooks.
        files: makes others.
        fit: seeks a k at so many bits, with its file.
        close: whether a size is what is sought.
        budget: the most bytes.
        batches: training images, attacked as in training.
    """
    if isinstance(bits, int):
        for width in range(bits - 1, 0, -1):
            found = fit(width)[1]
            if found is not None and close(len(found.artifact)):
                return found
    widths = {name: bits if isinstance(bits, int) else bits[name] for name in files.weights}
    empty = {name for name, width in best.sizes.bits_per_tensor.items() if not width}
    finer = [(name, width) for width in range(2, _MOST_BITS + 1) for name in widths if name not in empty]
    left = _MOST_FILLS
    for name, width in finer:
        if widths[name] >= width:
            continue
        if not left or close(len(best.artifact)):
            break
        left -= 1
        packed = files.packed_with(k, widths | {name: width}, batches)
        if len(best.artifact) < len(packed.artifact) <= budget:
            best, widths = packed, widths | {name: width}
    return best
