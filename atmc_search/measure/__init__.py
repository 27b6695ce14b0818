"""Measuring: clean and robust accuracy with intervals, always of a model as it was decoded from its artifact."""

from atmc_search.measure.accuracy import Accuracy, Measurement, clean_correct, measure, robust_correct
from atmc_search.measure.intervals import wilson_interval

__all__ = ["Accuracy", "Measurement", "clean_correct", "measure", "robust_correct", "wilson_interval"]
