"""All that a YAML file may say: `StudySpec` (what to search) and `TrialSpec` (one trial, no distribution left).

A study's `trial` section is a template in which any leaf may be a distribution (see `space`); a sampled config filled
into it must validate as a TrialSpec. To add a setting, add a field with a `description`: validation, messages and
`atmc-search settings` follow from it. Components that have settings of their own (models, attacks) are named by a
`Component`; the package that owns them validates the rest of its keys.
"""

from atmc_search.spec.compress import CompressSpec, ScheduleSpec, TargetSpec
from atmc_search.spec.files import dump_yaml, load_study, parse_study, parse_yaml
from atmc_search.spec.sections import Component, ThreatModel
from atmc_search.spec.stages import DenseSpec, StageSpec, TrainSpec
from atmc_search.spec.study import (
    METHOD_PATH,
    BoundSpec,
    ResourcesSpec,
    SamplerSpec,
    SchedulerSpec,
    SearchSpec,
    StorageSpec,
    StudySpec,
    fingerprint,
)
from atmc_search.spec.trial import AugmentSpec, DataSpec, EvaluateSpec, TrialSpec

__all__ = [
    "METHOD_PATH",
    "AugmentSpec",
    "BoundSpec",
    "Component",
    "CompressSpec",
    "DataSpec",
    "DenseSpec",
    "EvaluateSpec",
    "ResourcesSpec",
    "SamplerSpec",
    "ScheduleSpec",
    "SchedulerSpec",
    "SearchSpec",
    "StageSpec",
    "StorageSpec",
    "StudySpec",
    "TargetSpec",
    "ThreatModel",
    "TrainSpec",
    "TrialSpec",
    "dump_yaml",
    "fingerprint",
    "load_study",
    "parse_study",
    "parse_yaml",
]
