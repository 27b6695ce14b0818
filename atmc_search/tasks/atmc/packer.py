"""What makes the file of a trial's weights as they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from atmc_search.tasks.atmc.deploy import Deployed, Deployer
from atmc_search.training import AttackedBatches
from atmc_search.training.parts import Codes, Support


class Packer(ABC):
    """Makes files. After an epoch either `pack` is called, with what is to be deployed in the model, or `follow`."""

    @abstractmethod
    def pack(self, progress: float) -> Deployed:
        """The file after a share `progress` of training.

        Raises:
            TrialFailed: no file meets what the spec asks for.
        """

    def follow(self, progress: float) -> None:  # noqa: B027 # nothing to do is a good default
        """Takes notice of an epoch that is not measured, after a share `progress` of training."""


@dataclass(frozen=True)
class AsTrained(Packer):
    """Packs the weights that the support chooses.

    Attributes:
        deployer: makes files.
        support: which weights stay.
        codes: their codebooks; None: none.
        batches: gives training batches, attacked as training attacks now.
        averaged: whether an average of the weights is deployed.
    """

    deployer: Deployer
    support: Support
    codes: Codes | None
    batches: Callable[[], AttackedBatches]
    averaged: bool

    def pack(self, progress: float) -> Deployed:
        centres = {} if self.codes is None else self.codes.centres
        return self.deployer.deploy(self.support.chosen(averaged=self.averaged), centres, self.batches())
