"""What several commands share. Everything heavy is imported inside functions, so that `--help` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from atmc_search.errors import AtmcError, printable

if TYPE_CHECKING:
    import pandas as pd

    from atmc_search.spec import Component


class _PathText(click.Path):
    """A path; not an empty one, which an unset variable of a shell leaves and which would stand for this folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("'' is no path; is a variable unset?", param, ctx)
        return super().convert(value, param, ctx)


PATH = _PathText()
TRUST = click.option(
    "--trust", is_flag=True, help="Import what RUN names as module:attribute. Runs its code: trust the folder."
)
RUN = click.argument("run", type=PATH, metavar="RUN")


def echo(text: str = "", *, nl: bool = True) -> None:
    """`click.echo` for what files and tables say: control characters never reach the terminal."""
    click.echo(printable(text, keep="\n"), nl=nl)


def cell(value: object) -> Text:
    """A table's cell that says just that: rich would read brackets in a plain string as markup."""
    return Text(printable(str(value)))


def console() -> Console:
    """Standard output; off a terminal wide enough that tables do not wrap."""
    return Console(width=None if sys.stdout.isatty() else 160)


def check_device(device: str) -> None:
    """Passes if torch computes on `device` and gives the result back, which "meta" does not."""
    import torch

    try:
        float(torch.zeros(1, device=device))
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split(". ")[0].split())[:120]
        raise AtmcError(f"--device {device}: torch cannot use it ({reason}); use cpu") from None


def attack_component(name: str | None, steps: int | None, restarts: int | None) -> Component | None:
    """The attack to measure with; None: each trial's own. PGD gets 20 steps unless told otherwise, as in a spec.

    Args:
        name: an attack's name, or it with its settings as in a spec: "{name: pgd, targets: 9}".
        steps: of the attack.
        restarts: of the attack.
    """
    from atmc_search.attacks import ATTACKS, build_attack
    from atmc_search.registry import resolve, validated
    from atmc_search.spec import Component, parse_yaml

    given: dict[str, Any] = {
        flag: value for flag, value in (("steps", steps), ("restarts", restarts)) if value is not None
    }
    if name is None and not given:
        return None
    written: dict[str, Any] = {}
    if name is not None and name.lstrip().startswith("{"):
        component = validated(Component, parse_yaml(name, "--attack"), path="--attack")
        name, written = component.name, component.args
    kind = resolve(name or "pgd", ATTACKS, path="--attack")
    for flag, value in given.items():
        if flag not in getattr(kind, "model_fields", {flag}):
            raise AtmcError(f"--{flag} {value}: attack {name} has no {flag}; leave --{flag} out, or use pgd")
    defaults = {"steps": 20} if kind is ATTACKS["pgd"] else {}
    component = Component.model_validate({"name": name or "pgd", **defaults, **written, **given})
    build_attack(component, path="--attack")
    return component


def _why_empty(trials: pd.DataFrame) -> str:
    """What happened to the trials of an empty front, in words."""
    failed = trials[trials["state"] == "failed"]
    if len(failed) and len(failed) == len(trials):
        said = failed[failed["reason"].notna()]
        why = (
            f", trial {said['trial'].iloc[-1]} because: {printable(str(said['reason'].iloc[-1]))}" if len(said) else ""
        )
        return f"all {len(trials)} trials failed{why}; mend that, and run the study again with --retry-failed"
    return "no trial was measured" + (" within the constraints" if trials.attrs["constraints"] else "")


def print_front(trials: pd.DataFrame) -> pd.DataFrame:
    """Prints the front of a run's trials; returns it."""
    from atmc_search.api.runs import front
    from atmc_search.report import columns_in, front_table

    rows = front(trials)
    if rows.empty:
        echo(f"the front is empty: {_why_empty(trials)}")
    else:
        sampled = [column.name for column in columns_in(trials.attrs) if column.role == "parameter"]
        console().print(front_table(rows, trials.attrs["objectives"], sampled))
    return rows


def draw(trials: pd.DataFrame, out: Path) -> Path:
    """Draws the front of a run's trials; returns where."""
    from atmc_search.api.runs import constraint_specs
    from atmc_search.report import front_data
    from atmc_search.report.figures import draw_front

    if out.suffix not in (".png", ".svg"):
        raise AtmcError(f"--out {out}: must end in .png or .svg; rename it")
    constraints = constraint_specs(trials.attrs["constraints"])
    draw_front(front_data(trials, trials.attrs["objectives"], constraints), out)
    return out
