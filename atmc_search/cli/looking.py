"""`front`, `choose`, `report` and `columns`: what reads a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.table import Table

from atmc_search.cli.common import PATH, RUN, cell, console, draw, echo, print_front
from atmc_search.errors import AtmcError


@click.command()
@RUN
@click.option("--json", "form", flag_value="json", help="As JSON: a list of rows with all columns.")
@click.option("--csv", "form", flag_value="csv", help="As CSV with all columns.")
def front(run: Path, form: str | None) -> None:
    """Print the Pareto front of RUN: the trials that no other trial beats in every objective.

    \b
      atmc-search front runs/digits-quickstart
      atmc-search front runs/digits-quickstart --csv > front.csv
    """
    from atmc_search.api import runs
    from atmc_search.report import front_records

    trials = runs.load_trials(run)
    if form == "json":
        echo(json.dumps(front_records(runs.front(trials)), indent=1))
    elif form == "csv":
        echo(runs.front(trials).to_csv(index=False), nl=False)
    else:
        print_front(trials)


@click.command()
@RUN
@click.option(
    "--best",
    required=True,
    metavar="METRIC",
    help="What decides; min:METRIC or max:METRIC where its direction is unknown.",
)
@click.option(
    "--max", "upper", multiple=True, metavar="METRIC=VALUE", help="An upper bound. May be repeated, for other metrics."
)
@click.option(
    "--min", "lower", multiple=True, metavar="METRIC=VALUE", help="A lower bound. May be repeated, for other metrics."
)
@click.option("--any", "unconstrained", is_flag=True, help="Ignore the study's constraints.")
@click.option("--json", "as_json", is_flag=True, help="The chosen row as JSON (null when nothing fits).")
def choose(
    run: Path, best: str, upper: tuple[str, ...], lower: tuple[str, ...], unconstrained: bool, as_json: bool
) -> None:
    """Choose the trial of RUN to ship, and say why; exit code 1 when nothing fits the bounds.

    The study's constraints hold as well.

    \b
      atmc-search choose runs/digits-quickstart --best robust_accuracy \\
          --max size_bytes=8000 --min clean_accuracy=0.9
    """
    import pandas as pd

    from atmc_search.api import decide, runs
    from atmc_search.report import front_records

    decision = decide.choose(
        runs.load_trials(run),
        best=best,
        max=_bounds(upper, "--max"),
        min=_bounds(lower, "--min"),
        constraints={} if unconstrained else None,
    )
    if as_json:
        rows = [] if decision.trial is None else front_records(pd.DataFrame([decision.trial]))
        echo(json.dumps(rows[0] if rows else None, indent=1))
    else:
        echo(decision.text)
    if decision.trial is None:
        sys.exit(1)


@click.command()
@RUN
@click.option("--out", type=PATH, help="Picture to write, .png or .svg.  [default: RUN/front.png]")
def report(run: Path, out: Path | None) -> None:
    """Draw the front of RUN: its first minimised objective against each other, with intervals and the start.

    \b
      atmc-search report runs/digits-quickstart --out front.svg
    """
    from atmc_search.api.runs import load_trials

    echo(f"wrote {draw(load_trials(run), out or run / 'front.png')}")


@click.command()
@click.argument("run", type=PATH, required=False)
@click.option("--task", default="atmc", show_default=True, metavar="NAME", help="Without RUN: whose metrics to print.")
def columns(run: Path | None, task: str) -> None:
    """Print every Parquet column: name, type, unit, meaning. With RUN, those of its files, sampled values as well.

    \b
      atmc-search columns runs/digits-quickstart
    """
    if run is not None:
        from atmc_search.api.runs import described_columns
        from atmc_search.results import RunFolder

        listed = described_columns(RunFolder.open(run))
        if not listed:
            raise AtmcError(f"{run}: holds no reports yet; run the study first")
    else:
        from atmc_search.results import STUDY_COLUMNS
        from atmc_search.tasks import task_named

        listed = (*STUDY_COLUMNS, *task_named(task).columns)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("column", "type", "unit", "meaning"):
        table.add_column(name, no_wrap=name != "meaning")
    for column in listed:
        table.add_row(*map(cell, (column.name, column.kind, column.unit, column.meaning)))
    console().print(table, highlight=False)


def _bounds(assignments: tuple[str, ...], flag: str) -> dict[str, float]:
    bounds: dict[str, float] = {}
    for assignment in assignments:
        metric, equals, text = assignment.partition("=")
        if metric in bounds:
            raise AtmcError(f"{flag} {assignment}: {metric} has a bound of that kind already; give one of them")
        try:
            bounds[metric] = float(text)
        except ValueError:
            equals = ""
        if not equals:
            raise AtmcError(f"{flag} {assignment!r}: needs METRIC=NUMBER; write e.g. {flag} size_bytes=8000")
    return bounds
