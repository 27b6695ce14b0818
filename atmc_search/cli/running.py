"""`run` and `trial`: what trains."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from atmc_search.cli.common import PATH, draw, echo, print_front
from atmc_search.errors import AtmcError, SpecError
from atmc_search.formatting import number, size

if TYPE_CHECKING:
    from atmc_search.results import RunFolder
    from atmc_search.search import StudyResult


@click.command()
@click.argument("spec", type=PATH)
@click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override a value of the spec, by dotted path."
)
@click.option("--runs", type=PATH, default=Path("runs"), show_default=True, help="Folder of run folders.")
@click.option(
    "--address", default="local", show_default=True, help="Ray cluster to use; 'auto' for the one running here."
)
@click.option("--cpus", type=click.IntRange(min=1), help="Cores to use when Ray is started here.  [default: all]")
@click.option("--retry-failed", is_flag=True, help="Run trials that failed in earlier runs again.")
@click.option("--check", is_flag=True, help="Only check the spec, load its data and print the search space.")
def run(
    spec: Path,
    overrides: tuple[str, ...],
    runs: Path,
    address: str,
    cpus: int | None,
    retry_failed: bool,
    check: bool,
) -> None:
    """Run the study in SPEC, or what is left of it.

    Results land in runs/<study>/ as they arrive: reports/, trials.parquet, front.parquet, artifacts/, front.png.
    Ctrl-C stops when running trials have ended their epoch; a second one stops at once. The same command continues.
    Of a finished study it prints the front again. Exit codes: 0 finished, 2 a mistake (one line says which),
    130 Ctrl-C, 143 SIGTERM.
    More trials:

    \b
      atmc-search run SPEC --set search.trials=200
    """
    from atmc_search.api.runs import load_study
    from atmc_search.search import prepare, run_study

    study = load_study(spec, _overrides(overrides))
    if check:
        _print_space(prepare(study))
        return
    again = "continue with the same command: " + shlex.join(["atmc-search", *sys.argv[1:]])
    try:
        result = run_study(
            study, runs=runs, address=address, cpus=cpus, retry_failed=retry_failed, console=Console(stderr=True)
        )
    except KeyboardInterrupt:  # while data was loaded or reports read; in a sweep it is a stop in order
        echo(again)
        raise
    try:
        _print_result(result)
    finally:
        if result.interrupted:
            echo(f"stopped early; {again}")
    if result.interrupted:
        sys.exit(128 + (result.signal or signal.SIGINT))


@click.command()
@click.argument("spec", type=PATH)
@click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override a value of the spec, by dotted path."
)
@click.option(
    "--out", type=PATH, help="Artifact to write.  [default: <study>-trial, with the suffix of the task: .atmc]"
)
@click.option("--device", default="cpu", show_default=True, help="Torch device.")
@click.option("--json", "as_json", is_flag=True, help="Print the last metrics as JSON.")
def trial(spec: Path, overrides: tuple[str, ...], out: Path | None, device: str, as_json: bool) -> None:
    """Train one trial of SPEC in this process, without Ray, and write its artifact.

    Distributions that are not set take their centre (first choice, middle of a range).

    \b
      atmc-search trial search_spaces/digits_quickstart.yaml \\
          --set trial.compress.bits=4 --set trial.compress.keep=0.05
    """
    from atmc_search.api.runs import load_study
    from atmc_search.results import write_whole
    from atmc_search.tasks import task_named
    from atmc_search.tasks.single import run_trial

    study = load_study(spec, _overrides(overrides))
    say = Console(stderr=True)

    def tell(text: str) -> None:
        say.print(text, highlight=False, markup=False, soft_wrap=True)

    path = out or Path(f"{study.name}-trial{task_named(study.task).suffix}")
    if path.is_dir() or not path.parent.is_dir():  # said before the training, not after
        raise AtmcError(f"--out {path}: cannot be written (no such folder, or a folder itself); choose another place")
    metrics, artifact = run_trial(study, device=device, tell=tell)
    try:
        write_whole(path, artifact)
    except OSError as error:
        raise AtmcError(f"--out {path}: cannot be written ({error.strerror}); choose another place") from None
    if as_json:
        echo(json.dumps(metrics, default=str))
    else:
        for name, value in metrics.items():
            text = value if isinstance(value, str | bool) else number(value, 6, missing="none")
            echo(f"{name:28} {text if text != '' else 'none'}")
    tell(f"artifact: {path} ({len(artifact):,} bytes)")


def _overrides(assignments: tuple[str, ...]) -> dict[str, Any]:
    from atmc_search.spec import parse_yaml

    values = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise SpecError(f"--set {assignment!r}: needs PATH=VALUE; write e.g. --set trial.compress.bits=4")
        values[path] = parse_yaml(text, f"--set {path}")
    return values


def _print_result(result: StudyResult) -> None:
    if result.trials.empty:
        echo(f"{result.folder.path}/: no trial has reported yet")
    else:
        _print_run(result.folder.path)
        if result.hypervolume is not None:
            echo(f"hypervolume {result.hypervolume:.3f}")
        states = ", ".join(f"{count} {state}" for state, count in result.trials["state"].value_counts().items())
        echo(f"{len(result.trials)} trials ({states}), {result.ran} of them run now")
    _print_disk(result.folder)


def _print_run(path: Path) -> None:
    from atmc_search.api.runs import load_trials

    trials = load_trials(path)
    rows = print_front(trials)
    picture = ""
    try:
        picture = f", {draw(trials, path / 'front.png').name}" if len(rows) else ""
    except AtmcError as error:  # the study is what counts
        echo(f"no picture: {error}")
    echo(f"\n{path}/: trials.parquet, front.parquet{picture}, reports/, artifacts/, spec.yaml")


def _print_disk(folder: RunFolder) -> None:
    freed = folder.freed
    if freed.files:
        echo(
            f"storage.keep_artifacts front: {freed.files} artifacts that no front needs removed, "
            f"{size(freed.size_bytes)} freed"
        )
    parts = (f"{name} {size(use.size_bytes)} ({use.files} files)" for name, use in folder.disk_use().items())
    echo("on disk: " + ", ".join(parts))


def _print_space(prepared: Any) -> None:
    spec = prepared.spec
    echo(
        f"{spec.name}: {spec.search.trials} trials, sampler {spec.search.sampler.name}, fingerprint {spec.fingerprint}"
    )
    for line in prepared.described:
        echo(line)
    for path in prepared.trials.distributions:
        echo(f"{path:32} {prepared.column(path).meaning.removeprefix('sampled from ')}")
    for name, says in prepared.trials.presets.items():
        echo(f"{prepared.trials.task.deciding[0].rpartition('.')[2]} {name}: {says}")
    echo("objectives " + ", ".join(f"{name} ({direction})" for name, direction in spec.objectives.items()))
