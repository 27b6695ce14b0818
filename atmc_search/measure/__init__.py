"""Measuring: accuracies with intervals, robustness curves, and checks against gradient masking.

Always of a model as it was decoded from its artifact, never of the one that was trained.
"""

from atmc_search.measure.accuracy import Accuracy, Measurement, clean_correct, measure, robust_correct
from atmc_search.measure.curves import RobustnessCurves, robustness_curve
from atmc_search.measure.intervals import wilson_interval
from atmc_search.measure.masking import MaskingChecks, Paired, masking_checks

__all__ = [
    "Accuracy",
    "MaskingChecks",
    "Measurement",
    "Paired",
    "RobustnessCurves",
    "clean_correct",
    "masking_checks",
    "measure",
    "robust_correct",
    "robustness_curve",
    "wilson_interval",
]
