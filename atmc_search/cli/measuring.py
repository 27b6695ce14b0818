"""`verify` and `curves`: what measures a run's artifacts again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.table import Table

from atmc_search.cli.common import (
    PATH,
    RUN,
    TRUST,
    attack_component,
    attacks_of,
    check_device,
    check_radius,
    console,
    echo,
)
from atmc_search.errors import AtmcError

if TYPE_CHECKING:
    import pandas as pd

_ATTACK = click.option(
    "--attack",
    metavar="NAME",
    help="fgsm, pgd, wrm, apgd_ce, apgd_t, autoattack, module:attribute, or with settings: '{name: pgd, targets: 9}'.  "
    "[default: the spec's for measuring]",
)


@click.command()
@RUN
@click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="Images to measure on.",
)
@click.option(
    "--trial", "numbers", type=int, multiple=True, help="Only this trial; may be repeated.  [default: the front]"
)
@_ATTACK
@click.option("--steps", type=click.IntRange(min=1), help="Steps of the attack.  [without --attack: of pgd]")
@click.option("--restarts", type=click.IntRange(min=1), help="Random starts of the attack.  [without --attack: of pgd]")
@click.option("--eps", type=float, help="Another radius than the study's, in the same norm.")
@click.option("--checks", is_flag=True, help="Look for gradient masking too: signs that the attack fails.")
@click.option("--device", default="cpu", show_default=True, help="Torch device.")
@TRUST
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def verify(
    run: Path,
    split: Literal["test", "validation"],
    numbers: tuple[int, ...],
    attack: str | None,
    steps: int | None,
    restarts: int | None,
    eps: float | None,
    checks: bool,
    device: str,
    trust: bool,
    as_json: bool,
) -> None:
    """Measure artifacts of RUN again, from their files: on test images, which no search or choice has seen.

    With --split validation the sweep's own figures are repeated, to the digit on the sweep's kind of device.

    \b
      atmc-search verify runs/digits-quickstart --split validation
      atmc-search verify runs/digits-quickstart --steps 50 --restarts 2
      atmc-search verify runs/digits-quickstart --attack apgd_t --checks
    """
    from atmc_search import api
    from atmc_search.results import RunFolder
    from atmc_search.spec.paths import value_at
    from atmc_search.tasks.remeasure import MASKING_IMAGES, remeasure

    trials = _measured(run)
    check_device(device)
    component = attack_component(attack, steps, restarts)
    chosen = _numbered(trials, numbers) if numbers else api.front(trials)
    folder = RunFolder.open(run)
    if eps is not None and (norm := value_at(folder.spec().trial, "threat.norm")) in (None, "linf"):
        check_radius(eps, norm or "linf")
    measured = remeasure(
        folder, chosen, split=split, attack=component, eps=eps, checks=checks, device=device, trust=trust
    )
    rows = list(measured)
    if as_json:
        echo(json.dumps(rows, indent=1))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (
        "trial",
        "bytes",
        "clean",
        "95 % interval",
        "robust",
        "95 % interval",
        "recorded clean",
        "recorded robust",
        *(["masking"] if checks else []),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["trial"]),
            f"{row['size_bytes']:,}",
            f"{row['clean_accuracy']:.4f}",
            "{:.3f} to {:.3f}".format(*row["clean_interval"]),
            f"{row['robust_accuracy']:.4f}",
            "{:.3f} to {:.3f}".format(*row["robust_interval"]),
            f"{row['recorded_clean_accuracy']:.4f}",
            f"{row['recorded_robust_accuracy']:.4f}",
            *([row["masking_flags"] or "none"] if checks else []),
        )
    console().print(table)
    if rows:
        echo(f"n = {rows[0]['images']} {split} images; {attacks_of(rows)}; recorded: by the sweep, on validation")
    if checks and rows:
        echo(f"masking: checked on {min(rows[0]['images'], MASKING_IMAGES)} images")
        if not all(row["transfer_checked"] for row in rows):
            echo("the run holds no dense start of theirs, so images were not transferred from it")
    for row in rows:
        for flag, sentence in row.get("masking_findings", {}).items():
            echo(f"trial {row['trial']} fails {flag}: {sentence}")


@click.command()
@RUN
@click.option(
    "--trial",
    "numbers",
    type=int,
    multiple=True,
    help="Only this trial; may be repeated.  [default: up to four of the front, smallest to largest]",
)
@click.option("--eps", metavar="E,E,...", help="Radii.  [default: 0 to 4 times the study's]")
@click.option("--steps", metavar="N,N,...", help="Numbers of steps, at the study's eps.  [default: 1,2,5,10,20,50]")
@_ATTACK
@click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="Images to measure on.",
)
@click.option("--device", default="cpu", show_default=True, help="Torch device.")
@TRUST
@click.option("--json", "as_json", is_flag=True, help="As JSON; draws only with --out.")
@click.option("--out", type=PATH, help="Picture to write, .png or .svg.  [default: RUN/curves.png]")
def curves(
    run: Path,
    numbers: tuple[int, ...],
    eps: str | None,
    steps: str | None,
    attack: str | None,
    split: Literal["test", "validation"],
    device: str,
    trust: bool,
    as_json: bool,
    out: Path | None,
) -> None:
    """Draw and print robustness curves of RUN: robust accuracy over the attack's radius and over its steps.

    The first must fall to about 0, the second must not rise; else the attack fails, and its figures mean nothing.

    \b
      atmc-search curves runs/digits-quickstart
      atmc-search curves runs/digits-quickstart --trial 3 --eps 0,0.1,0.5 \\
          --steps 10,100 --out curves.svg
    """
    from atmc_search import api
    from atmc_search.report import curve_data, draw_curves
    from atmc_search.results import RunFolder
    from atmc_search.tasks.remeasure import recurve, spread

    trials = _measured(run)
    check_device(device)
    picture = out or (None if as_json else run / "curves.png")
    if picture is not None and picture.suffix not in (".png", ".svg"):  # said before the measuring, not after
        raise AtmcError(f"--out {picture}: must end in .png or .svg; rename it")
    if picture is not None and not picture.parent.is_dir():
        raise AtmcError(f"--out {picture}: cannot be written (no such folder); choose another place")
    chosen = _numbered(trials, numbers) if numbers else spread(api.front(trials))
    folder = RunFolder.open(run)
    rows = list(
        recurve(
            folder,
            chosen,
            split=split,
            eps=None if eps is None else _list_of(float, eps, "--eps", "0,0.05,0.1"),
            steps=None if steps is None else _list_of(int, steps, "--steps", "1,10,100"),
            attack=attack_component(attack, None, None),
            device=device,
            trust=trust,
        )
    )
    if rows and picture is not None:
        draw_curves(curve_data(rows, title=folder.spec().name, split=split), picture)
    if as_json:
        echo(json.dumps(rows, indent=1))
        return
    for over in ("eps", "steps"):
        _print_curves(rows, over)
    if not rows:
        echo("the front is empty: no trial was measured within the constraints")
        return
    echo(f"robust accuracy and 95 % interval; n = {rows[0]['images']} {split} images; {attacks_of(rows)}")
    echo(f"wrote {picture}")


def _measured(run: Path) -> pd.DataFrame:
    """The trials of a run whose task measures what `verify` and `curves` measure again."""
    from atmc_search import api

    trials = api.load_trials(run)
    absent = [name for name in ("size_bytes", "clean_accuracy", "robust_accuracy") if name not in trials]
    if absent:
        raise AtmcError(f"{run}: its task measures no {absent[0]}, so there is nothing to repeat; name a run of atmc")
    return trials


def _numbered(trials: pd.DataFrame, numbers: tuple[int, ...]) -> pd.DataFrame:
    unknown = set(numbers) - set(trials["trial"])
    if unknown:
        raise AtmcError(f"--trial {min(unknown)}: no such trial; there are 0 to {trials['trial'].max()}")
    return trials[trials["trial"].isin(numbers)]


def _list_of(kind: type[float] | type[int], text: str, flag: str, example: str) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        words = "whole numbers" if kind is int else "numbers"
        raise AtmcError(f"{flag} {text!r}: needs {words} with commas between; write e.g. {flag} {example}") from None


def _print_curves(rows: list[Any], over: str) -> None:
    """One line a radius or number of steps, one column a trial."""
    points = [{point[over]: point for point in row[f"by_{over}"]} for row in rows]
    at = sorted({value for one in points for value in one})
    if not at:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(over, justify="right", no_wrap=True)
    for row in rows:
        table.add_column(f"trial {row['trial']}, {row['size_bytes']:,} bytes", justify="right", no_wrap=True)
    for value in at:
        cells = [
            "{:.4f} ({:.3f} to {:.3f})".format(one[value]["robust_accuracy"], *one[value]["robust_interval"])
            if value in one
            else ""
            for one in points
        ]
        table.add_row(f"{value:g}", *cells)
    console().print(table)
    echo()
