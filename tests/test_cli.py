"""The command line: every mistake is one line and exit code 2, and what a command prints is what it promises."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
import yaml
from shell import Outcome, Run, one_line, program

import atmc_search
from atmc_search import cli
from atmc_search.api.runs import load_study
from atmc_search.results import STUDY_COLUMNS, RunFolder, parameter_columns
from atmc_search.tasks.atmc.columns import ATMC_COLUMNS

SPEC: dict[str, Any] = {
    "name": "typed",
    "trial": {
        "data": {"name": "digits", "train_size": 256, "validation_size": 100, "test_size": 50},
        "model": {"name": "small_cnn", "width": 4},
        "threat": {"norm": "linf", "eps": 0.1},
        "dense": {"epochs": 1, "attack": {"name": "pgd", "steps": 1}},
        "train": {"epochs": 1, "lr": {"log_uniform": [0.01, 0.04]}, "attack": {"name": "pgd", "steps": 1}},
        "compress": {"keep": {"uniform": [0.1, 0.9]}, "bits": {"choice": [4, 8]}},
        "evaluate": {"attack": {"name": "pgd", "steps": 2}},
    },
    "constraints": {"clean_accuracy": {"min": 0.5}},
    "search": {"trials": 4},
}
COMMANDS = list(cli.cli.commands)


@pytest.fixture
def atmc(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`atmc("front", run)`: the program in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return program(capsys, monkeypatch)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "typed.yaml"
    path.write_text(yaml.safe_dump(SPEC, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, spec: Path) -> Path:
    """A run whose artifacts are not there: enough for all but `verify`."""
    study = load_study(spec)
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "typed")
    folder.create(study)
    columns = (*STUDY_COLUMNS, *ATMC_COLUMNS, *parameter_columns(study.distributions))
    figures = [(1000, 0.90, 0.50), (500, 0.80, 0.40), (2000, 0.95, 0.60), (900, 0.30, 0.55)]
    for number, (size, clean, robust) in enumerate(figures):
        row: dict[str, Any] = {"trial": number, "state": "complete", "reason": "", "epoch": 1, "epochs": 1}
        row |= {"trial.train.lr": 0.02, "trial.compress.keep": 0.1 * (number + 1), "trial.compress.bits": 4}
        metrics = {"size_bytes": size, "clean_accuracy": clean, "robust_accuracy": robust, "dense_size_bytes": 15_000}
        folder.append({**row, **metrics, "artifact": f"artifacts/{number:05d}.atmc"}, columns, number)
    folder.append({**row, "trial": 4, "state": "failed", "reason": "diverged, [red] and all"}, columns, 4)
    return folder.path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep"], "No such command 'sweep'"),
        (["run"], "Missing argument 'SPEC'"),
        (["run", "SPEC", "--trials", "3"], "No such option"),
        (["run", "SPEC", "more"], "unexpected extra argument"),
        (["run", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["run", "."], ".: cannot be read"),
        (["run", "BAD"], "bad.yaml:3: not readable as YAML"),
        (["run", "EMPTY"], "is no mapping"),
        (["run", "SPEC", "--set", "search.trials"], "--set 'search.trials': needs PATH=VALUE"),
        (["run", "SPEC", "--set", "=3"], "needs PATH=VALUE"),
        (["run", "SPEC", "--set", "search.trials=[1"], "--set search.trials:"),
        (["run", "SPEC", "--set", "search.trials=many"], "search.trials = 'many'"),
        (["run", "SPEC", "--set", "search.trials=0"], "search.trials = 0"),
        (["run", "SPEC", "--set", "search.trial=3"], "did you mean 'trials'"),
        (["run", "SPEC", "--set", "name.x=3"], "name.x: does not lead into a section"),
        (["run", "SPEC", "--set", "name=a/b"], "name = 'a/b'"),
        (["run", "SPEC", "--set", "trial.compress.keep={uniform: [0.9, 0.1]}"], "did you mean [0.1, 0.9]?"),
        (["run", "SPEC", "--set", "trial.data.name=mnits"], "trial.data.name = 'mnits': unknown name"),
        (["run", "SPEC", "--set", "trial.data.root=/nowhere"], "trial.data.root"),
        (["run", "SPEC", "--set", "trial.compress.keep=0.000001"], "raise it to"),
        (["run", "SPEC", "--set", "constraints.size_bytes.max=1"], "impossible, the least it can be is"),
        (["run", "SPEC", "--set", "objectives.speed=max"], "objectives.speed: not a metric"),
        (["run", "SPEC", "--set", "task=json:loads"], "task = 'json:loads'"),
        (["run", "SPEC", "--cpus", "0"], "--cpus"),
        (["run", "SPEC", "--runs", "FILE"], "cannot be written"),
        (["run", "SPEC", "--runs", "RUNS", "--set", "search.seed=5"], "holds another study (fingerprint"),
        (["trial", "SPEC", "--device", "abacus"], "--device abacus: torch cannot use it"),
        (["trial", "SPEC", "--out", "no/such/folder/x.atmc"], "--out no/such/folder/x.atmc: cannot be written"),
        (["trial", "SPEC", "--out", "."], "--out .: cannot be written"),
        (["trial", "SPEC", "--set", "trial.model.name=resnet"], "trial.model.name = 'resnet'"),
        (["front", "nowhere"], "nowhere: no such folder"),
        (["front", "."], ".: holds no spec.yaml"),
        (["front", "FRESH"], "holds no reports yet"),
        (["front", "RUN", "--xml"], "No such option"),
        (["choose", "RUN"], "Missing option '--best'"),
        (["choose", "RUN", "--best", "loss"], "write max:loss"),
        (["choose", "RUN", "--best", "max:speed"], "'speed': not a metric"),
        (["choose", "RUN", "--best", "size_bytes", "--max", "size_bytes"], "--max 'size_bytes': needs METRIC=NUMBER"),
        (["choose", "RUN", "--best", "size_bytes", "--min", "size_bytes=big"], "--min 'size_bytes=big': needs"),
        (["choose", "RUN", "--best", "size_bytes", "--max", "size_bytes=nan"], "finite"),
        (["choose", "RUN", "--best", "size_bytes", "--max", "size=5"], "did you mean 'size_bytes'"),
        (["verify", "RUN", "--trial", "9"], "--trial 9: no such trial; there are 0 to 4"),
        (["verify", "RUN", "--trial", "-1"], "--trial -1: no such trial"),
        (["verify", "RUN", "--trial", "two"], "'two' is not a valid integer"),
        (["verify", "RUN", "--trial", "0"], "the artifact of trial 0 is missing"),
        (["verify", "RUN", "--trial", "4"], "the artifact of trial 4 is missing"),
        (["verify", "RUN", "--split", "train"], "--split 'train': is not one of 'test', 'validation'"),
        (["verify", "RUN", "--device", "abacus"], "--device abacus: torch cannot use it"),
        (["report", "RUN", "--out", "front.bmp"], "must end in .png or .svg"),
        (["report", "RUN", "--out", "no/such/folder/front.png"], "no/such/folder/front.png: cannot be written"),
        (["columns", "nowhere"], "nowhere: no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(atmc: Run, spec: Path, run: Path, tmp_path: Path, words: list[str], said: str) -> None:
    for name, text in (("bad.yaml", "name: x\ntrial: [1\n"), ("empty.yaml", ""), ("file", "")):
        (tmp_path / name).write_text(text)
    fresh = RunFolder(tmp_path / "fresh")
    fresh.create(load_study(spec))
    places = {"SPEC": spec, "RUN": run, "RUNS": run.parent, "FRESH": fresh.path}
    places |= {"BAD": tmp_path / "bad.yaml", "EMPTY": tmp_path / "empty.yaml", "FILE": tmp_path / "file"}
    before = sorted(tmp_path.rglob("*"))
    assert said in one_line(atmc(*[places.get(word, word) for word in words]))
    assert sorted(tmp_path.rglob("*")) == before  # and nothing was left behind


def test_a_damaged_run_is_one_line(atmc: Run, run: Path, tmp_path: Path, spec: Path) -> None:
    folder = RunFolder(tmp_path / "typed")
    folder.create(load_study(spec))
    (folder.reports / "00000000.parquet").write_bytes(b"junk")
    assert "00000000.parquet (not readable as Parquet: " in one_line(atmc("front", folder.path))
    (folder.reports / "00000000.parquet").write_bytes((run / "reports" / "00000000.parquet").read_bytes())
    folder.spec_path.write_text("name: [")
    assert "spec.yaml:1: not readable as YAML" in one_line(atmc("front", folder.path))


def test_the_program_itself_ends_without_a_traceback(spec: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "atmc_search", "run", str(spec), "--set", "search.trials=none"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    one_line(Outcome(done.returncode, done.stdout, done.stderr))


def test_a_reader_that_goes_away_is_no_error(run: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "atmc_search", "front", str(run), "--csv"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    finally:
        os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 1  # click's own way with a broken pipe


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(atmc: Run, command: str) -> None:
    for flag in ("--help", "-h"):
        outcome = atmc(command, flag)
        assert outcome.code == 0
        assert outcome.err == ""
        assert re.search(rf"^ +atmc-search {command} \S+", outcome.out, re.MULTILINE)


def test_every_option_is_explained() -> None:
    for name, command in cli.cli.commands.items():
        for option in command.params:
            assert isinstance(option, click.Argument) or (isinstance(option, click.Option) and option.help), (
                name,
                option,
            )


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_the_program_says_what_it_can_do(atmc: Run, words: list[str]) -> None:
    outcome = atmc(*words)
    assert outcome.code == (0 if words else 2)
    assert all(command in outcome.out for command in COMMANDS)


def test_version(atmc: Run) -> None:
    outcome = atmc("--version")
    assert outcome.code == 0
    assert atmc_search.__version__ in outcome.out


def test_columns_prints_every_column(atmc: Run, run: Path) -> None:
    outcome = atmc("columns")
    rows = {line.split()[0]: line for line in outcome.out.splitlines() if line.strip()}
    for column in [*STUDY_COLUMNS, *ATMC_COLUMNS]:
        assert column.kind in rows[column.name]
        assert column.meaning[:40] in rows[column.name]
    assert "trial.compress.keep" not in rows
    assert "trial.compress.keep " in atmc("columns", run).out


def test_check_prints_the_space_and_runs_nothing(atmc: Run, spec: Path, tmp_path: Path) -> None:
    outcome = atmc("run", spec, "--check", "--set", "search.trials=7")
    assert outcome.code == 0
    assert "typed: 7 trials, sampler tpe" in outcome.out
    assert "256 training, 100 validation, 50 test images" in outcome.out
    assert re.search(r"trial\.train\.lr +\[0\.01, 0\.04\] on a log scale", outcome.out)
    assert re.search(r"trial\.compress\.bits +\{4, 8\}", outcome.out)
    assert "size_bytes (min), clean_accuracy (max), robust_accuracy (max)" in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_front(atmc: Run, run: Path) -> None:
    printed = atmc("front", run)
    assert printed.code == 0
    assert [line.split()[0] for line in printed.out.splitlines() if line[:6].strip().isdigit()] == ["1", "0", "2"]

    rows = json.loads(atmc("front", run, "--json").out)
    assert [row["trial"] for row in rows] == [1, 0, 2]
    assert rows[0]["size_bytes"] == 500
    assert rows[0]["loss"] is None

    table = pd.read_csv(io.StringIO(atmc("front", run, "--csv").out))
    assert table["trial"].tolist() == [1, 0, 2]
    assert table["robust_accuracy"].tolist() == [0.4, 0.5, 0.6]
    assert list(table.columns) == list(rows[0]) == list(atmc_search.load_trials(run).columns)


def test_an_empty_front_is_said(atmc: Run, spec: Path, tmp_path: Path) -> None:
    study = load_study(spec)
    folder = RunFolder(tmp_path / "typed")
    folder.create(study)
    columns = (*STUDY_COLUMNS, *ATMC_COLUMNS, *parameter_columns(study.distributions))
    folder.append({"trial": 0, "state": "failed", "reason": "KeyError: 'x'"}, columns, 0)
    said = atmc("front", folder.path).out
    assert "the front is empty: all 1 trials failed, trial 0 because: KeyError: 'x'; mend that, and run" in said
    assert json.loads(atmc("front", folder.path, "--json").out) == []
    assert pd.read_csv(io.StringIO(atmc("front", folder.path, "--csv").out)).empty
    assert atmc("report", folder.path).code == 0


def test_choose(atmc: Run, run: Path) -> None:
    words: Sequence[object] = ("choose", run, "--best", "robust_accuracy", "--max", "size_bytes=1500")
    outcome = atmc(*words, "--min", "clean_accuracy=0.5")
    assert outcome.code == 0
    assert outcome.out.startswith("trial 0: size_bytes 1,000")
    assert "next best: trial 1" in outcome.out
    assert "within size_bytes <= 1,500 and clean_accuracy >= 0.5 and the study's constraints (clean" in outcome.out
    assert json.loads(atmc(*words, "--json").out)["trial"] == 0  # 3 is outside the study's constraint
    chosen = json.loads(atmc(*words, "--any", "--json").out)
    assert chosen["trial"] == 3
    assert chosen["artifact"] == "artifacts/00003.atmc"


def test_choose_that_finds_nothing_says_what_to_relax(atmc: Run, run: Path) -> None:
    words: Sequence[object] = ("choose", run, "--best", "robust_accuracy", "--max", "size_bytes=400")
    outcome = atmc(*words)
    assert outcome.code == 1
    assert "raise --max size_bytes from 400 to 500 (by 100): then trial 1" in outcome.out
    outcome = atmc(*words, "--json")
    assert outcome.code == 1
    assert json.loads(outcome.out) is None


def test_report_draws(atmc: Run, run: Path, tmp_path: Path) -> None:
    outcome = atmc("report", run, "--out", tmp_path / "front.svg")
    assert outcome.code == 0
    assert outcome.out.split() == ["wrote", str(tmp_path / "front.svg")]
    assert "<svg" in (tmp_path / "front.svg").read_text()
    assert atmc("report", run).code == 0
    assert (run / "front.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_drawn_does_not_make_a_failure_of_a_finished_study(
    atmc: Run, run: Path, spec: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "runs" / "typed")
    (tmp_path / "runs" / "typed" / "front.png").unlink(missing_ok=True)
    (tmp_path / "runs" / "typed" / "front.png").mkdir()
    outcome = atmc("run", spec, "--set", "search.trials=4")
    assert outcome.code == 0, outcome.err
    assert "no picture: runs/typed/front.png: cannot be written (it is a folder)" in outcome.out
    assert "5 trials (4 complete, 1 failed), 0 of them run now" in outcome.out


def test_trial_from_spec_to_model(atmc: Run, spec: Path, tmp_path: Path) -> None:
    outcome = atmc("trial", spec, "--set", "trial.compress.bits=8", "--out", "one.atmc")
    assert outcome.code == 0
    path = tmp_path / "one.atmc"
    length = path.stat().st_size
    assert f"artifact: one.atmc ({length:,} bytes)" in outcome.err
    printed = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in outcome.out.splitlines()}
    assert printed["size_bytes"] == f"{length:,}"
    assert "trial.compress.keep = 0.5" in outcome.err  # the centre
    assert "trial.train.lr = 0.02" in outcome.err  # the geometric centre
    assert "trial.compress.bits" not in outcome.err  # set, so no longer sampled
    assert not atmc_search.load_artifact(path).training


def test_trial_as_json_under_its_own_name(atmc: Run, spec: Path, tmp_path: Path) -> None:
    outcome = atmc("trial", spec, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["size_bytes"] == (tmp_path / "typed-trial.atmc").stat().st_size


def test_settings_lists_what_a_spec_can_say(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["atmc-search", "settings", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 0
        return capsys.readouterr().out

    everything = said()
    for setting in ("search.trials", "trial.compress.bit_allocation", "attack pgd: targets", "method atmc_mixed"):
        assert setting in everything
    assert "trial.compress.keep" in said("compress")
    of_al0 = " ".join(said("method").split("method al0")[1].split("method alr")[0].split())
    assert "fixes compress.factors = 'none'" in of_al0
    assert "by default train.lr = 0.05" in of_al0
    assert "compress.codebook =" not in of_al0  # which it does not use
    assert "trial.train.lr" not in said("compress")
    assert "required" in next(line for line in everything.splitlines() if line.startswith("trial.train.epochs"))
