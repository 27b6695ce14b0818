"""Random changes of training images, drawn for a whole batch at once on the device that it lies on.

To add one, give `spec.AugmentSpec` a field and `augment` a keyword, which at its default changes and draws nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(x: Tensor, *, crop_padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Each image shifted and mirrored by chance, independently of the others.

    The usual augmentation of CIFAR (Lee et al. 2015, arXiv 1409.5185, section 4; He et al. 2016, arXiv 1512.03385,
    section 4.2): zeros, which are black, are put around the image, of which a crop of its own size is taken; then it
    is mirrored left to right with probability 1/2.

    Args:
        x: (n, channels, height, width), in [0, 1]. Not changed.
        crop_padding: pixels of black on every side, at least 0. All (2 crop_padding + 1)² crops are equally likely.
        flip: whether to mirror.
        generator: all randomness comes from it, drawn on its own device; the same generator gives the same images
            wherever they lie.

    Returns:
        A new tensor of x's shape, type and device; x itself, and nothing drawn, where there is nothing to do.
    """
    assert crop_padding >= 0, crop_padding
    if crop_padding == 0 and not flip:
        return x
    n, channels, height, width = x.shape

    def drawn(*shape: int, below: int) -> Tensor:
        return torch.randint(below, shape, generator=generator, device=generator.device).to(x.device)

    # For each image, the rows and the columns of the padded one that it is to show: one gather does the rest.
    rows = torch.arange(height, device=x.device).expand(n, height)
    columns = torch.arange(width, device=x.device).expand(n, width)
    if crop_padding:
        x = F.pad(x, (crop_padding,) * 4)
        down, right = drawn(2, n, 1, below=2 * crop_padding + 1)
        rows, columns = rows + down, columns + right
    if flip:
        columns = torch.where(drawn(n, 1, below=2).bool(), columns.flip(1), columns)
    image = torch.arange(n, device=x.device).view(n, 1, 1, 1)
    channel = torch.arange(channels, device=x.device).view(1, channels, 1, 1)
    return x[image, channel, rows.view(n, 1, height, 1), columns.view(n, 1, 1, width)]
