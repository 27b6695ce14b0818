"""`verify` and `curves`: what measures a run's artifacts again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from atmc_search.cli.common import PATH, RUN, TRUST, attack_component, check_device, console, echo
from atmc_search.errors import ArtifactError, AtmcError, RunError
from atmc_search.formatting import number

if TYPE_CHECKING:
    import pandas as pd

    from atmc_search.results import Column
    from atmc_search.tasks import Remeasured, Task
    from atmc_search.tasks.stored import Stored

_ATTACK = click.option(
    "--attack",
    metavar="NAME",
    help="fgsm, pgd, wrm, apgd_ce, apgd_t, autoattack, module:attribute, or with settings: '{name: pgd, targets: 9}'.  "
    "[default: the spec's for measuring]",
)


@click.command()
@RUN
@click.option("--split", metavar="NAME", help="Data to measure on: test or validation.  [default: test]")
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
    split: str | None,
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
    from atmc_search.api import runs
    from atmc_search.report import columns_in
    from atmc_search.results import RunFolder
    from atmc_search.tasks.stored import recorded, stored_artifacts, trial_space

    trials, folder = runs.load_trials(run), RunFolder.open(run)
    chosen = _numbered(trials, numbers) if numbers else runs.front(trials)
    space = trial_space(folder, trust=trust)
    measured_on = _split_of(space.task, split)
    check_device(device)
    options = {"attack": attack_component(attack, steps, restarts), "eps": eps, "checks": checks or None}
    options = {name: value for name, value in options.items() if value is not None}
    _check_options(space.task, options, steps=steps, restarts=restarts)
    found = []
    for stored in stored_artifacts(folder, space, chosen, trust=trust):
        with _named(stored.path):
            again = stored.task.remeasure(
                stored.artifact,
                stored.spec,
                stored.data,
                split=measured_on,
                options=options,
                start=stored.start,
                device=device,
                trust=trust,
            )
        found.append((stored, again))
    if as_json:
        rows = []
        for stored, again in found:
            names = ["size_bytes", *(figure.name for figure in again.figures)]
            before = {f"recorded_{name}": recorded(stored, name) for name in names if stored.row.get(name) is not None}
            rows.append({"trial": stored.row["trial"], **again.row, **before})
        echo(json.dumps(rows, indent=1))
        return
    _print_measured(found, columns_in(trials.attrs), checked=checks)


def _print_measured(found: Sequence[tuple[Stored, Remeasured]], columns: Sequence[Column], *, checked: bool) -> None:
    """A line an artifact: what was measured, with intervals, beside what the sweep recorded; then how, and warnings."""
    from atmc_search.report.labels import column_named, label
    from atmc_search.tasks.stored import recorded

    def exact(name: str, value: float | None) -> str:
        whole = value is None or abs(value) >= 10 or column_named(name, columns).kind == "int64"
        return number(value, 6, missing="") if whole else f"{value:.4f}"

    table = Table(box=None, pad_edge=False, header_style="bold")
    names = [figure.name for figure in found[0][1].figures] if found else []
    checked = checked or any(again.warnings for _, again in found)
    words = {name: label(column_named(name, columns)) for name in names}
    headings = ["trial", "bytes"]
    bounded = {figure.name for _, again in found for figure in again.figures if figure.low is not None}
    for name in names:
        headings += [words[name], *(["95 % interval"] if name in bounded else [])]
    headings += [f"recorded {words[name]}" for name in names] + (["warnings"] if checked else [])
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for stored, again in found:
        cells = [str(stored.row["trial"]), f"{len(stored.artifact):,}"]
        for figure in again.figures:
            ends = "" if figure.low is None or figure.high is None else f"{figure.low:.3f} to {figure.high:.3f}"
            cells += [exact(figure.name, figure.value), *([ends] if figure.name in bounded else [])]
        cells += [exact(name, recorded(stored, name)) for name in names]
        table.add_row(*cells, *([",".join(again.warnings) or "none"] if checked else []))
    console().print(table)
    if found:
        (_, first), ways = found[0], {again.conditions for _, again in found}
        way = "each trial under its own conditions" if len(ways) > 1 else first.conditions
        count, of = first.samples
        echo("; ".join(filter(None, (f"n = {count} {of}", way, "recorded: by the sweep, on validation"))))
        for note in dict.fromkeys(note for _, again in found for note in again.notes):
            echo(note)
    for stored, again in found:
        for name, sentence in again.warnings.items():
            echo(f"trial {stored.row['trial']} fails {name}: {sentence}")


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
@click.option("--split", metavar="NAME", help="Data to measure on: test or validation.  [default: test]")
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
    split: str | None,
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
    from atmc_search.api import runs
    from atmc_search.report import curve_data
    from atmc_search.report.figures import draw_curves
    from atmc_search.results import RunFolder
    from atmc_search.tasks.stored import stored_artifacts, trial_space

    trials, folder = runs.load_trials(run), RunFolder.open(run)
    chosen = _numbered(trials, numbers) if numbers else _spread_front(trials)
    space = trial_space(folder, trust=trust)
    measured_on = _split_of(space.task, split)
    check_device(device)
    picture = out or (None if as_json else run / "curves.png")
    if picture is not None and picture.suffix not in (".png", ".svg"):  # said before the measuring, not after
        raise AtmcError(f"--out {picture}: must end in .png or .svg; rename it")
    if picture is not None and not picture.parent.is_dir():
        raise AtmcError(f"--out {picture}: cannot be written (no such folder); choose another place")
    options = {
        "eps": None if eps is None else _list_of(float, eps, "--eps", "0,0.05,0.1"),
        "steps": None if steps is None else _list_of(int, steps, "--steps", "1,10,100"),
        "attack": attack_component(attack, None, None),
    }
    options = {name: value for name, value in options.items() if value is not None}
    rows = []
    for stored in stored_artifacts(folder, space, chosen, trust=trust):
        with _named(stored.path):
            found = stored.task.curves(
                stored.artifact,
                stored.spec,
                stored.data,
                split=measured_on,
                options=options,
                device=device,
                trust=trust,
            )
        rows.append({"trial": stored.row["trial"], **found})
    if rows and picture is not None:
        draw_curves(curve_data(rows, title=str(trials.attrs["name"]), split=measured_on), picture)
    if as_json:
        echo(json.dumps(rows, indent=1))
        return
    for over in ("eps", "steps"):
        _print_curves(rows, over)
    if not rows:
        echo("the front is empty: no trial was measured within the constraints")
        return
    echo(f"robust accuracy and 95 % interval; n = {rows[0]['images']} {measured_on} images; {_attack_of(rows)}")
    echo(f"wrote {picture}")


def _attack_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """The attack that gave these curves, in words."""
    from atmc_search.attacks import attack_in_words

    words = {attack_in_words(row["attack"], row["norm"], row["eps"]) for row in rows}
    return words.pop() if len(words) == 1 else "each trial under its own attack"


def _split_of(task: type[Task], split: str | None) -> str:
    """The data to measure on that was asked for, or the task's own choice.

    Raises:
        AtmcError: the task has none of that name.
    """
    if split is not None and split not in task.splits:
        raise AtmcError(f"--split {split!r}: is not one of {', '.join(map(repr, task.splits))}; name one of these")
    return split or task.splits[0]


def _check_options(task: type[Task], options: Mapping[str, Any], *, steps: int | None, restarts: int | None) -> None:
    """Passes if the task's `remeasure` knows what was asked for.

    Raises:
        AtmcError: names the option.
    """
    given = {"--steps": steps, "--restarts": restarts}
    words = [*(name for name, value in given.items() if value is not None), *(f"--{name}" for name in options)]
    unknown = [name for name in options if name not in task.remeasure_options]
    if unknown:
        flag = words[0] if unknown[0] == "attack" else f"--{unknown[0]}"
        known = ", ".join(f"--{name}" for name in task.remeasure_options) or "only --split"
        raise AtmcError(f"{flag}: has no meaning for artifacts of {task.__name__}, which take {known}; remove it")


def _spread_front(trials: pd.DataFrame) -> pd.DataFrame:
    """Up to four trials of the front, from one end to the other."""
    from atmc_search.api import runs
    from atmc_search.report.curves import spread

    front = runs.front(trials)
    return front.iloc[spread(len(front))]


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Puts what an artifact is called before what is wrong with it."""
    try:
        yield
    except (ArtifactError, RunError) as error:
        raise type(error)(f"{path}: {error}") from None


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
