"""What several commands share. Everything heavy is imported inside functions, so that `--help` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pandas as pd
from rich.console import Console

from atmc_search.errors import AtmcError

RUN = click.argument("run", type=click.Path(path_type=Path), metavar="RUN")


def console() -> Console:
    """Standard output; off a terminal wide enough that tables do not wrap."""
    return Console(width=None if sys.stdout.isatty() else 160)


def check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise AtmcError(f"--device {device}: torch cannot use it ({reason}); use cpu or cuda") from None


def print_front(path: Path, rows: pd.DataFrame) -> None:
    from atmc_search.report import front_table
    from atmc_search.results import RunFolder

    spec = RunFolder.open(path).spec()
    if rows.empty:
        click.echo("the front is empty: no trial was measured within the constraints")
        return
    console().print(front_table(rows, spec.objectives, list(spec.space)))


def draw(run: Path, out: Path) -> Path:
    from atmc_search import api
    from atmc_search.report import draw_front, front_data
    from atmc_search.results import RunFolder

    spec = RunFolder.open(run).spec()
    if out.suffix not in (".png", ".svg"):
        raise AtmcError(f"--out {out}: must end in .png or .svg; rename it")
    draw_front(front_data(api.load_trials(run), spec.objectives, spec.constraints), out)
    return out
