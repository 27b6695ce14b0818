"""The sections of a trial: data, model, threat, training, compression, measuring."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from atmc_search.errors import did_you_mean, shown
from atmc_search.methods import METHODS
from atmc_search.spec.paths import value_at


class Section(BaseModel):
    """A part of a spec: frozen, strict, without unknown keys or numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Component(BaseModel):
    """Something chosen by name, with settings of its own beside the name: `{name: pgd, steps: 7}`."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    name: str = Field(description="a known name, or 'package.module:attribute'")

    @property
    def args(self) -> dict[str, Any]:
        """The settings beside the name."""
        return dict(self.model_extra or {})


class AugmentSpec(Section):
    """How training images are changed by chance, each anew in every epoch; never those to validate and test on."""

    crop_padding: int = Field(0, ge=0, description="pixels of black on each side, before a crop of the image's size")
    flip: bool = Field(False, description="mirror left to right with probability 1/2")


class DataSpec(Section):
    """Which images, and how they are split."""

    name: str = Field(description="a known dataset, or 'package.module:attribute'")
    root: str | None = Field(None, description="folder that holds the dataset's files; default: the usual places")
    train_size: int | None = Field(None, ge=1, description="stratified subset of the training images; default: all")
    validation_size: int | None = Field(None, ge=1, description="held out of the training images; default: 20 %")
    test_size: int | None = Field(None, ge=1, description="stratified subset of the test images; default: all")
    seed: int = Field(0, ge=0, description="seed of the splits")
    image_size: int | None = Field(
        None, ge=1, le=1024, description="side in pixels that image_folder scales to; default: images stay as they are"
    )
    augment: AugmentSpec = AugmentSpec()


class ThreatModel(Section):
    """What the adversary may do: move an image within [0, 1] by at most eps in the norm."""

    norm: Literal["linf", "l2"] = Field("linf", description="the norm of the perturbation")
    eps: float = Field(ge=0, description="its radius, in units of pixels scaled to [0, 1]")


class StageSpec(Section):
    """Settings that both training stages have."""

    epochs: int = Field(ge=1, description="passes over the training images")
    lr: float = Field(0.05, gt=0, description="peak learning rate")
    lr_schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="learning rate over the stage: to 0 by half a cosine or a line, or constant"
    )
    warmup: float = Field(0.0, ge=0, description="epochs in which the learning rate rises from 0 to lr, in a line")
    batch_size: int = Field(128, ge=1, description="images a step")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    nesterov: bool = Field(False, description="Nesterov's momentum in place of the plain one")
    clip_norm: float | None = Field(
        None,
        gt=0,
        description="the loss's gradient over all parameters is scaled to at most this norm; default: as it is",
    )
    weight_decay: float = Field(1e-4, ge=0, description="of SGD")
    attack: Component = Field(Component(name="pgd", steps=7), description="the inner maximisation")
    eps: float | None = Field(
        None, ge=0, description="radius of this attack; default: the threat's, which is what is measured in any case"
    )

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum and momentum is 0; raise it, or remove nesterov")
        if self.epochs and self.warmup >= self.epochs:
            raise ValueError(f"warmup of {self.warmup:g} epochs does not end within epochs: {self.epochs}; lower it")
        return self

    def trained_against(self, threat: ThreatModel) -> ThreatModel:
        """The threat that images are made for in training: `threat`, with this stage's own radius if it has one."""
        return threat if self.eps is None else threat.model_copy(update={"eps": self.eps})


class DenseSpec(StageSpec):
    """The dense adversarially trained start, made once per distinct dense spec of a study."""

    epochs: int = Field(
        ge=0, description="passes over the training images; 0: trials start from the initial weights, untrained"
    )
    seed: int = Field(0, ge=0, description="seed of initial weights, data order and attacks")


class TrainSpec(StageSpec):
    """Training under the compression constraints."""


class ScheduleSpec(Section):
    """How the ℓ0 budget comes down to `keep` during training, in shares of it (arXiv 1710.01878)."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: Literal["cubic"] = Field(
        description="what is left to prune falls with the third power of what is left of time"
    )
    begin: float = Field(0.05, ge=0, lt=1, alias="from", description="share of training from which the budget shrinks")
    end: float = Field(0.55, gt=0, le=1, alias="to", description="share of training from which it is that of keep")
    freeze: float = Field(1.0, gt=0, le=1, description="share of training after which the support is fixed; 1: never")

    @model_validator(mode="after")
    def _in_order(self) -> ScheduleSpec:
        if not self.begin < self.end <= self.freeze:
            raise ValueError(
                f"from {self.begin:g}, to {self.end:g} and freeze {self.freeze:g} are out of order; "
                "let from be below to, and freeze not below to"
            )
        return self


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


class CompressSpec(Section):
    """The constraints: how many weights, in which form, of how many values (ATMC, arXiv 1902.03538)."""

    factors: Literal["none", "uvc", "uvc_plain", "low_rank"] = Field(
        "none",
        description="W = C; (I + U)V + C or U(I + V) + C; UV + C from singular values; or UV of lower rank",
    )
    pruning: Literal["projected", "one_shot", "none"] = Field(
        "projected",
        description="to the ℓ0 budget: at every step; once before training, mask fixed; or not at all",
    )
    schedule: ScheduleSpec | None = Field(
        None,
        description="of projected pruning: {name: cubic, from: 0.05, to: 0.55, freeze: 1} shrinks the budget from all "
        "entries to keep between these shares of training; default: keep from the first step. Every measurement is of "
        "the weights projected to keep",
    )
    keep: float | None = Field(
        None,
        gt=0,
        le=1,
        description="non-zeros that survive (low_rank: entries of factors), as a share of the dense weights; without "
        "it budget_bytes sets the size",
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
        description="bytes of the artifact. Without keep: met to 3 %, never exceeded, by as many non-zeros as they pay "
        "for; with it: the most, which sets the ranks of low_rank or the bits of mixed",
    )
    target: TargetSpec | None = Field(
        None, description="in place of keep: the smallest artifact that holds an accuracy on validation images"
    )
    codebook: Literal["admm", "straight_through"] = Field(
        "admm",
        description="admm: a penalty draws the weights to their codebook; straight_through: the network is attacked "
        "and differentiated at its quantised weights, the gradient applied to latent ones",
    )
    rho: float = Field(0.1, ge=0, description="weight of the ADMM penalty")
    dual_every: int = Field(10, ge=1, description="optimizer steps between updates of the duals or the centres")
    codebook_from: float = Field(0.5, ge=0, lt=1, description="share of training after which the codebook sets in")
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
    def _has_a_size(self) -> bool:
        if self.factors == "low_rank":
            return self.pruning == "none" and (self.energy is not None or self.budget_bytes is not None)
        return (self.sized_in_bytes or self.target is not None) and self.pruning == "projected"

    @property
    def quantised(self) -> bool:
        """Whether weights go to codebooks."""
        return self.bits < 32 or self.sized_in_bytes


class EvaluateSpec(Section):
    """How accuracies are measured, on the decoded artifact and validation images."""

    attack: Component = Field(Component(name="pgd", steps=20), description="the attack of robust_accuracy")
    every: int = Field(1, ge=1, description="epochs between measurements; the last epoch is always measured")
    batch_size: int = Field(500, ge=1, description="images a batch")
    seed: int = Field(0, ge=0, description="seed of the attack's random starts")
    masking_images: int = Field(
        100, ge=0, description="validation images for the checks against gradient masking; 0: no checks"
    )
    runtime: Literal["none", "onnxruntime"] = Field(
        "none", description="where to run the exported model for latency_ms and peak_memory_bytes (adds seconds)"
    )


class TrialSpec(Section):
    """One trial, fully determined."""

    method: str | None = Field(None, description="a preset: " + ", ".join(METHODS))
    data: DataSpec
    model: Component
    threat: ThreatModel
    dense: DenseSpec
    train: TrainSpec
    compress: CompressSpec
    evaluate: EvaluateSpec = EvaluateSpec()
    seed: int = Field(0, ge=0, description="seed of data order and attacks; a sweep adds the trial's number")

    @field_validator("threat")
    @classmethod
    def _in_the_unit_of_pixels(cls, threat: ThreatModel) -> ThreatModel:
        _refuse_bytes(threat, "eps")
        return threat

    @model_validator(mode="after")
    def _stages_in_the_unit_of_pixels(self) -> TrialSpec:
        for name, stage in (("dense", self.dense), ("train", self.train)):
            _refuse_bytes(stage.trained_against(self.threat), f"{name}.eps")
        return self

    @field_validator("method")
    @classmethod
    def _known(cls, method: str | None) -> str | None:
        if method is not None and method not in METHODS:
            raise ValueError(f"unknown method; {did_you_mean(method, list(METHODS))}")
        return method

    @model_validator(mode="after")
    def _as_the_method_says(self) -> TrialSpec:
        if self.method is not None:
            written = self.model_dump(mode="json")
            for path, value in METHODS[self.method].fixes.items():
                found = value_at(written, path)
                if found != value:
                    raise ValueError(
                        f"{path} is {shown(found)}, which method {self.method} fixes to {shown(value)}; "
                        "remove it, or the method"
                    )
        return self


def _refuse_bytes(threat: ThreatModel, name: str) -> None:
    if threat.norm == "linf" and threat.eps > 1:
        raise ValueError(
            f"{name} {threat.eps:g} lets every pixel be anything, as pixels are in [0, 1]; "
            f"for {threat.eps:g}/255 write {threat.eps / 255:.4g}"
        )
