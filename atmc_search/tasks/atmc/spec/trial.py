"""The trial: its sections together, and its method."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from atmc_search.attacks import ThreatModel, require_pixel_units
from atmc_search.data import DataSpec
from atmc_search.errors import did_you_mean, written
from atmc_search.spec import Section, TrialSpec
from atmc_search.spec.paths import value_at
from atmc_search.tasks.atmc.methods import METHODS
from atmc_search.tasks.atmc.spec.compress import CompressSpec
from atmc_search.tasks.atmc.spec.evaluate import EvaluateSpec
from atmc_search.tasks.atmc.spec.model import ModelSpec
from atmc_search.tasks.atmc.spec.stages import DenseSpec, TrainSpec


class AtmcSpec(TrialSpec):
    """One trial of ATMC, fully determined."""

    method: str | None = Field(None, description="a preset: " + ", ".join(METHODS))
    data: DataSpec
    model: ModelSpec
    threat: ThreatModel
    dense: DenseSpec
    train: TrainSpec
    compress: CompressSpec
    evaluate: EvaluateSpec = EvaluateSpec()

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
        require_pixel_units(threat, "eps")
        return threat

    @model_validator(mode="after")
    def _stages_in_the_unit_of_pixels(self) -> AtmcSpec:
        for name, stage in (("dense", self.dense), ("train", self.train)):
            require_pixel_units(stage.trained_against(self.threat), f"{name}.eps")
        return self

    @model_validator(mode="after")
    def _one_choice(self) -> AtmcSpec:
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
    def _taught_by_something(self) -> AtmcSpec:
        if self.train.distillation is not None and self.dense.epochs == 0 and self.dense.weights is None:
            raise ValueError(
                "train.distillation learns from the dense start and dense.epochs is 0; raise it, give dense.weights, "
                "or remove it"
            )
        return self

    @field_validator("method")
    @classmethod
    def _known(cls, method: str | None) -> str | None:
        if method is not None and method not in METHODS:
            raise ValueError(f"unknown method; {did_you_mean(method, list(METHODS))}")
        return method

    @model_validator(mode="after")
    def _as_the_method_says(self) -> AtmcSpec:
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
