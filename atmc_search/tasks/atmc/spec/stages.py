"""The sections of the two training stages: the dense start, and training under the constraints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from atmc_search.spec import Section
from atmc_search.training.stage import StageSpec


class DenseSpec(StageSpec):
    """The dense start: trained adversarially once per distinct dense spec of a study, or a model trained before."""

    weights: str | None = Field(
        None,
        exclude_if=lambda value: value is None,  # so that specs of earlier releases keep their fingerprints
        description="file with a trained model's weights to start from: a state dict (.safetensors, .pt, .pth, .ckpt, "
        ".bin) or an artifact (.atmc); epochs > 0 trains on from it; default: initial weights",
    )
    epochs: int = Field(
        ge=0,
        description="passes over the training images; 0: no training, trials start from `weights`, or from initial "
        "weights; default: 0 with `weights`",
    )
    select: Literal["last", "best"] = Field(
        "last",
        description="epoch whose weights are the start; best: under PGD-10 (clean training: untouched) on at most 500 "
        "validation images, so that dense_robust_accuracy is a little optimistic; verify is for test images",
    )
    seed: int = Field(0, ge=0, description="seed of initial weights, data order and attacks")

    @model_validator(mode="before")
    @classmethod
    def _trained_before(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("weights") is not None:
            return {"epochs": 0, **given}
        return given


class DistillationSpec(Section):
    """Soft labels of the dense start on clean images, for the model in training on adversarial ones."""

    weight: float = Field(0.5, ge=0, le=1, description="share of the soft labels in the loss")
    temperature: float = Field(1.0, gt=0, description="by which the logits of both are divided")


class TrainSpec(StageSpec):
    """Training under the compression constraints."""

    ema: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="decay, by step, of an average of the weights, which is projected again, measured and "
        "packed; min(ema, (1 + t) / (10 + t)) at step t; default: the last weights",
    )
    distillation: DistillationSpec | None = Field(
        None,
        description="{weight: 0.5, temperature: 1}: the loss is (1 - weight) x loss + weight x temperature^2 x "
        "KL(dense start on clean images || model on adversarial ones); default: none",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="end a trial, as complete, after this many measurements without a better robust accuracy, counted "
        "from where codebook and schedule have set in; default: never",
    )
