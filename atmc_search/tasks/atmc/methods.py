"""The methods that the ATMC paper compares, and ours: presets of the same few parts, loss, factors, pruning, codebook.

`trial.method: al0` fixes the settings that make the method what it is and leaves all others to the spec; a sweep mixes
methods by `trial.method: {choice: [ap, al0, atmc]}`. To add one: an entry in `METHODS`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atmc_search.errors import SpecError, written
from atmc_search.spec.paths import remove_at, set_at, value_at

METHOD_PATH = "trial.method"
"""Where a method stands in a study."""

_PLAIN_SGD = {"lr": 0.05, "lr_schedule": "cosine", "warmup": 0.0, "nesterov": False, "clip_norm": None}
_OF_THE_PAPER: Mapping[str, Any] = {
    **{f"train.{name}": value for name, value in _PLAIN_SGD.items()},
    "compress.schedule": None,
    "compress.count": "all",
    "compress.codebook": "admm",
}
"""What came after the paper, and is the default of settings, turned off; not in the dense start, which all share."""


@dataclass(frozen=True)
class Method:
    """A method: what it is, and the settings it fixes, by dotted path under `trial`.

    Attributes:
        meaning: a line.
        fixes: what makes the method what it is, overruling the template.
        ignores: settings that the method does not use; they are removed from the template and not searched.
        defaults: what it takes where the template is silent, in place of the settings' own defaults: the paper's.
    """

    meaning: str
    fixes: Mapping[str, Any]
    ignores: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=lambda: _OF_THE_PAPER)

    @property
    def one_size(self) -> bool:
        """Whether a budget of bytes can only stand in place of `keep`, not beside it."""
        bits, factors = (self.fixes.get(f"compress.{name}") for name in ("bit_allocation", "factors"))
        return bits == "uniform" and factors != "low_rank"

    @property
    def says(self) -> str:
        """What it is, what it fixes, and what it takes where a spec is silent."""
        used = {path: value for path, value in self.defaults.items() if self.uses(path)}
        lists = {
            title: ", ".join(f"{path} = {written(value)}" for path, value in values.items())
            for title, values in (("fixes", self.fixes), ("by default", used))
        }
        return "; ".join([self.meaning, *(f"{title} {text}" for title, text in lists.items() if text)])

    def uses(self, path: str) -> bool:
        """Whether the setting at `path` (with or without `trial.`) makes a difference."""
        path = path.removeprefix("trial.")
        return not any(path == other or path.startswith(f"{other}.") for other in (*self.fixes, *self.ignores))


_CLEAN = {"name": "none"}
_NO_CODEBOOK = {"compress.bits": 32, "compress.bit_allocation": "uniform"}
_OF_SCORES = ("compress.scores", "compress.quotas")
_OF_CODEBOOKS = (
    "compress.codebook",
    "compress.code_price",
    "compress.rho",
    "compress.dual_every",
    "compress.codebook_from",
)
_NO_RANKS = {"compress.energy": None}
_NO_BYTES = {"compress.budget_bytes": None}
_OF_PRUNING = ("compress.schedule", "compress.price", "compress.importance")
_AS_EVER = {"every": 100, "share": 0.3}  # of other schedules
_OF_PLAIN_WEIGHTS = ("compress.count",)

METHODS: Mapping[str, Method] = {
    "nap": Method(
        "non-adversarial pruning: clean training, ℓ0 projection at every step",
        {
            "dense.attack": _CLEAN,
            "train.attack": _CLEAN,
            "compress.factors": "none",
            "compress.pruning": "projected",
            **_NO_CODEBOOK,
            **_NO_RANKS,
            **_NO_BYTES,
        },
        (
            *_OF_CODEBOOKS,
            *_OF_SCORES,
            "dense.eps",
            "train.eps",
            "dense.loss",
            "train.loss",
            "dense.guard",
            "train.guard",
        ),
    ),
    "da": Method(
        "dense adversarial training, nothing compressed",
        {
            "compress.factors": "none",
            "compress.pruning": "none",
            "compress.keep": 1.0,
            **_NO_CODEBOOK,
            **_NO_RANKS,
            **_NO_BYTES,
        },
        (*_OF_CODEBOOKS, *_OF_SCORES, *_OF_PLAIN_WEIGHTS, *_OF_PRUNING),
    ),
    "ap": Method(
        "adversarial pruning: pruned once by magnitude, fine-tuned adversarially with the mask fixed",
        {"compress.factors": "none", "compress.pruning": "one_shot", **_NO_CODEBOOK, **_NO_RANKS, **_NO_BYTES},
        (*_OF_CODEBOOKS, *_OF_SCORES, "compress.schedule"),
    ),
    "al0": Method(
        "adversarial training with ℓ0 projection at every step",
        {"compress.factors": "none", "compress.pruning": "projected", **_NO_CODEBOOK, **_NO_RANKS, **_NO_BYTES},
        (*_OF_CODEBOOKS, *_OF_SCORES),
    ),
    "alr": Method(
        "adversarial training of low-rank layers W = UV, ranks from the singular values of all layers together",
        {"compress.factors": "low_rank", "compress.pruning": "none", **_NO_CODEBOOK},
        (*_OF_CODEBOOKS, *_OF_SCORES, *_OF_PLAIN_WEIGHTS, *_OF_PRUNING),
    ),
    "atmc_32": Method(
        "ATMC without codebooks: W = UV + C under one ℓ0 budget",
        {"compress.factors": "uvc", "compress.pruning": "projected", **_NO_CODEBOOK, **_NO_RANKS, **_NO_BYTES},
        (*_OF_CODEBOOKS, *_OF_SCORES, *_OF_PLAIN_WEIGHTS),
    ),
    "atmc": Method(
        "ATMC: W = UV + C under one ℓ0 budget, codebooks of 2^bits values",
        {
            "compress.factors": "uvc",
            "compress.pruning": "projected",
            "compress.bit_allocation": "uniform",
            **_NO_RANKS,
            **_NO_BYTES,
        },
        (*_OF_PLAIN_WEIGHTS, *_OF_SCORES),
    ),
    "atmc_mixed": Method(
        "ATMC with bits per tensor: the bytes that `bits` everywhere would cost, spent where they save most distortion",
        {
            "compress.factors": "uvc",
            "compress.pruning": "projected",
            "compress.bit_allocation": "mixed",
            **_NO_RANKS,
        },
        (*_OF_PLAIN_WEIGHTS, *_OF_SCORES),
    ),
    "continuous": Method(
        "dense to sparse in one training: the budget of weights with an effect shrinks; straight-through codebooks",
        {
            "compress.factors": "none",
            "compress.pruning": "projected",
            "compress.count": "live",
            "compress.schedule": {"name": "cubic", "from": 0.05, "to": 0.55, "freeze": 0.85, **_AS_EVER},
            "compress.codebook": "straight_through",
            "compress.bit_allocation": "uniform",
            **_NO_RANKS,
        },
        ("compress.rho", *_OF_SCORES),
        defaults={},
    ),
}


def method_of(trial: Mapping[str, Any]) -> Method | None:
    """The method that a trial or a template names; None where it names none, a distribution or an unknown one."""
    name = trial.get("method")
    return METHODS.get(name) if isinstance(name, str) else None


def as_method_says(trial: Mapping[str, Any]) -> dict[str, Any]:
    """A filled template with what its method fixes set, and without what its method ignores.

    Raises:
        SpecError: the template sets its size by bytes alone, and its method takes its size from `keep`.
    """
    filled = copy.deepcopy(dict(trial))
    method = method_of(filled)
    if method is not None:
        _set_one_size(filled, method)
        for path in method.ignores:
            remove_at(filled, path)
        for path, value in method.fixes.items():
            set_at(filled, path, value)
    return filled


def _set_one_size(filled: dict[str, Any], method: Method) -> None:
    """Of keep and budget_bytes, a template of many methods may have both: keep goes first where one sets the size."""
    budget, keep, target = (value_at(filled, f"compress.{name}") for name in ("budget_bytes", "keep", "target"))
    if "compress.keep" in method.fixes:
        return
    if keep is not None and budget is not None and method.one_size:
        set_at(filled, "compress.budget_bytes", None)
    if keep is None and target is None and "compress.budget_bytes" in method.fixes:
        able = ", ".join(name for name, other in METHODS.items() if "compress.budget_bytes" not in other.fixes)
        given = "trial.compress.keep: missing" if budget is None else f"trial.compress.budget_bytes = {written(budget)}"
        raise SpecError(f"{given}: method {filled['method']} takes its size from keep; give keep, or use one of {able}")
