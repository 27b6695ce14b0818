"""One trial in this process, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from atmc_search.errors import SpecError
from atmc_search.formatting import number
from atmc_search.space import centre
from atmc_search.spec import StudySpec
from atmc_search.tasks.base import facts_of, start_of
from atmc_search.tasks.trials import TrialSpace
from atmc_search.training import make_repeatable


def run_trial(study: StudySpec, *, device: str, tell: Callable[[str], None]) -> tuple[dict[str, Any], bytes]:
    """Trains the study's template with every distribution at its centre.

    Args:
        study: a study, its interesting values set plainly.
        device: torch device.
        tell: takes a line of progress.

    Returns:
        The last epoch's metrics, and the artifact they were measured on.

    Raises:
        AtmcError: a setting that cannot run, missing data, or a diverged training.
    """
    try:
        float(torch.zeros(1, device=device))  # and back: "meta" has no values
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split(". ")[0].split())[:120]
        raise SpecError(f"--device {device}: torch cannot use it ({reason}); use cpu") from None
    make_repeatable(device)
    trials = TrialSpace.of(study)
    study, kind = trials.study, trials.task
    config = {path: centre(distribution) for path, distribution in trials.distributions.items()}
    spec = trials.fill(config)
    data = kind.load(spec)
    kind.check(spec, data)
    for path, value in config.items():
        tell(f"{path} = {value:.6g}" if isinstance(value, float) else f"{path} = {value}")
    name = kind.start_name
    start = start_of(kind, spec, data, device=device, report=lambda row: tell(f"{name}: {_line(row)}"))
    if start.facts:
        tell(f"{name}: {_line(start.facts)}")
    task = kind(spec, data, start, device=device, meta=facts_of(study.name, kind.inputs(spec, data)))
    metrics: dict[str, Any] = {}
    while not task.done:
        metrics = task.step()
        shown = ("loss", *study.objectives)
        tell(f"epoch {task.epoch}/{task.epochs}: " + _line({k: metrics[k] for k in shown if k in metrics}))
    return metrics, task.artifact()


def _line(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value if isinstance(value, str) else number(value)}" for name, value in row.items())
