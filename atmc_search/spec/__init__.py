"""What the YAML file of any study may say: `StudySpec`. What stands under `trial` is the task's, and validated by it.

The `trial` section is a template in which any leaf may be a distribution (see `space`). To add a setting, add a field
with a `description`: validation, messages and `atmc-search settings` follow from it. Parts that have settings of their
own are named by a `Component`; the package that owns them validates the rest of its keys.
"""

from atmc_search.spec.files import dump_yaml, load_study, parse_study, parse_yaml
from atmc_search.spec.sections import Component, Section, TrialSpec
from atmc_search.spec.study import (
    BoundSpec,
    ResourcesSpec,
    SamplerSpec,
    SchedulerSpec,
    SearchSpec,
    StorageSpec,
    StudySpec,
    fingerprint,
)

__all__ = [
    "BoundSpec",
    "Component",
    "ResourcesSpec",
    "SamplerSpec",
    "SchedulerSpec",
    "SearchSpec",
    "Section",
    "StorageSpec",
    "StudySpec",
    "TrialSpec",
    "dump_yaml",
    "fingerprint",
    "load_study",
    "parse_study",
    "parse_yaml",
]
