"""Files of a trial's weights as they are, at so many non-zeros and bits: what a budget of bytes is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from atmc_search.artifact import mixed_bits
from atmc_search.compress import Codebook, Weights
from atmc_search.tasks.atmc.deploy import Deployed, Deployer
from atmc_search.training import AttackedBatches
from atmc_search.training.parts import Codes, Projected

Bits = int | Mapping[str, int]
"""Of the codebooks of all tensors, or by name."""


@dataclass
class CodeBits:
    """The bits of a trial's codebooks, which a budget of bytes chooses anew as training goes.

    Attributes:
        seed: of the codebooks.
        price: of their codes.
        bits: as chosen last.
    """

    seed: int
    price: float
    bits: Bits = 4

    def codebook(self, weights: Weights) -> Codebook:
        """The codebook constraint of the bits chosen, for any weights."""
        return self.of(self.bits)

    def of(self, bits: Bits) -> Codebook:
        """The codebook constraint of so many bits."""
        return Codebook(bits, seed=self.seed, price=self.price)


@dataclass
class ByteFiles:
    """Packs a trial's weights.

    Attributes:
        deployer: makes files.
        support: the weights, and their budget of non-zeros.
        codes: their codebooks.
        code_bits: makes other codebooks.
        packed: how many files were packed so far, which take most of the time.
    """

    deployer: Deployer
    support: Projected
    codes: Codes
    code_bits: CodeBits
    packed: int = 0

    def packed_with(self, k: int, bits: Bits, batches: AttackedBatches | None = None) -> Deployed:
        """The file of the k weights that the budget chooses; without `batches`, statistics stay those of training."""
        self.packed += 1
        weights, others = self.deployer.live(self.chosen(k))
        return self.deployer.on(self.code_bits.of(bits), weights, others, self.codes.centres, batches)

    @torch.no_grad()
    def chosen(self, k: int) -> dict[str, Tensor]:
        """The k weights, zeros for the others."""
        return self.support.budget(k).project(self.weights, None)[0]

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
        return self.support.weights

    @property
    def nonzeros(self) -> int:
        """How many there are, at least 1."""
        return max(1, sum(int(weight.count_nonzero()) for weight in self.weights.values()))

    @property
    def entries(self) -> int:
        """Zeros included."""
        return sum(weight.numel() for weight in self.weights.values())
