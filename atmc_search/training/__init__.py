"""Training: an epoch of adversarial training in parts, what watches it, checkpoints as plain data."""

from atmc_search.training.batch_norm import AttackedBatches, attacked_loss, has_running_statistics, reestimated
from atmc_search.training.checkpoint import load_tensors, save_tensors, tensors_from_bytes, tensors_to_bytes
from atmc_search.training.divergence import all_finite
from atmc_search.training.epoch import EpochStats, train_epoch
from atmc_search.training.guard import Guard
from atmc_search.training.losses import LOSSES, Loss, build_loss
from atmc_search.training.optimizer import learning_rate, make_optimizer
from atmc_search.training.quotas import Quotas
from atmc_search.training.repeatable import make_repeatable, seeded
from atmc_search.training.scores import ScoreSearch, first_scores, largest_of_all, largest_of_each
from atmc_search.training.selection import Selection
from atmc_search.training.step import Step, StepFigures

__all__ = [
    "LOSSES",
    "AttackedBatches",
    "EpochStats",
    "Guard",
    "Loss",
    "Quotas",
    "ScoreSearch",
    "Selection",
    "Step",
    "StepFigures",
    "all_finite",
    "attacked_loss",
    "build_loss",
    "first_scores",
    "has_running_statistics",
    "largest_of_all",
    "largest_of_each",
    "learning_rate",
    "load_tensors",
    "make_optimizer",
    "make_repeatable",
    "reestimated",
    "save_tensors",
    "seeded",
    "tensors_from_bytes",
    "tensors_to_bytes",
    "train_epoch",
]
