"""The section of the constraints: size, form, support and values of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from atmc_search.spec import Section


def _freeze_of(given: Mapping[str, Any]) -> float:
    return max(0.85, given.get("end", 0.0)) if given.get("name") == "cubic" else 1.0


class ScheduleSpec(Section):
    """How the ℓ0 budget or the support changes during training, in shares of it (arXiv 1710.01878, 2202.09844)."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: Literal["cubic", "grow"] = Field(
        "cubic",
        description="cubic: what is left to prune falls with the third power of what is left of time; grow: keep from "
        "the start, and between `from` and `to` the smallest non-zeros make room for zeros of the largest gradient",
    )
    begin: float = Field(0.05, ge=0, lt=1, alias="from", description="share of training from which the budget shrinks")
    end: float = Field(0.55, gt=0, le=1, alias="to", description="share of training from which it is that of keep")
    freeze: float = Field(
        default_factory=_freeze_of,
        gt=0,
        le=1,
        description="share of training after which the support is fixed; 1: never; default: of cubic 0.85, or `to` if "
        "that is later, of grow 1",
    )
    every: int = Field(100, ge=1, description="of grow: steps between two exchanges")
    share: float = Field(
        0.3, gt=0, le=1, description="of grow: of the non-zeros that are exchanged, to 0 by half a cosine until `to`"
    )

    @model_validator(mode="after")
    def _in_order(self) -> ScheduleSpec:
        if not self.begin < self.end <= self.freeze:
            raise ValueError(
                f"from {self.begin:g}, to {self.end:g} and freeze {self.freeze:g} are out of order; "
                "let from be below to, and freeze not below to"
            )
        return self


class ScoreSpec(Section):
    """How hydra (arXiv 2002.10509) and harp find the support, before the weights on it are fine-tuned."""

    share: float = Field(0.3, gt=0, lt=1, description="of training in which scores learn and the weights stand still")
    lr: float = Field(0.1, gt=0, description="peak learning rate of the scores, to 0 by half a cosine over that share")
    budget: Literal["layer", "global"] = Field(
        "layer",
        description="of hydra: every layer keeps the same share of its weights; or the largest scores of all together",
    )


class QuotaSpec(Section):
    """How harp learns the share of its weights that each layer keeps (arXiv 2412.14714), beside the scores."""

    start: float = Field(0.1, gt=0, lt=1, description="share that every layer starts with, or keep where that is more")
    gamma: float = Field(
        0.1, gt=0, description="what exceeding keep costs more from step to step of 20 in the search, until it is met"
    )
    lr: float = Field(0.03, gt=0, description="peak learning rate of the quotas, to 0 by half a cosine as the scores'")


class TargetSpec(Section):
    """An accuracy to hold with the smallest artifact: one of the two."""

    robust_accuracy: float | None = Field(None, gt=0, lt=1, description="on attacked validation images")
    clean_accuracy: float | None = Field(None, gt=0, lt=1, description="on validation images as they are")

    @model_validator(mode="after")
    def _one(self) -> TargetSpec:
        if (self.robust_accuracy is None) == (self.clean_accuracy is None):
            raise ValueError("a target is one accuracy; give robust_accuracy or clean_accuracy")
        return self

    @property
    def metric(self) -> Literal["robust_accuracy", "clean_accuracy"]:
        """Which accuracy."""
        return "clean_accuracy" if self.robust_accuracy is None else "robust_accuracy"

    @property
    def value(self) -> float:
        """What it is to be at least."""
        found = self.clean_accuracy if self.robust_accuracy is None else self.robust_accuracy
        assert found is not None
        return found


def _schedule_of(given: Mapping[str, Any]) -> ScheduleSpec | None:
    if given.get("pruning") != "projected" or given.get("target") is not None:
        return None
    return ScheduleSpec()


def _count_of(given: Mapping[str, Any]) -> Literal["all", "live"]:
    schedule = given.get("schedule")
    grows = schedule is not None and schedule.name == "grow"
    return "live" if given.get("factors") == "none" and given.get("pruning") == "projected" and not grows else "all"


def _codebook_from(given: Mapping[str, Any]) -> float:
    schedule = given.get("schedule")
    return min(0.9, round(schedule.end + 0.1, 6)) if schedule is not None and schedule.name == "cubic" else 0.5


class CompressSpec(Section):
    """The constraints: how many weights, in which form, of how many values (ATMC, arXiv 1902.03538)."""

    factors: Literal["none", "uvc", "uvc_plain", "low_rank"] = Field(
        "none",
        description="W = C; (I + U)V + C or U(I + V) + C; UV + C from singular values; or UV of lower rank",
    )
    pruning: Literal["projected", "one_shot", "hydra", "harp", "none"] = Field(
        "projected",
        description="to the ℓ0 budget: at every step; once before training, mask fixed; by learned scores, mask fixed "
        "then (hydra), with each layer's share learned too (harp); or not at all",
    )
    target: TargetSpec | None = Field(
        None, description="in place of keep: the smallest artifact that holds an accuracy on validation images"
    )
    scores: ScoreSpec = ScoreSpec()
    quotas: QuotaSpec = QuotaSpec()
    schedule: ScheduleSpec | None = Field(
        default_factory=_schedule_of,
        description="of projected pruning: {name: cubic, from: 0.05, to: 0.55, freeze: 0.85} shrinks the budget from "
        "all entries to keep between these shares of training, and is the default without a target; {name: grow, "
        "every: 100, share: 0.3, from: 0.05, to: 0.55} exchanges non-zeros at keep; null: keep from the first step. "
        "Every measurement is within keep",
    )
    keep: float | None = Field(
        None,
        gt=0,
        le=1,
        description="non-zeros that survive (low_rank: entries of factors), as a share of the dense weights; without "
        "it budget_bytes sets the size. Nothing to pruning none, but for low_rank",
    )
    count: Literal["all", "live"] = Field(
        default_factory=_count_of,
        description="non-zeros that the budget counts. live: weights with a constant input or an unused output are "
        "zeroed in training, as in the file; the next largest take their places. Default: live where weights W = C are "
        "projected and do not grow, else all",
    )
    price: Literal["count", "bytes"] = Field(
        "count",
        description="what a non-zero takes of the budget's choice: all the same, so that the largest stay; or the bits "
        "of its place and value in the file, so that of two of one size that in the fuller row and column stays",
    )
    importance: Literal["magnitude", "lamp"] | None = Field(
        None,
        description="what a budget of non-zeros keeps the largest of. magnitude: |w|, over all layers; lamp: w² over "
        "the sum of the squares that are no smaller in its layer (arXiv 2010.07611), which leaves every layer one. "
        "Default: lamp where budget_bytes sets the size, else magnitude",
    )
    energy: float | None = Field(
        None, gt=0, le=1, description="low_rank: ranks keep this share of all squared singular values, in place of keep"
    )
    bits: int = Field(
        32,
        ge=1,
        le=32,
        description="2^bits values a tensor: 1 to 8, or 32 for no codebook; where budget_bytes is in place of keep, "
        "32 has 2 to 8 chosen for least distortion",
    )
    bit_allocation: Literal["uniform", "mixed"] = Field(
        "uniform", description="mixed: 1 to 8 bits by tensor, for the bytes that `bits` everywhere would cost"
    )
    budget_bytes: int | None = Field(
        None,
        ge=1,
        description="bytes of the artifact, never exceeded. Without keep: met to 3 % when training ends, by as many "
        "non-zeros as they pay for; the most, which sets the ranks of low_rank, or with keep the bits of mixed",
    )
    codebook: Literal["admm", "straight_through"] = Field(
        "straight_through",
        description="admm: a penalty draws the weights to their codebook; straight_through: the network is attacked "
        "and differentiated at its quantised weights, the gradient applied to latent ones",
    )
    code_price: float = Field(
        0.0,
        ge=0,
        description="what a bit of a code is worth in squared error, over the tensor's mean square: a weight goes to "
        "the centre that is near and cheap, and codebooks shrink to values that pay (0.002 to 0.08); 0: the nearest",
    )
    rho: float = Field(0.1, ge=0, description="of codebook admm: weight of the penalty")
    dual_every: int = Field(10, ge=1, description="optimizer steps between updates of the duals or the centres")
    codebook_from: float = Field(
        default_factory=_codebook_from,
        ge=0,
        lt=1,
        description="share of training after which the codebook sets in; default: 0.1 after a cubic schedule's `to`, "
        "at most 0.9, else 0.5",
    )
    floats: Literal["fp16", "fp32"] = Field("fp16", description="precision of codebooks, biases, norm parameters")
    batch_norm: Literal["best", "kept", "reestimated"] = Field(
        "best", description="statistics after the last projection: reestimated on training images, kept, or the better"
    )

    @field_validator("bits")
    @classmethod
    def _bits(cls, bits: int) -> int:
        if 8 < bits < 32:
            raise ValueError("must be 1 to 8, or 32 for no codebook; choose one of these")
        return bits

    @model_validator(mode="after")
    def _together(self) -> CompressSpec:
        if self.target is not None and (self.keep is not None or self.budget_bytes is not None):
            found = "keep" if self.keep is not None else "budget_bytes"
            raise ValueError(f"target and {found} both set the size; keep one of them")
        if self.keep is None and not self._has_a_size:
            raise ValueError(
                "trial.compress.keep is missing; it must be given, or budget_bytes in its place with pruning projected"
            )
        if self.bit_allocation == "mixed" and self.bits == 32 and not self.sized_in_bytes:
            raise ValueError("bit_allocation mixed spreads the bytes of a codebook; set bits to 1 to 8")
        if self.energy is not None and self.factors != "low_rank":
            raise ValueError(f"energy sets the ranks of low_rank and factors is {self.factors}; remove energy")
        if self.energy is not None and self.budget_bytes is not None and self.bit_allocation == "uniform":
            raise ValueError("energy and budget_bytes both set the ranks; keep one of them")
        if self.schedule is not None and self.pruning != "projected":
            raise ValueError(f"schedule is of projected pruning and pruning is {self.pruning}; remove schedule")
        if self.count == "live" and (self.factors != "none" or self.pruning == "none"):
            raise ValueError(
                f"count live is of pruned weights W = C; factors is {self.factors} and pruning {self.pruning}; "
                "set factors to none and pruning to projected, or remove count"
            )
        if self.scored and self.factors != "none":
            raise ValueError(f"{self.pruning} scores weights W = C and factors is {self.factors}; set factors to none")
        if self.pruning == "harp" and self.scores.budget == "global":
            raise ValueError("harp learns each layer's share and scores.budget is global; remove scores.budget")
        if self.pruning == "harp" and (self.count, self.price) != ("all", "count"):
            raise ValueError(
                f"count {self.count} and price {self.price} choose among all layers, and harp in each; remove them"
            )
        if self.pruning == "hydra" and self.scores.budget == "layer" and (self.count, self.price) != ("all", "count"):
            raise ValueError(
                f"count {self.count} and price {self.price} choose among all layers and scores.budget is layer; "
                "set it to global"
            )
        if self.code_price and not self.quantised:
            raise ValueError("code_price is of the values of a codebook and bits is 32; set bits to 1 to 8")
        if self.importance == "lamp" and self._why_not_lamp is not None:
            raise ValueError(f"importance lamp chooses among magnitudes and {self._why_not_lamp}; remove importance")
        if self.price == "bytes" and self.pruning == "none":
            raise ValueError("price bytes is of pruning and pruning is none; remove price")
        if self.schedule is not None and self.schedule.name == "grow" and (self.count, self.price) != ("all", "count"):
            raise ValueError(
                f"grow keeps its support by magnitude and gradient; count is {self.count} and price {self.price}; "
                "remove them, or schedule"
            )
        if self.schedule is not None and self.schedule.name == "grow" and self.keep is None:
            raise ValueError("grow exchanges non-zeros at keep, which is missing; give keep, or schedule cubic")
        if self.keep is None or self.budget_bytes is None:
            return self
        if self.factors != "low_rank" and self.bit_allocation == "uniform":
            raise ValueError(
                "budget_bytes needs something to set; use factors low_rank or bit_allocation mixed, or remove keep"
            )
        return self

    @property
    def sized_in_bytes(self) -> bool:
        """Whether `budget_bytes` takes the place of `keep`: training chooses how many non-zeros meet it."""
        return self.keep is None and self.budget_bytes is not None and self.factors != "low_rank"

    @property
    def by_lamp(self) -> bool:
        """Whether budgets of non-zeros keep the largest LAMP scores."""
        return self.importance == "lamp" or (
            self.importance is None and self.sized_in_bytes and self._why_not_lamp is None
        )

    @property
    def _why_not_lamp(self) -> str | None:
        if self.pruning in ("none", "hydra", "harp"):
            return f"pruning is {self.pruning}"
        if self.price == "bytes":
            return "price is bytes"
        if self.schedule is not None and self.schedule.name == "grow":
            return "schedule is grow"
        return None

    @property
    def _has_a_size(self) -> bool:
        if self.factors == "low_rank":
            return self.pruning == "none" and (self.energy is not None or self.budget_bytes is not None)
        return (self.sized_in_bytes or self.target is not None) and self.pruning == "projected"

    @property
    def scored(self) -> bool:
        """Whether scores learn which weights stay, in a first share of training."""
        return self.pruning in ("hydra", "harp")

    @property
    def quantised(self) -> bool:
        """Whether weights go to codebooks."""
        return self.bits < 32 or self.sized_in_bytes
