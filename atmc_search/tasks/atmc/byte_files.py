"""Files of a trial's weights as they are, at so many non-zeros and bits: what a budget of bytes is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from atmc_search.artifact import mixed_bits
from atmc_search.compress import Codebook, Weights
from atmc_search.data import DeviceData
from atmc_search.tasks.atmc.deploy import Deployed, Deployer
from atmc_search.training import Constrained

Bits = int | Mapping[str, int]
"""Of the codebooks of all tensors, or by name."""


@dataclass
class ByteFiles:
    """Packs a trial's weights.

    Attributes:
        deployer: makes files.
        constrained: what binds the weights.
        packed: files made so far, which take most of the time.
    """

    deployer: Deployer
    constrained: Constrained
    packed: int = 0

    def made(self, k: int, bits: Bits, train: DeviceData | None = None) -> Deployed:
        """The file of the k weights that the budget chooses; without `train`, statistics stay those of training."""
        self.packed += 1
        codes = self.constrained.codes
        codebook = self.codebook(bits)
        weights, others = self.deployer.live(self.chosen(k))
        return self.deployer.on(codebook, weights, others, codes.centres if codes else {}, train)

    def codebook(self, bits: Bits) -> Codebook:
        """The codebook constraint of so many bits."""
        return Codebook(bits, seed=self.deployer.spec.seed, price=self.deployer.spec.compress.code_price)

    @torch.no_grad()
    def chosen(self, k: int) -> dict[str, Tensor]:
        """The k weights, zeros for the others."""
        return self.constrained.budget(k).project(self.constrained.weights, None)[0]

    def mixed(self, k: int, uniform: int) -> Bits:
        """Bits by tensor for the bytes of `uniform` bits at k weights (`mixed_bits`)."""
        settings, seed = self.deployer.spec.compress, self.deployer.spec.seed
        kept, _ = self.deployer.live(self.chosen(k))
        found = mixed_bits(
            kept,
            self.deployer.layers,
            uniform=uniform,
            floats=settings.floats,
            seed=seed,
            price=settings.code_price,
        )
        return uniform if found is None else found

    @property
    def weights(self) -> Weights:
        """As they are."""
        return self.constrained.weights

    @property
    def held(self) -> int:
        """Non-zeros, at least 1."""
        return max(1, sum(int(weight.count_nonzero()) for weight in self.weights.values()))

    @property
    def entries(self) -> int:
        """Zeros included."""
        return sum(weight.numel() for weight in self.weights.values())
