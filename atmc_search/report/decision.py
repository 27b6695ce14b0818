"""What `choose` decided, as data, and in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from atmc_search.formatting import number
from atmc_search.pareto import Bound, Relaxation


@dataclass(frozen=True)
class Relaxed:
    """A change of one bound that lets a trial in, and that trial with its value of the deciding metric."""

    relaxation: Relaxation
    trial: int
    value: float


@dataclass(frozen=True, eq=False)
class Decision:
    """What `choose` found.

    Attributes:
        trial: the row to ship; None when nothing fits the bounds.
        metric: that decided.
        direction: "min" or "max" of it.
        bounds: that were asked for.
        constraints: of the study, which hold as well.
        measured: how many trials were measured.
        candidates: how many of them are within all bounds and constraints.
        runner_up: the row that is next best; None if there is none.
        relaxations: where nothing fits, the bounds that would have to give way; see `pareto.Choice`.
        shown: metrics to show of a row.
        warnings: sentences on the chosen row.
        artifact: path of its artifact; None where it has none.
    """

    trial: pd.Series | None
    metric: str
    direction: Literal["min", "max"]
    bounds: tuple[Bound, ...]
    constraints: tuple[Bound, ...]
    measured: int
    candidates: int
    runner_up: pd.Series | None
    relaxations: tuple[Relaxed, ...]
    shown: tuple[str, ...]
    warnings: tuple[str, ...]
    artifact: Path | None

    @property
    def text(self) -> str:
        """The decision in words: the reasons, or which bound to relax and by how much."""
        return "\n".join(_reasons(self, self.trial) if self.trial is not None else _relaxations(self))


def _reasons(decision: Decision, row: pd.Series) -> list[str]:
    word = "highest" if decision.direction == "max" else "lowest"
    lines = [
        f"trial {row['trial']}: {_figures(decision, row)}",
        f"{word} {decision.metric} of the {decision.candidates} (of {decision.measured}) measured trials within "
        + _within(decision),
    ]
    if decision.runner_up is not None:
        lines.append(f"next best: trial {decision.runner_up['trial']}, {_figures(decision, decision.runner_up)}")
    lines += [f"beware: {warning}" for warning in decision.warnings]
    return lines + ([f"artifact: {decision.artifact}"] if decision.artifact is not None else [])


def _relaxations(decision: Decision) -> list[str]:
    bounded = decision.bounds or decision.constraints
    rule = f"is within {_within(decision)}" if bounded else f"has a {decision.metric}"
    lines = [f"none of {decision.measured} measured trials {rule}"]
    together = [found for found in decision.relaxations if found.relaxation.together]
    for found in decision.relaxations:
        change = found.relaxation
        lead = "" if not change.together else "together: " if found is together[0] else "and: "
        lines.append(
            f"{lead}{'raise' if change.kind == 'max' else 'lower'} {_name(decision, change)} from "
            f"{number(change.limit)} to {number(change.needed)} (by {number(change.by)}): then trial {found.trial} "
            f"with {decision.metric} {number(found.value)}"
        )
    if not decision.relaxations:
        lines.append("no relaxation helps: no trial has all of these metrics")
    return lines


def _name(decision: Decision, change: Relaxation) -> str:
    """The bound that is to be changed, where the user wrote it; perhaps in two places."""
    bound = Bound(change.metric, change.limit, change.kind)
    asked = [f"--{bound.kind} {bound.metric}"] if bound in decision.bounds else []
    kept = [f"the study's constraints.{bound.metric}.{bound.kind}"] if bound in decision.constraints else []
    return " and ".join(asked + kept)


def _within(decision: Decision) -> str:
    asked = " and ".join(map(_bound, decision.bounds))
    kept = " and ".join(map(_bound, decision.constraints))
    if not kept:
        return asked or "(no bounds)"
    return f"{asked}{' and ' if asked else ''}the study's constraints ({kept})"


def _bound(bound: Bound) -> str:
    return f"{bound.metric} {'<=' if bound.kind == 'max' else '>='} {number(bound.limit)}"


def _figures(decision: Decision, row: pd.Series) -> str:
    return ", ".join(f"{name} {number(row[name])}" for name in decision.shown)
