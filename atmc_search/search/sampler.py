"""Optuna as a Ray Tune searcher that tells it the truth about every trial.

Ray's own `OptunaSearch` tells early-stopped trials as complete at partial fidelity, leaves trials with NaN running
for ever, and drops constraints. Here: complete → COMPLETE with its constraints set first; stopped by the scheduler →
PRUNED; failed, or not finite → FAIL. Earlier reports are replayed through the same code, which is how a study goes on.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from ray.tune.search import Searcher

from atmc_search.search.stopping import StopRequest
from atmc_search.space import Config
from atmc_search.spec import SearchSpec
from atmc_search.tasks import TrialSpace, parent_of

TRIAL_NUMBER = "trial_number"
"""The key under which a trial's number stands in Ray's config, beside the sampled values by dotted path."""

START_TRIAL = "start_trial"
"""Beside it, the number of another trial that the trial starts from; absent where it starts as its spec says."""


class OptunaSearcher(Searcher):
    """Proposes configs by an Optuna study of any number of objectives."""

    def __init__(self, trials: TrialSpace, *, earlier: int = 0, stop: StopRequest | None = None) -> None:
        """Begins an empty study.

        Args:
            trials: of the study.
            earlier: how many trials will be replayed. A sampler seeded as before would propose their configs again.
            stop: once it is made, nothing more is proposed.
        """
        # Ray asks every searcher for one metric and mode; the objectives of several are kept here instead.
        super().__init__(metric=None, mode=None)
        self._trials, spec = trials, trials.study
        self._spec = spec
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        minimize, maximize = optuna.study.StudyDirection.MINIMIZE, optuna.study.StudyDirection.MAXIMIZE
        directions = [minimize if d == "min" else maximize for d in spec.objectives.values()]
        self.study = optuna.create_study(sampler=make_sampler(spec.search, earlier), directions=directions)
        self._running: dict[str, optuna.Trial] = {}
        self._again: deque[tuple[int, Config, int | None]] = deque()
        self._next = 0
        self._stop = stop

    def replay(self, number: int, config: Mapping[str, Any], state: str, metrics: Mapping[str, Any]) -> None:
        """Takes in a trial of an earlier run: finished ones are told, others will be proposed again as they were.

        Args:
            number: the trial's.
            config: its sampled values by dotted path; values that it does not use are ignored.
            state: as in the column `state`.
            metrics: its last report; its `start` says whether it starts from another trial.
        """
        self._next = max(self._next, number + 1)
        if state in ("complete", "stopped", "failed"):
            self._tell(self._ask(config), state, metrics)
        else:
            self._again.append((number, dict(config), parent_of(metrics.get("start"))))

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next config: one that an earlier run left unfinished, else what the sampler proposes."""
        if self._stop is not None and self._stop.requested:
            return Searcher.FINISHED  # type: ignore[return-value]  # Ray's own base class has it so
        if self._again:
            number, config, parent = self._again.popleft()
            trial = self._ask(config)
        else:
            number, self._next, parent = self._next, self._next + 1, None
            trial = self._ask(None)
        self._running[trial_id] = trial
        return {**trial.params, TRIAL_NUMBER: number} | ({} if parent is None else {START_TRIAL: parent})

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self._running.pop(trial_id, None)
        if trial is None:
            return
        metrics = {
            key.removeprefix("report/"): value for key, value in (result or {}).items() if key.startswith("report/")
        }
        if error or not metrics or metrics.get("state") == "failed":
            state = "failed"
        else:
            state = "complete" if metrics.get("state") == "complete" else "stopped"
        self._tell(trial, state, metrics)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the reports are the truth from which a study goes on (`replay`)."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `save`."""

    def _ask(self, config: Mapping[str, Any] | None) -> optuna.Trial:
        if config is not None:
            active = self._trials.active(config)
            self.study.enqueue_trial({path: value for path, value in config.items() if path in active})
        trial = self.study.ask()
        for path in self._trials.deciding:  # first: they decide which other values the trial has
            suggest(trial, path, self._trials.distributions[path])
        for path, distribution in self._trials.active(trial.params).items():
            suggest(trial, path, distribution)
        return trial

    def _tell(self, trial: optuna.Trial, state: str, metrics: Mapping[str, Any]) -> None:
        values = [number_of(metrics.get(name)) for name in self._spec.objectives]
        bounded = {name: number_of(metrics.get(name)) for name in self._spec.constraints}
        finite = all(math.isfinite(value) for value in [*values, *bounded.values()])
        if state == "failed" or not finite:
            self.study.tell(trial, state=TrialState.FAIL)
            return
        for name, bound in self._spec.constraints.items():
            trial.set_constraint(name, bound.violation(bounded[name]))
        if state == "stopped":
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, values)


def suggest(trial: optuna.Trial, path: str, distribution: BaseDistribution) -> None:
    """Draws the value at `path`; one that is drawn already stays."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            trial.suggest_categorical(path, choices)
        case IntDistribution(low=low, high=high):
            trial.suggest_int(path, low, high)
        case FloatDistribution(low=low, high=high, log=log):
            trial.suggest_float(path, low, high, log=log)
        case _:
            raise AssertionError(f"no way to draw from {distribution}")


def make_sampler(search: SearchSpec, earlier: int = 0) -> optuna.samplers.BaseSampler:
    """Optuna's sampler of that name.

    TPE takes parameters independently and punishes points near running trials (constant liar): the best of Optuna's
    at 60 to 300 trials that run side by side; below 30 trials nothing beats random.
    """
    sampler = search.sampler
    seed = (search.seed + 1_000_003 * earlier) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if sampler.name == "tpe":
            return optuna.samplers.TPESampler(n_startup_trials=sampler.startup_trials, constant_liar=True, seed=seed)
        if sampler.name == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=max(2, sampler.startup_trials), seed=seed)
        return optuna.samplers.RandomSampler(seed=seed)


def number_of(value: Any) -> float:
    """`value` as a float; NaN for whatever is none (None, pandas' NA)."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
