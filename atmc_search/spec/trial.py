"""A trial, and its sections on data and measuring."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from atmc_search.errors import did_you_mean, written
from atmc_search.methods import METHODS
from atmc_search.spec.compress import CompressSpec
from atmc_search.spec.paths import value_at
from atmc_search.spec.sections import Component, Section, ThreatModel
from atmc_search.spec.stages import DenseSpec, TrainSpec


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


class EvaluateSpec(Section):
    """How accuracies are measured, on the decoded artifact and validation images."""

    attack: Component = Field(Component(name="pgd", steps=20), description="the attack of robust_accuracy")
    every: int = Field(1, ge=1, description="epochs between measurements; the last epoch is always measured")
    select: Literal["last", "best"] = Field(
        "last",
        description="measured epoch whose artifact and figures a trial reports; best: so far, by robust accuracy on "
        "validation images, which makes that figure a little optimistic; verify is for test images",
    )
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

    @model_validator(mode="before")
    @classmethod
    def _with_the_methods_defaults(cls, given: Any) -> Any:
        method = METHODS.get(str(given.get("method"))) if isinstance(given, Mapping) else None
        if method is None:
            return given
        filled = copy.deepcopy(dict(given))
        for path, value in method.defaults.items():
            section, _, leaf = path.partition(".")
            if isinstance(filled.get(section), Section):  # made in Python: what was said in it
                filled[section] = filled[section].model_dump(exclude_unset=True)
            if isinstance(filled.get(section), dict):
                filled[section].setdefault(leaf, copy.deepcopy(value))
        return filled

    @field_validator("threat")
    @classmethod
    def _in_the_unit_of_pixels(cls, threat: ThreatModel) -> ThreatModel:
        refuse_bytes(threat, "eps")
        return threat

    @model_validator(mode="after")
    def _stages_in_the_unit_of_pixels(self) -> TrialSpec:
        for name, stage in (("dense", self.dense), ("train", self.train)):
            refuse_bytes(stage.trained_against(self.threat), f"{name}.eps")
        return self

    @model_validator(mode="after")
    def _one_choice(self) -> TrialSpec:
        if self.evaluate.select == "last" and self.train.patience is None:
            return self
        chosen = "evaluate.select best" if self.evaluate.select == "best" else "train.patience"
        if self.compress.target is not None:
            raise ValueError(f"compress.target chooses the file of a trial, and so does {chosen}; remove one of them")
        if self.compress.sized_in_bytes:
            raise ValueError(
                f"compress.budget_bytes is met by the file of the last epoch, and {chosen} may report that of another; "
                "remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _taught_by_something(self) -> TrialSpec:
        if self.train.distillation is not None and self.dense.epochs == 0:
            raise ValueError(
                "train.distillation learns from the dense start and dense.epochs is 0; raise it, or remove it"
            )
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
            document = self.model_dump(mode="json")
            for path, value in METHODS[self.method].fixes.items():
                found = value_at(document, path)
                if found != value:
                    raise ValueError(
                        f"{path} is {written(found)}, which method {self.method} fixes to {written(value)}; "
                        "remove it, or the method"
                    )
        return self


def refuse_bytes(threat: ThreatModel, name: str) -> None:
    """Passes if `name`, the radius of `threat`, is in units of pixels scaled to [0, 1].

    Raises:
        ValueError: it is not, and most likely meant in 255ths.
    """
    if threat.norm == "linf" and threat.eps > 1:
        raise ValueError(
            f"{name} {threat.eps:g} lets every pixel be anything, as pixels are in [0, 1]; "
            f"for {threat.eps:g}/255 write {threat.eps / 255:.4g}"
        )
