"""The command line: thin, over `api` and `search`. A user's mistake is one line on standard error and exit code 2."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import pandas as pd
from rich.console import Console
from rich.table import Table

from atmc_search.errors import AtmcError, SpecError

if TYPE_CHECKING:
    from atmc_search.spec import Component

# Everything heavy is imported inside the commands, so that `--help` and mistakes answer at once.

_RUN = click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
_ATTACK = click.option(
    "--attack",
    metavar="NAME",
    help="fgsm, pgd, wrm, apgd_ce, apgd_t, autoattack or module:attribute.  [default: the spec's for measuring]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="atmc-search")
def cli() -> None:
    """Search for neural networks that are small, accurate and hard to fool.

    \b
    A study is a YAML file; a run is its folder under runs/. The usual order:
      atmc-search run search_spaces/digits_quickstart.yaml      search (again: goes on where it stopped)
      atmc-search front runs/digits-quickstart                  look at the Pareto front
      atmc-search choose runs/digits-quickstart --max size_bytes=2500 --best robust_accuracy
      atmc-search verify runs/digits-quickstart                 measure the front on test images
    """


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override a value of the spec, by dotted path."
)
@click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of run folders."
)
@click.option(
    "--address", default="local", show_default=True, help="Ray cluster to use; 'auto' for the one running here."
)
@click.option("--cpus", type=click.IntRange(min=1), help="Cores to use when Ray is started here.  [default: all]")
@click.option("--check", is_flag=True, help="Only check the spec, load its data and print the search space.")
def run(spec: Path, overrides: tuple[str, ...], runs: Path, address: str, cpus: int | None, check: bool) -> None:
    """Run the study in SPEC, or what is left of it.

    \b
    Results land in runs/<study>/ as they arrive: reports/, trials.parquet, front.parquet, artifacts/, front.png.
    Ctrl-C stops; the same command goes on. A finished study prints its front again. More trials:
      atmc-search run SPEC --set search.trials=200
    """
    from atmc_search.search import prepare, run_study
    from atmc_search.spec import load_study

    study = load_study(spec, _overrides(overrides))
    if check:
        _print_space(prepare(study))
        return
    result = run_study(study, runs=runs, address=address, cpus=cpus, console=Console(stderr=True))
    _print_run(result.folder.path)
    if result.hypervolume is not None:
        click.echo(f"hypervolume {result.hypervolume:.3f}")
    states = ", ".join(f"{count} {state}" for state, count in result.trials["state"].value_counts().items())
    click.echo(f"{len(result.trials)} trials ({states}), {result.ran} of them run now")
    if result.interrupted:
        click.echo(f"stopped early; go on by the same command: atmc-search run {spec}")
        sys.exit(130)


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override a value of the spec, by dotted path."
)
@click.option("--out", type=click.Path(path_type=Path), help="Artifact to write.  [default: <study>-trial.atmc]")
@click.option("--device", default="cpu", show_default=True, help="Torch device.")
@click.option("--json", "as_json", is_flag=True, help="Print the last metrics as JSON.")
def trial(spec: Path, overrides: tuple[str, ...], out: Path | None, device: str, as_json: bool) -> None:
    """Train one trial of SPEC in this process, without Ray, and write its artifact.

    \b
    Distributions that are not set take their centre (first choice, middle of a range):
      atmc-search trial search_spaces/digits_quickstart.yaml --set trial.compress.bits=4 --set trial.compress.keep=0.05
    """
    from atmc_search.spec import load_study
    from atmc_search.tasks.single import run_trial

    study = load_study(spec, _overrides(overrides))
    say = Console(stderr=True)

    def tell(text: str) -> None:
        say.print(text, highlight=False, markup=False, soft_wrap=True)

    path = out or Path(f"{study.name}-trial.atmc")
    if path.is_dir() or not path.parent.is_dir():  # said before the training, not after
        raise AtmcError(f"--out {path}: cannot be written (no such folder, or a folder itself); choose another place")
    metrics, artifact = run_trial(study, device=device, tell=tell)
    try:
        path.write_bytes(artifact)
    except OSError as error:
        raise AtmcError(f"--out {path}: cannot be written ({error.strerror}); choose another place") from None
    if as_json:
        click.echo(json.dumps(metrics, default=str))
    else:
        for name, value in metrics.items():
            shown = f"{value:.6g}" if isinstance(value, float) else value if value != "" else "none"
            click.echo(f"{name:28} {shown}")
    tell(f"artifact: {path} ({len(artifact):,} bytes)")


@cli.command()
@_RUN
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
        click.echo(json.dumps(front_records(rows), indent=1))
    elif form == "csv":
        click.echo(rows.to_csv(index=False), nl=False)
    else:
        _print_front(run, rows)


@cli.command()
@_RUN
@click.option(
    "--best", required=True, metavar="METRIC", help="What decides; min:METRIC or max:METRIC if it is no objective."
)
@click.option("--max", "upper", multiple=True, metavar="METRIC=VALUE", help="An upper bound. May be repeated.")
@click.option("--min", "lower", multiple=True, metavar="METRIC=VALUE", help="A lower bound. May be repeated.")
@click.option("--json", "as_json", is_flag=True, help="The chosen row as JSON (null when nothing fits).")
def choose(run: Path, best: str, upper: tuple[str, ...], lower: tuple[str, ...], as_json: bool) -> None:
    """Choose the trial of RUN to ship, and say why; exit code 1 when nothing fits the bounds.

    \b
      atmc-search choose runs/digits-quickstart --max size_bytes=8000 --min clean_accuracy=0.9 --best robust_accuracy
    """
    from atmc_search import api
    from atmc_search.report import front_records

    decision = api.choose(api.load_trials(run), best=best, max=_bounds(upper, "--max"), min=_bounds(lower, "--min"))
    if as_json:
        rows = [] if decision.trial is None else front_records(pd.DataFrame([decision.trial]))
        click.echo(json.dumps(rows[0] if rows else None, indent=1))
    else:
        click.echo(decision.text)
    if decision.trial is None:
        sys.exit(1)


@cli.command()
@_RUN
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
    as_json: bool,
) -> None:
    """Measure artifacts of RUN again, from their files: on test images, which no search or choice has seen.

    \b
    With --split validation the sweep's own figures are repeated, to the digit:
      atmc-search verify runs/digits-quickstart --split validation
      atmc-search verify runs/digits-quickstart --steps 50 --restarts 2
      atmc-search verify runs/digits-quickstart --attack apgd_t --checks
    """
    from atmc_search import api
    from atmc_search.results import RunFolder
    from atmc_search.tasks.remeasure import MASKING_IMAGES, remeasure

    trials = _measured(run)
    _check_device(device)
    component = _attack_component(attack, steps, restarts)
    chosen = _numbered(trials, numbers) if numbers else api.front(trials)
    folder = RunFolder.open(run)
    rows = list(remeasure(folder, chosen, split=split, attack=component, eps=eps, checks=checks, device=device))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
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
    _console().print(table)
    if rows:
        click.echo(
            f"n = {rows[0]['images']} {split} images; {_attacks_of(rows)}; recorded: by the sweep, on validation"
        )
    if checks and rows:
        click.echo(f"masking: checked on {min(rows[0]['images'], MASKING_IMAGES)} images")
        if not all(row["transfer_checked"] for row in rows):
            click.echo("the run holds no dense start of theirs, so images were not transferred from it")
    for row in rows:
        for flag, sentence in row.get("masking_findings", {}).items():
            click.echo(f"trial {row['trial']} fails {flag}: {sentence}")


@cli.command()
@_RUN
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
@click.option("--json", "as_json", is_flag=True, help="As JSON; draws only with --out.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Picture to write, .png or .svg.  [default: RUN/curves.png]"
)
def curves(
    run: Path,
    numbers: tuple[int, ...],
    eps: str | None,
    steps: str | None,
    attack: str | None,
    split: Literal["test", "validation"],
    device: str,
    as_json: bool,
    out: Path | None,
) -> None:
    """Draw and print robustness curves of RUN: robust accuracy over the attack's radius and over its steps.

    \b
    The first must fall to about 0, the second must not rise; else the attack fails, and its figures mean nothing:
      atmc-search curves runs/digits-quickstart
      atmc-search curves runs/digits-quickstart --trial 3 --eps 0,0.1,0.2,0.5 --steps 10,100 --out curves.svg
    """
    from atmc_search import api
    from atmc_search.report.curve_figure import curve_data, draw_curves
    from atmc_search.results import RunFolder
    from atmc_search.tasks.remeasure import recurve, spread

    trials = _measured(run)
    _check_device(device)
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
            attack=_attack_component(attack, None, None),
            device=device,
        )
    )
    if rows and picture is not None:
        draw_curves(curve_data(rows, title=folder.spec().name, split=split), picture)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for over in ("eps", "steps"):
        _print_curves(rows, over)
    if not rows:
        click.echo("the front is empty: no trial was measured within the constraints")
        return
    click.echo(f"robust accuracy and 95 % interval; n = {rows[0]['images']} {split} images; {_attacks_of(rows)}")
    click.echo(f"wrote {picture}")


@cli.command()
@_RUN
@click.option(
    "--out", type=click.Path(path_type=Path), help="Picture to write, .png or .svg.  [default: RUN/front.png]"
)
def report(run: Path, out: Path | None) -> None:
    """Draw the front of RUN: size against each accuracy, with intervals and the dense model.

    \b
      atmc-search report runs/digits-quickstart --out front.svg
    """
    click.echo(f"wrote {_draw(run, out or run / 'front.png')}")


@cli.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
def columns(run: Path | None) -> None:
    """Print every Parquet column: name, type, unit, meaning. With RUN, that run's sampled values as well.

    \b
      atmc-search columns runs/digits-quickstart
    """
    from atmc_search.results import ATMC_COLUMNS, STUDY_COLUMNS, RunFolder, parameter_columns
    from atmc_search.tasks import task_named

    listed = [*STUDY_COLUMNS, *ATMC_COLUMNS]
    if run is not None:
        spec = RunFolder.open(run).spec()
        listed = [*STUDY_COLUMNS, *task_named(spec.task).columns, *parameter_columns(spec.space)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("column", "type", "unit", "meaning"):
        table.add_column(name, no_wrap=name != "meaning")
    for column in listed:
        table.add_row(column.name, column.kind, column.unit, column.meaning)
    _console().print(table, highlight=False)


def main() -> None:
    """Entry point: `AtmcError` and click's own complaints are one line, exit code 2."""
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "atmc-search"
        _fail(f"{error.format_message()} (see {command} --help)")
    except AtmcError as error:
        _fail(str(error))
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)


def _console() -> Console:
    """Standard output; off a terminal wide enough that tables do not wrap."""
    return Console(width=None if sys.stdout.isatty() else 160)


def _fail(message: str) -> None:
    click.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(2)


def _check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise AtmcError(f"--device {device}: torch cannot use it ({reason}); use cpu or cuda") from None


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


def _attack_component(name: str | None, steps: int | None, restarts: int | None) -> Component | None:
    """The attack to measure with; None: each trial's own. PGD gets 20 steps unless told otherwise, as in a spec."""
    from atmc_search.attacks import ATTACKS, build_attack
    from atmc_search.registry import resolve
    from atmc_search.spec import Component

    given = {flag: value for flag, value in (("steps", steps), ("restarts", restarts)) if value is not None}
    if name is None and not given:
        return None
    kind = resolve(name or "pgd", ATTACKS, path="--attack")
    for flag, value in given.items():
        if flag not in getattr(kind, "model_fields", {flag}):
            raise AtmcError(f"--{flag} {value}: attack {name} has no {flag}; leave --{flag} out, or use pgd")
    defaults = {"steps": 20} if kind is ATTACKS["pgd"] else {}
    component = Component.model_validate({"name": name or "pgd", **defaults, **given})
    build_attack(component, path="--attack")
    return component


def _attacks_of(rows: list[Any]) -> str:
    """The attack that gave these rows, in words."""
    distinct = {json.dumps([row["attack"], row["norm"], row["eps"]]) for row in rows}
    if len(distinct) > 1:
        return "each trial under its own attack"
    settings = {key: value for key, value in rows[0]["attack"].items() if value is not None}
    name = settings.pop("name")
    shown = ", ".join(f"{key} {json.dumps(value)}" for key, value in settings.items())
    return f"attack {name}{f' ({shown})' if shown else ''}, {rows[0]['norm']} eps {rows[0]['eps']:g}"


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
    _console().print(table)
    click.echo()


def _overrides(assignments: tuple[str, ...]) -> dict[str, Any]:
    from atmc_search.spec import parse_yaml

    values = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise SpecError(f"--set {assignment!r}: needs PATH=VALUE; write e.g. --set trial.compress.bits=4")
        values[path] = parse_yaml(text, f"--set {path}")
    return values


def _bounds(assignments: tuple[str, ...], flag: str) -> dict[str, float]:
    bounds = {}
    for assignment in assignments:
        metric, equals, text = assignment.partition("=")
        try:
            bounds[metric] = float(text)
        except ValueError:
            equals = ""
        if not equals:
            raise AtmcError(f"{flag} {assignment!r}: needs METRIC=NUMBER; write e.g. {flag} size_bytes=8000")
    return bounds


def _print_run(path: Path) -> None:
    from atmc_search import api

    rows = api.front(api.load_trials(path))
    _print_front(path, rows)
    picture = f", {_draw(path, path / 'front.png').name}" if len(rows) else ""
    click.echo(f"\n{path}/: trials.parquet, front.parquet{picture}, reports/, artifacts/, spec.yaml")


def _print_front(path: Path, rows: pd.DataFrame) -> None:
    from atmc_search.report import front_table
    from atmc_search.results import RunFolder

    spec = RunFolder.open(path).spec()
    if rows.empty:
        click.echo("the front is empty: no trial was measured within the constraints")
        return
    _console().print(front_table(rows, spec.objectives, list(spec.space)))


def _draw(run: Path, out: Path) -> Path:
    from atmc_search import api
    from atmc_search.report import draw_front, front_data
    from atmc_search.results import RunFolder

    spec = RunFolder.open(run).spec()
    if out.suffix not in (".png", ".svg"):
        raise AtmcError(f"--out {out}: must end in .png or .svg; rename it")
    draw_front(front_data(api.load_trials(run), spec.objectives, spec.constraints), out)
    return out


def _print_space(prepared: Any) -> None:
    spec = prepared.spec
    click.echo(
        f"{spec.name}: {spec.search.trials} trials, sampler {spec.search.sampler.name}, fingerprint {spec.fingerprint}"
    )
    for data, splits in prepared.data.items():
        sizes = (len(splits.train.labels), len(splits.validation.labels), len(splits.test.labels))
        click.echo(f"data {data.name}: {sizes[0]:,} training, {sizes[1]:,} validation, {sizes[2]:,} test images")
    for path in spec.space:
        click.echo(f"{path:32} {prepared.column(path).meaning.removeprefix('sampled from ')}")
    for name, method in spec.methods.items():
        click.echo(
            f"method {name}: {method.meaning}; fixes " + ", ".join(f"{k} = {v}" for k, v in method.fixes.items())
        )
    click.echo("objectives " + ", ".join(f"{name} ({direction})" for name, direction in spec.objectives.items()))


if __name__ == "__main__":
    main()
