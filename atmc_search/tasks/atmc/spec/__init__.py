"""What the `trial` section of an ATMC study may say, a file a section.

To add a setting, add a field with a `description`: validation, messages and `atmc-search settings` follow from it.
Parts that have settings of their own (models, attacks, losses) are a `Component`; the package that owns them validates
them.
"""

from atmc_search.tasks.atmc.spec.compress import CompressSpec, QuotaSpec, ScheduleSpec, ScoreSpec, TargetSpec
from atmc_search.tasks.atmc.spec.evaluate import EvaluateSpec
from atmc_search.tasks.atmc.spec.model import ModelSpec
from atmc_search.tasks.atmc.spec.stages import DenseSpec, DistillationSpec, TrainSpec
from atmc_search.tasks.atmc.spec.trial import AtmcSpec

__all__ = [
    "AtmcSpec",
    "CompressSpec",
    "DenseSpec",
    "DistillationSpec",
    "EvaluateSpec",
    "ModelSpec",
    "QuotaSpec",
    "ScheduleSpec",
    "ScoreSpec",
    "TargetSpec",
    "TrainSpec",
]
