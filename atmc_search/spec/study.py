"""A study: its task, a trial in which values may be distributions, objectives, the search and its resources.

Nothing here knows what a trial is: that is the task's (`tasks.TrialSpace`).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from optuna.distributions import BaseDistribution
from pydantic import Field, field_validator, model_validator

from atmc_search import space
from atmc_search.errors import SpecError, written
from atmc_search.spec.sections import Section

_MAX_DEPTH = 32
_MAX_VALUES = 10_000


class SamplerSpec(Section):
    """What proposes trials."""

    name: Literal["tpe", "random", "nsga2"] = Field("tpe", description="Optuna's sampler")
    startup_trials: int = Field(10, ge=1, description="random trials before TPE sets in; NSGA-II: population size")


class SchedulerSpec(Section):
    """What stops trials early."""

    name: Literal["none", "mo_asha"] = Field("none", description="mo_asha: multi-objective asynchronous halving")
    grace_epochs: int = Field(1, ge=1, description="epochs before the first rung")
    reduction_factor: float = Field(3, gt=1, description="one in this many continues at a rung")


class SearchSpec(Section):
    """The budget and the settings of the search."""

    trials: int = Field(ge=1, le=1_000_000, description="trials in all, failed ones counted")
    sampler: SamplerSpec = SamplerSpec()
    scheduler: SchedulerSpec = SchedulerSpec()
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the sampler")
    max_failures: int = Field(
        3,
        ge=0,
        description="times that a trial is continued after its worker was lost; losses to preempted nodes do not count",
    )
    max_failed_trials: int | None = Field(None, ge=1, description="failed trials of one run after which it stops")
    trial_timeout_s: float | None = Field(
        None, gt=0, description="seconds a trial may train on a worker before it fails; its dense start is not counted"
    )
    stop_within_s: float = Field(
        20, ge=0, description="seconds that running trials get to end their epoch after Ctrl-C or SIGTERM"
    )


class ResourcesSpec(Section):
    """What one trial occupies."""

    cpu: float = Field(1, gt=0, description="CPU cores; torch uses as many threads")
    gpu: float = Field(0, ge=0, description="GPUs; a fraction lets trials share one")


class StorageSpec(Section):
    """What a run folder keeps, and how patient its writers are. No result depends on it."""

    keep_artifacts: Literal["all", "front"] = Field(
        "all", description="front: artifacts of trials on no front, in some or all objectives, are removed"
    )
    patience_s: float = Field(
        60.0,
        ge=0,
        description="seconds for which a write or read is tried again before the sweep stops (disk full, share away)",
    )
    lease_s: float = Field(
        60.0, ge=1, description="seconds of silence after which another host may take over the study from a driver"
    )


class BoundSpec(Section):
    """A constraint on a metric: trials outside it never reach the front, and the sampler learns to avoid them."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some(self) -> BoundSpec:
        if self.min is None and self.max is None:
            raise ValueError("needs a bound; give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}; nothing can meet both, widen them")
        return self

    def violation(self, value: float) -> float:
        """By how much `value` lies outside; ≤ 0 inside (Optuna's convention)."""
        parts = []
        if self.min is not None:
            parts.append(self.min - value)
        if self.max is not None:
            parts.append(value - self.max)
        return max(parts)


class StudySpec(Section):
    """A study: everything that defines a run."""

    name: str = Field(description="the folder under runs/")
    task: str = Field("atmc", description="what a trial does: a known task, or 'package.module:attribute'")
    trial: dict[str, Any] = Field(description="one trial, in which any leaf may be a distribution")
    objectives: dict[str, Literal["min", "max"]] = Field(
        {}, description="metrics and their directions; default: the task's own"
    )
    constraints: dict[str, BoundSpec] = Field({}, description="metrics and bounds that a trial must keep")
    search: SearchSpec
    resources: ResourcesSpec = ResourcesSpec()
    storage: StorageSpec = StorageSpec()

    @field_validator("name")
    @classmethod
    def _slug(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError("names a folder; use letters, digits, '.', '_' and '-', at most 100")
        return name

    @field_validator("objectives")  # which sees only what was given
    @classmethod
    def _some(cls, objectives: dict[str, str]) -> dict[str, str]:
        if not objectives:
            raise ValueError("needs at least one objective; name one, {cost: min}, or leave objectives out")
        return objectives

    @model_validator(mode="after")
    def _template(self) -> StudySpec:
        # A SpecError passes through pydantic unwrapped: it names its own path.
        _check_plain(self.trial)
        space.distributions(self.trial)
        return self

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The distributions of the template by dotted path, whether or not its task makes use of them."""
        return space.distributions(self.trial)

    @property
    def fingerprint(self) -> str:
        """12 hex digits that name what a result depends on: not the study's name, its length, resources or storage."""
        document = self.model_dump(mode="json", include={"task", "trial", "objectives", "constraints"})
        document["search"] = self.search.model_dump(mode="json", include={"sampler", "scheduler", "seed"})
        return fingerprint(document)


def _check_plain(trial: Mapping[str, Any]) -> None:
    """That a template is what YAML and JSON both can say, so that it is written, hashed and read back the same."""
    queue: list[tuple[str, object, int]] = [("trial", trial, 0)]
    for where, value, depth in queue:  # grows while it is walked
        if depth > _MAX_DEPTH:
            raise SpecError(f"{where} = {written(value)}: nested too deeply; a spec is short and flat")
        match value:
            case None | bool() | str():
                pass
            case int():
                if not -(2**63) <= value < 2**63:
                    raise SpecError(f"{where} = {written(value)}: is beyond 64 bits; use a smaller number")
            case float():
                if not math.isfinite(value):
                    raise SpecError(f"{where} = {value}: must be a finite number; leave it out or give a number")
            case list():
                queue += [(f"{where}.{position}", item, depth + 1) for position, item in enumerate(value)]
            case dict():
                for key, item in value.items():
                    if not isinstance(key, str):
                        raise SpecError(f"{where}: key {written(key)} is not a word; quote it")
                    queue.append((f"{where}.{key}", item, depth + 1))
            case _:
                raise SpecError(
                    f"{where} = {written(value)}: a {type(value).__name__} is no plain value; use numbers, words, "
                    "true/false, null, lists and mappings (quote dates)"
                )
        if len(queue) > _MAX_VALUES:
            raise SpecError(f"{where} = {written(value)}: too long; a spec is short and flat")


def fingerprint(document: object) -> str:
    """The first 12 hex digits of the SHA-256 of `document` as canonical JSON."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
