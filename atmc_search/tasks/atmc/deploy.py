"""The last projection: what is deployed of the weights that training ends with.

θ, already within the ℓ0 budget, keeps its support; on it, every tensor's values move to the nearest of at most 2^b
centres: the quantised copy of Gui et al. (arXiv 1902.03538, section 3.3) masked by θ's support, and quantised again on
the non-zeros. In their code the quantised copy was not bound by k. Codebooks, biases and norm parameters are rounded to
fp16 when asked, *before* anything is measured, so that the file holds exactly the model whose figures are reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from atmc_search.artifact import (
    Architecture,
    CompressedModel,
    SizeAccount,
    account,
    annotated,
    folded,
    pack,
    smallest_forms,
)
from atmc_search.artifact.model import other_tensors
from atmc_search.compress import Codebook, FactorisedLayer, Weights, half_precision, requantised
from atmc_search.errors import TrialFailed
from atmc_search.models import placed
from atmc_search.tasks.atmc.constraints import codebook_for
from atmc_search.tasks.atmc.spec import AtmcSpec, CompressSpec
from atmc_search.training import AttackedBatches, attacked_loss, has_running_statistics, reestimated

_STATISTICS_BATCHES = 16
_CHOICE_BATCHES = 8
_BUDGET_ROUNDS = 4
FIGURES_BYTES = 32
"""What the measured figures may add to the header once they are known."""


@dataclass(frozen=True)
class Deployed:
    """The file that ships, what its bytes are spent on, and whether batch norm statistics were gathered anew."""

    artifact: bytes
    sizes: SizeAccount
    batch_norm_reestimated: bool


@dataclass(frozen=True)
class Deployer:
    """Makes the artifact of a model in training.

    Attributes:
        model: the parametrised model.
        layers: its compressed layers.
        architecture: how to build the plain model.
        spec: of the trial.
        meta: facts that travel in the artifact.
    """

    model: nn.Module
    layers: Sequence[FactorisedLayer]
    architecture: Architecture
    spec: AtmcSpec
    meta: Mapping[str, Any]

    def codebook(
        self, weights: Weights, *, centres: Mapping[str, Tensor] | None = None, spare_bytes: int = 0
    ) -> Codebook:
        """The codebook constraint for these weights, from ADMM's centres; `spare_bytes` of a budget stay unspent."""
        settings = self.spec.compress

        def overhead() -> int:
            return spare_bytes + overhead_bytes(self.model, self.layers, self.architecture, settings, self.meta)

        return codebook_for(
            weights, self.layers, settings, overhead_bytes=overhead, centres=centres, seed=self.spec.seed
        )

    def deploy(self, weights: Weights, centres: Mapping[str, Tensor], batches: AttackedBatches) -> Deployed:
        """Projects, packs and accounts.

        Args:
            weights: within the ℓ0 budget.
            centres: ADMM's, empty where it has not set in.
            batches: training images, attacked as in training, for batch norm statistics.

        Raises:
            TrialFailed: the file is over `budget_bytes`.
        """
        settings, spare = self.spec.compress, FIGURES_BYTES
        weights, others = self.live(weights)
        for _ in range(_BUDGET_ROUNDS):
            codebook = None
            if settings.bits < 32:
                codebook = self.codebook(weights, centres=centres, spare_bytes=spare)
            deployed = self.on(codebook, weights, others, centres, batches)
            artifact = deployed.artifact
            excess = 0 if settings.budget_bytes is None else len(artifact) + FIGURES_BYTES - settings.budget_bytes
            if excess <= 0:
                return deployed
            if settings.bit_allocation == "uniform":
                break
            spare += excess  # new statistics of batch norm may take more bytes than those the bits were chosen beside
        raise TrialFailed(
            f"budget_bytes = {settings.budget_bytes}: the artifact has {len(artifact)} bytes; raise it by a little"
        )

    def on(
        self,
        codebook: Codebook | None,
        weights: Weights,
        others: Mapping[str, Tensor],
        centres: Mapping[str, Tensor],
        batches: AttackedBatches | None,
    ) -> Deployed:
        """`live` weights and other tensors on a codebook, packed; without `batches`, statistics stay as they are."""
        compressed, anew = self._compressed(weights, others, centres, codebook, batches)
        sizes = account(compressed, codebook.bits if codebook else 32)
        return Deployed(annotated(pack(compressed), {"bits": _brief(sizes.bits_per_tensor)}), sizes, anew)

    @torch.no_grad()
    def live(self, weights: Weights) -> tuple[dict[str, Tensor], Mapping[str, Tensor]]:
        """The tensors with zeros for all that is without effect, so that no codebook is fitted to it."""
        live = folded(self._whole(weights, other_tensors(self.model, self.layers)))
        kept = {
            name: torch.where(live.weights[name].reshape(tensor.shape).to(tensor.device) == 0, 0.0, tensor.detach())
            for name, tensor in weights.items()
        }
        return kept, live.others

    def _compressed(
        self,
        weights: Weights,
        others: Mapping[str, Tensor],
        centres: Mapping[str, Tensor],
        codebook: Codebook | None,
        batches: AttackedBatches | None,
    ) -> tuple[CompressedModel, bool]:
        """The model as deployed, and whether its batch norm statistics were gathered anew."""
        settings = self.spec.compress
        projected, other = deployable(weights, others, codebook, centres, settings.floats)
        compressed = smallest_forms(folded(self._whole(projected, other)))
        if batches is None or settings.batch_norm == "kept" or not has_running_statistics(self.model):
            return compressed, False
        device = batches.data.labels.device
        kept = placed(compressed.materialise(), device)
        fitted = reestimated(kept, batches, _STATISTICS_BATCHES).state_dict()
        anew = {name: fitted[name].cpu() for name in others}
        # From what was folded, as constants lie in its biases already.
        candidate = smallest_forms(folded(replace(compressed, others=rounded(anew, settings.floats))))
        if settings.batch_norm == "best":
            # On training images: validation images must not choose between models of one trial.
            models = (kept, placed(candidate.materialise(), device))
            losses = [attacked_loss(model, batches, _CHOICE_BATCHES) for model in models]
            if not losses[1] < losses[0]:
                return compressed, False
        return candidate, True

    def _whole(self, weights: Weights, others: Mapping[str, Tensor]) -> CompressedModel:
        return CompressedModel.of(self.model, self.layers, self.architecture, weights, others, meta=self.meta)


def _brief(bits: Mapping[str, int]) -> int | list[int]:
    """Bits of all tensors for a header: one number where those that are not all zero have the same."""
    some = {b for b in bits.values() if b}
    return some.pop() if len(some) == 1 else list(bits.values())


def overhead_bytes(
    model: nn.Module,
    layers: Sequence[FactorisedLayer],
    architecture: Architecture,
    settings: CompressSpec,
    meta: Mapping[str, Any],
) -> int:
    """What an artifact takes beside its weights: header, biases, norm parameters."""
    zeros = {name: torch.zeros(shape) for layer in layers for name, shape in layer.factor_shapes.items()}
    others = rounded(other_tensors(model, layers), settings.floats)
    return len(pack(CompressedModel.of(model, layers, architecture, zeros, others, meta=meta)))


@torch.no_grad()
def deployable(
    weights: Weights,
    others: Mapping[str, Tensor],
    codebook: Codebook | None,
    centres: Mapping[str, Tensor],
    floats: Literal["fp16", "fp32"],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The constrained weights on their codebooks, and the other tensors, both rounded as asked.

    Args:
        weights: within the ℓ0 budget.
        others: every other tensor of the state.
        codebook: how many values each tensor may have; None leaves the values as they are.
        centres: ADMM's, by weight name, to start from; empty where ADMM has not set in.
        floats: precision of codebooks and other tensors. A tensor that fp16 would distort keeps fp32.
    """
    # Contiguous: singular vectors have other strides, of which a `reshape` would be a copy.
    quantised = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()
    }
    if codebook is not None:
        for name, tensor in quantised.items():
            bits, warm = codebook.bits_of(name), centres[name].numpy() if name in centres else None
            values = requantised(
                tensor.numpy(), bits, seed=codebook.seed, warm=warm, floats=floats, price=codebook.price
            )
            quantised[name] = torch.from_numpy(values)
    return quantised, rounded(others, floats)


def rounded(tensors: Mapping[str, Tensor], floats: Literal["fp16", "fp32"]) -> dict[str, Tensor]:
    """`tensors` with every floating-point one on fp16's grid where asked and possible."""
    if floats == "fp32":
        return dict(tensors)
    return {name: half_precision(t) if t.is_floating_point() else t for name, t in tensors.items()}
