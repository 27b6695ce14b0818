"""Multi-objective ASHA: at each rung a trial goes on if it ranks in the best 1/η of all vectors recorded there.

Asynchronous successive halving (Li et al., arXiv 1810.05934) with the multi-objective rank of Schmucker et al.
(arXiv 2106.12639): nondominated sort, then spread within a front (`pareto.rank`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from atmc_search.pareto import rank
from atmc_search.search.sampler import TRIAL_NUMBER, number_of
from atmc_search.search.stopping import StopRequest
from atmc_search.spec import SchedulerSpec, StudySpec


class Rungs:
    """What was recorded at each rung, and the verdict on each newcomer. Knows nothing of Ray."""

    def __init__(self, objectives: Mapping[str, str], settings: SchedulerSpec) -> None:
        self._signs = {name: 1.0 if direction == "min" else -1.0 for name, direction in objectives.items()}
        self._settings = settings
        self._recorded: dict[int, dict[int, list[float]]] = {}
        self.reasons: dict[int, str] = {}

    def levels(self, epochs: int) -> list[int]:
        """The epochs at which a trial of that many is judged: grace · η^i, below the last epoch."""
        levels: list[int] = []
        level = float(self._settings.grace_epochs)
        while round(level) < epochs:
            levels.append(round(level))
            level *= self._settings.reduction_factor
        return sorted(set(levels))

    def record(self, number: int, epoch: int, epochs: int, metrics: Mapping[str, Any]) -> bool:
        """Takes in a measured report; True if the trial may go on.

        A report counts for the highest rung that it has reached and was not yet recorded at; reports that did not
        measure the objectives count for none.
        """
        level = self.replay(number, epoch, epochs, metrics)
        if level is None:
            return True
        rung = self._recorded[level]
        place = int(rank(np.array(list(rung.values())))[-1])
        if place * self._settings.reduction_factor < len(rung):
            return True
        self.reasons[number] = f"rank {place + 1} of {len(rung)} at the rung of {level} epochs"
        return False

    def replay(self, number: int, epoch: int, epochs: int, metrics: Mapping[str, Any]) -> int | None:
        """Takes in a report that was judged when it came; gives the rung at which it is new, if there is one."""
        vector = [sign * number_of(metrics.get(name)) for name, sign in self._signs.items()]
        level = max((level for level in self.levels(epochs) if level <= epoch), default=None)
        if level is None or epoch >= epochs or not all(map(math.isfinite, vector)):
            return None
        rung = self._recorded.setdefault(level, {})
        if number in rung:
            return None
        rung[number] = vector
        return level


class StudyScheduler(FIFOScheduler):
    """Starts trials in order; stops what `Rungs` sorts out, and every trial after its epoch once a stop is made."""

    def __init__(self, rungs: Rungs | None, stop: StopRequest) -> None:
        super().__init__()
        self._rungs = rungs
        self._stop = stop

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        if not self._stop.requested:
            chosen: Trial | None = super().choose_trial_to_run(tune_controller)
            return chosen
        for trial in list(tune_controller.get_trials()):
            if trial.status == Trial.PENDING:
                trial.init_local_path()  # Tune asks every trial for its folder in the end, and it may have none yet
                tune_controller.stop_trial(trial)
        return None

    @property
    def supports_buffered_results(self) -> bool:
        return False  # a trial must not run on while it is judged

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        report = {key.removeprefix("report/"): value for key, value in result.items() if key.startswith("report/")}
        if report.get("state") != "running":
            return str(TrialScheduler.CONTINUE)
        number, epoch = trial.config[TRIAL_NUMBER], report["epoch"]
        goes_on = self._rungs is None or self._rungs.record(number, epoch, report["epochs"], report)
        return str(TrialScheduler.CONTINUE if goes_on and not self._stop.requested else TrialScheduler.STOP)


def make_scheduler(spec: StudySpec, stop: StopRequest) -> tuple[TrialScheduler, Rungs | None]:
    """The scheduler that a study names, with its rungs where it has some."""
    rungs = None if spec.search.scheduler.name == "none" else Rungs(spec.objectives, spec.search.scheduler)
    return StudyScheduler(rungs, stop), rungs
