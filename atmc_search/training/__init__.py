"""Training: one epoch of adversarial training, two ways to a codebook, checkpoints as plain data."""

from atmc_search.training.admm import AdmmState, add_penalty, admm_start, admm_update, all_finite
from atmc_search.training.average import WeightAverage
from atmc_search.training.batch_norm import AttackedBatches, attacked_loss, has_running_statistics, reestimated
from atmc_search.training.checkpoint import load_tensors, save_tensors, tensors_from_bytes, tensors_to_bytes
from atmc_search.training.distillation import Teacher
from atmc_search.training.guard import Guard
from atmc_search.training.loop import (
    Constrained,
    EpochStats,
    learning_rate,
    make_optimizer,
    make_repeatable,
    seeded,
    train_epoch,
)
from atmc_search.training.losses import LOSSES, Loss, build_loss
from atmc_search.training.quotas import Quotas
from atmc_search.training.scores import ScoreSearch, first_scores, largest_of_all, largest_of_each
from atmc_search.training.selection import Selection, in_force
from atmc_search.training.straight_through import StraightThroughState, at_centres, fitted_centres, on_centres

__all__ = [
    "LOSSES",
    "AdmmState",
    "AttackedBatches",
    "Constrained",
    "EpochStats",
    "Guard",
    "Loss",
    "Quotas",
    "ScoreSearch",
    "Selection",
    "StraightThroughState",
    "Teacher",
    "WeightAverage",
    "add_penalty",
    "admm_start",
    "admm_update",
    "all_finite",
    "at_centres",
    "attacked_loss",
    "build_loss",
    "first_scores",
    "fitted_centres",
    "has_running_statistics",
    "in_force",
    "largest_of_all",
    "largest_of_each",
    "learning_rate",
    "load_tensors",
    "make_optimizer",
    "make_repeatable",
    "on_centres",
    "reestimated",
    "save_tensors",
    "seeded",
    "tensors_from_bytes",
    "tensors_to_bytes",
    "train_epoch",
]
