"""A size in bytes in place of `keep` and `bits`: how many non-zeros, of how many bits, the artifact may have.

Training projects onto a k whose file would be a little over the budget; what is deployed is cut to the budget by
leaving out what the budget of non-zeros values least. So the last step only ever trims, and k follows the weights from
epoch to epoch: files of equal k differ, as channels die and codes settle.

k is sought on entropies (`compress.byte_estimate`), scaled by what the last file took, and on files only where one is
measured: a trial packs two before training, one more in every epoch in which a cubic schedule still holds more than k,
and in a measured epoch as many as it takes to come within 2 % below the budget, mostly one to three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from atmc_search.errors import TrialFailed
from atmc_search.tasks.atmc.byte_choice import choice, estimated, real_per_estimated
from atmc_search.tasks.atmc.byte_cliff import beside_a_cliff
from atmc_search.tasks.atmc.byte_files import Bits, ByteFiles, CodeBits
from atmc_search.tasks.atmc.deploy import Deployed, Deployer
from atmc_search.tasks.atmc.fitting import Fit, largest_within
from atmc_search.tasks.atmc.packer import Packer
from atmc_search.training import AttackedBatches
from atmc_search.training.parts import Codes, Part, Projected
from atmc_search.training.state import State

_MARGIN = 0.02
"""What files of the weights in training are over the budget, so that there is always something to trim."""
_SLACK = 0.02
_CLOSE = 0.97
_MOST_GROWTH = 1.5
_FIGURES_BYTES = 8
"""What the measured figures may add to a header that holds others of as many digits."""


@dataclass(eq=False)
class ByteBudget(Packer, Part):
    """Keeps a trial's constraints at what its bytes pay for, and packs its files within them.

    Attributes:
        deployer: makes files.
        support: of the weights; its ℓ0 budget follows.
        codes: of the weights.
        code_bits: of their codebooks, and of files; chosen here.
        batches: gives training batches, attacked as training attacks now.
        k: the ℓ0 budget of training.
        width: the same, of all tensors, as chosen on dense weights; None before.
        scale: real bytes per estimated byte, of the last file.
        least_bytes: of a file without weights.
    """

    name: ClassVar[str] = "bytes"
    deployer: Deployer
    support: Projected
    codes: Codes
    code_bits: CodeBits
    batches: Callable[[], AttackedBatches]
    k: int = 0
    width: int | None = None
    scale: float = 1.0
    least_bytes: int = 0

    def __post_init__(self) -> None:
        self.files = ByteFiles(self.deployer, self.support, self.codes, self.code_bits)

    @property
    def budget(self) -> int:
        """The bytes that the file may have before its figures are known."""
        return self._asked - _FIGURES_BYTES

    @property
    def _asked(self) -> int:
        asked = self.deployer.spec.compress.budget_bytes
        assert asked is not None
        return asked

    @property
    def bits(self) -> Bits:
        """Of the codebooks, of all tensors or by name."""
        return self.code_bits.bits

    def start(self) -> None:
        """Chooses bits and k for the weights before training.

        Raises:
            TrialFailed: the budget does not pay for a weight, or for all of them at the most bits.
        """
        self.least_bytes = len(self.files.packed_with(0, self.bits).artifact)
        if self.least_bytes >= self.budget:
            raise TrialFailed(
                f"budget_bytes = {self._asked}: the artifact has {self.least_bytes + _FIGURES_BYTES} bytes without a "
                "weight; raise it"
            )
        self._choose()
        if self.k == self.files.nonzeros == self.files.entries:
            whole = len(self.files.packed_with(self.k, self.bits).artifact)
            if whole < _CLOSE * self._asked:
                raise TrialFailed(
                    f"budget_bytes = {self._asked}: all {self.k} weights take {whole} bytes at the most bits, so that "
                    "there is nothing to prune; lower it"
                )

    def follow(self, progress: float) -> None:
        """Sets k anew for the weights as they are after a share `progress` of training, without a file."""
        if self._open(progress):
            self._choose()
        elif isinstance(self.bits, int):
            nonzeros = self.files.nonzeros
            self._hold(nonzeros, self.least_bytes + self.scale * estimated(self.files, nonzeros, self.bits))

    def pack(self, progress: float) -> Deployed:
        """The file within the budget, as large as it can be, of the weights as they are; training's k follows.

        Raises:
            TrialFailed: a single weight is over the budget; or training is over and no file is within 3 % below it.
        """
        if self._open(progress):
            self._choose()
        batches = self.batches()
        fit, best = self._fit(batches, self.bits)
        if fit is None or best is None:
            size = len(self.files.packed_with(1, self.bits).artifact)
            raise TrialFailed(
                f"budget_bytes = {self._asked}: with a single weight the artifact has {size} bytes; raise it"
            )
        self._hold(fit.k, fit.size)
        if isinstance(self.bits, int):
            self.scale = real_per_estimated(fit.size - self.least_bytes, estimated(self.files, fit.k, self.bits))
        if not self._close(fit.size):
            best = beside_a_cliff(
                best,
                fit.k,
                self.bits,
                files=self.files,
                fit=lambda width: self._fit(batches, width),
                close=self._close,
                budget=self.budget,
                batches=batches,
            )
        if progress >= 1 and not self._close(len(best.artifact)):
            raise TrialFailed(
                f"budget_bytes = {self._asked}: the nearest file below has {len(best.artifact)} bytes, as a layer dies "
                "with fewer weights or all of them fit; choose another budget, or a schedule for layers to adapt"
            )
        return best

    def state(self) -> State:
        bits = self.bits if isinstance(self.bits, int) else dict(self.bits)
        return {}, {"k": self.k, "bits": bits, "scale": self.scale}

    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.code_bits.bits, self.scale = facts["bits"], facts["scale"]
        self._set(facts["k"])

    def _open(self, progress: float) -> bool:
        """Whether bits are still to be chosen: while a schedule holds more weights than k, without codebooks yet."""
        schedule = self.support.schedule
        return self.codes.codebook is None and schedule is not None and progress < schedule.end

    def _choose(self) -> None:
        found = choice(self.files, self.budget, self.least_bytes, self.width)
        self.width, self.code_bits.bits, self.scale = found.width, found.bits, found.scale
        self._hold(found.k, found.size)

    def _close(self, size: int) -> bool:
        return _CLOSE * self._asked <= size <= self.budget

    def _fit(self, batches: AttackedBatches, bits: Bits) -> tuple[Fit | None, Deployed | None]:
        """The largest k within the budget, and its file: as it ships, since statistics of batch norm take bytes too."""
        packed: dict[int, Deployed] = {}

        def size(k: int) -> int:
            packed[k] = self.files.packed_with(k, bits, batches)
            return len(packed[k].artifact)

        aim = (1 - _SLACK / 2) * self.budget - self.least_bytes
        guess = round(self.k * aim / ((1 + _MARGIN) * self.budget - self.least_bytes))
        fit = largest_within(
            size, self.budget, guess=guess, most=self.files.nonzeros, base=self.least_bytes, slack=_SLACK
        )
        return fit, None if fit is None else packed[fit.k]

    def _hold(self, k: int, size: float) -> None:
        """Has training hold as many weights as a file `_MARGIN` over the budget would, where k make one of `size`."""
        wanted = self.budget * (1 + _MARGIN)
        growth = (wanted - self.least_bytes) / max(1.0, size - self.least_bytes)
        self._set(round(k * min(max(growth, 1 / _MOST_GROWTH), _MOST_GROWTH)))

    def _set(self, k: int) -> None:
        self.k = min(max(1, k), self.files.entries)
        self.support.resize(self.k)
