"""`front`, `choose`, `report` and `columns`: what reads a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.table import Table

from atmc_search.cli.common import PATH, RUN, TRUST, cell, console, draw, echo, print_front
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
    from atmc_search import api
    from atmc_search.report import front_records

    rows = api.front(api.load_trials(run))
    if form == "json":
        echo(json.dumps(front_records(rows), indent=1))
    elif form == "csv":
        echo(rows.to_csv(index=False), nl=False)
    else:
        print_front(run, rows)


@click.command()
@RUN
@click.option(
    "--best", required=True, metavar="METRIC", help="What decides; min:METRIC or max:METRIC if it is no objective."
)
@click.option(
    "--max", "upper", multiple=True, metavar="METRIC=VALUE", help="An upper bound. May be repeated, for other metrics."
)
@click.option(
    "--min", "lower", multiple=True, metavar="METRIC=VALUE", help="A lower bound. May be repeated, for other metrics."
)
@click.option("--json", "as_json", is_flag=True, help="The chosen row as JSON (null when nothing fits).")
def choose(run: Path, best: str, upper: tuple[str, ...], lower: tuple[str, ...], as_json: bool) -> None:
    """Choose the trial of RUN to ship, and say why; exit code 1 when nothing fits the bounds.

    \b
      atmc-search choose runs/digits-quickstart --best robust_accuracy \\
          --max size_bytes=8000 --min clean_accuracy=0.9
    """
    import pandas as pd

    from atmc_search import api
    from atmc_search.report import front_records

    decision = api.choose(api.load_trials(run), best=best, max=_bounds(upper, "--max"), min=_bounds(lower, "--min"))
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
    """Draw the front of RUN: size against each accuracy, with intervals and the dense model.

    \b
      atmc-search report runs/digits-quickstart --out front.svg
    """
    echo(f"wrote {draw(run, out or run / 'front.png')}")


@click.command()
@click.argument("run", type=PATH, required=False)
@TRUST
def columns(run: Path | None, trust: bool) -> None:
    """Print every Parquet column: name, type, unit, meaning. With RUN, that run's sampled values as well.

    \b
      atmc-search columns runs/digits-quickstart
    """
    from atmc_search.registry import refuse_imports
    from atmc_search.results import ATMC_COLUMNS, STUDY_COLUMNS, RunFolder, parameter_columns
    from atmc_search.tasks import task_named

    listed = [*STUDY_COLUMNS, *ATMC_COLUMNS]
    if run is not None:
        folder = RunFolder.open(run)
        spec = folder.spec()
        if not trust:
            refuse_imports({"task": spec.task}, str(folder.spec_path), "if you trust the run folder, add --trust")
        listed = [*STUDY_COLUMNS, *task_named(spec.task).columns, *parameter_columns(spec.space)]
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
