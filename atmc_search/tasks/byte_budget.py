"""A size in bytes in place of `keep` and `bits`: how many non-zeros, of how many bits, the artifact may have.

Training projects onto a k whose file would be a little over the budget, measured on real files; what is deployed is cut
to the budget by leaving out the smallest weights. So the last step only ever trims, and k follows the weights from
epoch to epoch: files of equal k differ, as channels die and codes settle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from atmc_search.artifact import mixed_bits
from atmc_search.compress import Codebook, Weights
from atmc_search.compress.byte_estimate import least_distortion
from atmc_search.data import DeviceData
from atmc_search.errors import TrialFailed
from atmc_search.tasks.deploy import Deployed, Deployer
from atmc_search.tasks.fitting import Fit, largest_within
from atmc_search.training import Constrained

_WIDTHS = range(2, 9)
_MARGIN = 0.02
"""What files of the weights in training are over the budget, so that there is always something to trim."""
_SLACK = 0.01
_CLOSE = 0.97
_ROUNDS = 4
_MOST_FILLS = 24
_MOST_GROWTH = 1.5
_FIGURES_BYTES = 8
"""What the measured figures may add to a header that holds others of as many digits."""


@dataclass
class ByteBudget:
    """Keeps a trial's constraints at what its bytes pay for.

    Attributes:
        deployer: makes files.
        constrained: what binds the weights; its ℓ0 budget follows.
        k: the ℓ0 budget of training.
        bits: of the codebooks, of all tensors or by name.
        least_bytes: of a file without weights.
    """

    deployer: Deployer
    constrained: Constrained
    k: int = 0
    bits: int | Mapping[str, int] = 4
    least_bytes: int = 0

    @property
    def budget(self) -> int:
        """The bytes that the file may have before its figures are known."""
        return self._asked - _FIGURES_BYTES

    @property
    def _asked(self) -> int:
        asked = self.deployer.spec.compress.budget_bytes
        assert asked is not None
        return asked

    def codebook(self, weights: Weights) -> Codebook:
        """The codebook constraint, with the bits that were chosen, for any weights."""
        return self._codebook(self.bits)

    def start(self) -> None:
        """Chooses bits and k for the weights before training.

        Raises:
            TrialFailed: the budget does not pay for a weight.
        """
        self.least_bytes = len(self._made(0, self.bits).artifact)
        if self.least_bytes >= self.budget:
            raise TrialFailed(
                f"budget_bytes = {self._asked}: the artifact has {self.least_bytes + _FIGURES_BYTES} bytes without a "
                "weight; raise it"
            )
        self._choose_bits()
        self.follow(1.0)

    def follow(self, progress: float) -> None:
        """Sets k anew for the weights as they are after a share `progress` of training."""
        if self._open(progress):
            self._choose_bits()
        self._hold(self._fit(self.budget * (1 + _MARGIN)))

    def deploy(self, train: DeviceData, progress: float) -> Deployed:
        """The file within the budget, as large as it can be, of the weights as they are; training's k follows.

        Raises:
            TrialFailed: a single weight is over the budget; or training is over and no file is within 3 % below it.
        """
        if self._open(progress):
            self._choose_bits()
        spare, best = 0.0, None
        for _ in range(_ROUNDS):
            fit = self._fit(self.budget - spare)
            if best is None:
                self._hold(fit)
            deployed = self._made(fit.k, self.bits, train)
            size = len(deployed.artifact)
            if size <= self.budget and (best is None or size > len(best.artifact)):
                best = deployed
            if self._close(size) or (size <= self.budget and size == fit.size):
                break  # or nothing that batch norm does is to be made up for
            # New statistics of batch norm take other bytes than those that k was sought beside.
            spare += size - (1 - _SLACK / 2) * self.budget
        if best is None:
            raise TrialFailed(f"budget_bytes = {self._asked}: the artifact has {size} bytes; raise it by a little")
        if not self._close(len(best.artifact)):
            best = self._beside_a_cliff(best, fit.k, train)
        if progress >= 1 and not self._close(len(best.artifact)):
            raise TrialFailed(
                f"budget_bytes = {self._asked}: the nearest file below has {len(best.artifact)} bytes, as a layer dies "
                "with fewer weights or all of them fit; choose another budget, or a schedule for layers to adapt"
            )
        return best

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a checkpoint holds of it."""
        return {}, {"k": self.k, "bits": self.bits if isinstance(self.bits, int) else dict(self.bits)}

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self.bits = facts["bits"]
        self._set(facts["k"])

    def _open(self, progress: float) -> bool:
        """Whether bits are still to be chosen: while a schedule holds more weights than k, without codebooks yet."""
        schedule, codes = self.constrained.schedule, self.constrained.codes
        return codes is None and schedule is not None and progress < schedule.end

    def _choose_bits(self) -> None:
        """The bits that distort the weights least at this budget, with one real file to set the estimate right."""
        settings, seed = self.deployer.spec.compress, self.deployer.spec.seed
        widths = [settings.bits] if settings.bits < 32 else _WIDTHS
        room = max(1, self.budget - self.least_bytes)
        weights = self.constrained.weights
        found = least_distortion(weights, room, widths, seed=seed)
        size = len(self._made(found.k, found.bits).artifact)
        scale = max(0.1, (size - self.least_bytes) / found.bytes_)
        found = least_distortion(weights, room, widths, scale=scale, seed=seed)
        self.k, self.bits = found.k, found.bits
        if settings.bit_allocation == "mixed":
            kept, _ = self.deployer.live(self._largest(found.k))
            mixed = mixed_bits(
                kept,
                self.deployer.layers,
                uniform=found.bits,
                floats=settings.floats,
                seed=seed,
                price=settings.code_price,
            )
            self.bits = found.bits if mixed is None else mixed

    def _held(self) -> int:
        return max(1, sum(int(weight.count_nonzero()) for weight in self.constrained.weights.values()))

    def _close(self, size: int) -> bool:
        return _CLOSE * self._asked <= size <= self.budget

    def _fit(self, budget: float, bits: int | None = None) -> Fit:
        bits_ = self.bits if bits is None else bits
        fit = largest_within(
            lambda k: len(self._made(k, bits_).artifact),
            budget,
            guess=self.k,
            most=self._held(),
            base=self.least_bytes,
            slack=_SLACK,
        )
        if fit is None:
            size = len(self._made(1, bits_).artifact)
            raise TrialFailed(
                f"budget_bytes = {self._asked}: with a single weight the artifact has {size} bytes; raise it"
            )
        return fit

    def _hold(self, fit: Fit) -> None:
        """Has training hold as many weights as a file `_MARGIN` over the budget would, in line with the fit."""
        wanted = self.budget * (1 + _MARGIN)
        growth = (wanted - self.least_bytes) / max(1, fit.size - self.least_bytes)
        self._set(round(fit.k * min(max(growth, 1 / _MOST_GROWTH), _MOST_GROWTH)))

    def _set(self, k: int) -> None:
        entries = sum(weight.numel() for weight in self.constrained.weights.values())
        self.k = min(max(1, k), entries)
        self.constrained.pruning = self.constrained.budget(self.k)
        if self.constrained.schedule is not None:
            self.constrained.schedule = replace(self.constrained.schedule, k=self.k)

    def _beside_a_cliff(self, best: Deployed, k: int, train: DeviceData) -> Deployed:
        """The file where no k comes close: one weight more, and a path through the network comes alive at once.

        Fewer bits pay for that path; else more bits fill what is left, one tensor at a time for as long as the file
        fits.
        """
        if isinstance(self.bits, int):
            for width in range(self.bits - 1, 0, -1):
                fit = self._fit(self.budget, width)
                deployed = self._made(fit.k, width, train)
                if self._close(len(deployed.artifact)):
                    return deployed
        bits = {name: self.codebook({}).bits_of(name) for name in self.constrained.weights}
        finer = [(name, width) for width in _WIDTHS for name in bits if bits[name] < width]
        for name, width in finer[:_MOST_FILLS]:
            deployed = self._made(k, bits | {name: width}, train)
            if len(best.artifact) < len(deployed.artifact) <= self.budget:
                best, bits = deployed, bits | {name: width}
            if self._close(len(best.artifact)):
                break
        return best

    def _codebook(self, bits: int | Mapping[str, int]) -> Codebook:
        return Codebook(bits, seed=self.deployer.spec.seed, price=self.deployer.spec.compress.code_price)

    @torch.no_grad()
    def _largest(self, k: int) -> dict[str, Tensor]:
        return self.constrained.budget(k).project(self.constrained.weights, None)[0]

    def _made(self, k: int, bits: int | Mapping[str, int], train: DeviceData | None = None) -> Deployed:
        """The file of the k largest weights; without `train`, one whose statistics are those of training."""
        codes = self.constrained.codes
        codebook = self._codebook(bits)
        weights, others = self.deployer.live(self._largest(k))
        return self.deployer.on(codebook, weights, others, codes.centres if codes else {}, train)
