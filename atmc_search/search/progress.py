"""Progress one can read: a live panel on a terminal, a plain line per finished trial elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from atmc_search.errors import printable
from atmc_search.formatting import number
from atmc_search.pareto import hypervolume
from atmc_search.report import front_table
from atmc_search.results import front_of
from atmc_search.results.derive import minimised
from atmc_search.search.preflight import Prepared
from atmc_search.search.server import StartProgress

_REFRESH_S = 0.5
_FRONT_ROWS = 12


class Progress:
    """Counts trials, follows the front and its hypervolume, and estimates the time left."""

    def __init__(self, prepared: Prepared, console: Console, starts: Callable[[], Sequence[StartProgress]]) -> None:
        """`starts` gives the starts that are made (the dense model) and that are there, until there is a front."""
        self._prepared = prepared
        self._console = console
        self._starts = starts
        self._rows: dict[int, dict[str, Any]] = {}
        self._front = pd.DataFrame()
        self._hypervolume: float | None = None
        self._began = time.monotonic()
        self._paced_from: tuple[float, int] | None = None
        self._refreshed = 0.0
        self._announced: set[str] = set()
        self._live = (
            Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.stop()

    def earlier(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes in trials that an earlier run finished; they count as done."""
        for row in rows:
            self._rows[int(row["trial"])] = dict(row)
        self._update_front()

    def report(self, row: Mapping[str, Any]) -> None:
        """Takes in a report."""
        self._rows[int(row["trial"])] = dict(row)
        if row["state"] != "running":
            # The pace is taken from the first finish on: before it lie the dense start and the workers' own start.
            self._paced_from = self._paced_from or (time.monotonic(), self._finished())
            self._update_front()
            if self._live is None:
                self.say(self._line(row))

    def say(self, text: str) -> None:
        """Prints a line that stays: something happened that is no report."""
        self._console.print(printable(text), highlight=False, soft_wrap=True, markup=False)

    def refresh(self) -> None:
        """Draws, at most twice a second. Says once what each start is that trials are compared with.

        Off a terminal it also says, once per epoch, how far the starts are.
        """
        now = time.monotonic()
        if now - self._refreshed < _REFRESH_S:
            return
        self._refreshed = now
        if not self._front.size or not self._announced:
            for text, ready in self._start_lines():
                if text not in self._announced and (ready or self._live is None):
                    self._announced.add(text)
                    self.say(text)
        if self._live:
            self._live.update(self._panel(), refresh=True)

    @property
    def hypervolume(self) -> float | None:
        """Of the front so far: decades for sizes, shares for accuracies, multiplied. None without a reference."""
        return self._hypervolume

    def _counts(self) -> Counter[str]:
        return Counter(str(row["state"]) for row in self._rows.values())

    def _finished(self) -> int:
        return sum(count for state, count in self._counts().items() if state not in ("running", "interrupted"))

    def _time_left(self) -> float | None:
        if self._paced_from is None:
            return None
        since, finished = self._paced_from
        if self._finished() <= finished:
            return None
        pace = (time.monotonic() - since) / (self._finished() - finished)
        return pace * max(0, self._prepared.spec.search.trials - self._finished())

    def _update_front(self) -> None:
        spec = self._prepared.spec
        rows = pd.DataFrame(list(self._rows.values()))
        if not {*spec.objectives, *spec.constraints} <= set(rows.columns):
            return
        self._front = front_of(rows, spec.objectives, spec.constraints)
        self._hypervolume = front_hypervolume(self._front, self._prepared)

    def _summary(self) -> str:
        counts = self._counts()
        parts = [f"{self._finished()}/{self._prepared.spec.search.trials} trials"]
        if self._live:  # off a terminal lines come as a trial ends, when its successor has not started yet
            parts.append(f"{counts['running']} running")
        parts += [f"{counts[state]} {state}" for state in ("stopped", "failed") if counts[state]]
        parts.append(f"front {len(self._front)}")
        if self._hypervolume is not None:
            parts.append(f"hypervolume {self._hypervolume:.3f}")
        left = self._time_left()
        parts.append(f"{_clock(time.monotonic() - self._began)} gone")
        if left is not None:
            parts.append(f"about {_clock(left)} left")
        return ", ".join(parts)

    def _line(self, row: Mapping[str, Any]) -> str:
        facts = [f"trial {row['trial']} {row['state']}"]
        if row["state"] in ("complete", "stopped"):
            facts += [f"{name} {number(row.get(name), missing='-')}" for name in self._prepared.spec.objectives]
        else:
            facts.append(str(row.get("reason")))
        return f"{'; '.join(facts)} | {self._summary()}"

    def _start_lines(self) -> list[tuple[str, bool]]:
        """A line on each start and whether it is ready: how far it is, or its figures of the objectives."""
        name, lines = self._prepared.trials.task.start_name, []
        compared = [self._prepared.column(objective).baseline for objective in self._prepared.spec.objectives]
        for start in self._starts():
            figures = (
                {key: start.figures[key] for key in compared if key in start.figures} if start.ready else start.figures
            )
            words = ", ".join(f"{key} {number(value)}" for key, value in figures.items())
            if words:
                lines.append((f"{name}: {words}" if start.ready else f"training the {name}: {words}", start.ready))
        return lines

    def _panel(self) -> RenderableType:
        spec = self._prepared.spec
        head = Text(f"{spec.name}  ", style="bold")
        head.append(self._summary(), style="not bold")
        bar = Table.grid()  # a bare bar does not end its line
        bar.add_row(ProgressBar(total=spec.search.trials, completed=self._finished(), width=60))
        parts: list[RenderableType] = [head, bar]
        if not self._front.size:
            parts += [Text(line, style="dim") for line, _ in self._start_lines()]
        running = [row for row in self._rows.values() if row["state"] == "running" and row.get("epoch")]
        if running:
            table = Table.grid(padding=(0, 2))
            for row in running[:8]:
                place = f"epoch {row['epoch']}/{row['epochs']}"
                table.add_row(f"trial {row['trial']}", place, f"loss {number(row.get('loss'), missing='-')}")
            parts.append(table)
        if self._front.size:
            parts.append(
                front_table(
                    self._front.head(_FRONT_ROWS),
                    spec.objectives,
                    list(self._prepared.trials.distributions),
                    columns=self._prepared.columns,
                )
            )
        return Group(*parts)


def front_hypervolume(front: pd.DataFrame, prepared: Prepared) -> float | None:
    """Hypervolume of a front against the task's reference point: log10 for sizes, plain for shares.

    A front of one model of a tenth of the dense size with accuracies 1 and 1 has 1 (decade) × 1 × 1.
    """
    if prepared.reference is None:
        return None
    objectives = prepared.spec.objectives
    values = minimised(front, objectives) if len(front) else np.empty((0, len(objectives)))
    reference = np.array([prepared.reference[name] * (1 if d == "min" else -1) for name, d in objectives.items()])
    for i, name in enumerate(objectives):
        if prepared.column(name).log and objectives[name] == "min":
            values[:, i], reference[i] = np.log10(values[:, i]), np.log10(reference[i])
    return hypervolume(values, reference)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
