"""Run folders that are none, are damaged, or say what no study of ours says: one line, and the folder stays as it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from folders import respecified, run_folder
from refusals import DOCUMENT, Case, case, document, refused
from shell import Run


def spoilt(name: str, content: bytes) -> Any:
    """A good run of which one file says something else."""
    return lambda folder: (run_folder(folder) / name).write_bytes(content)


def emptied(folder: Path) -> None:
    for path in (run_folder(folder) / "reports").iterdir():
        path.unlink()


def replaced_by_folder(folder: Path) -> None:
    spec = run_folder(folder) / "spec.yaml"
    spec.unlink()
    spec.mkdir()


def of_another_study(folder: Path) -> None:
    """The folder of a study of the same name, and its owner's spec."""
    respecified(folder, ("search.seed", 1))
    (folder / "runs").mkdir()
    (folder / "run").rename(folder / "runs" / "bad")
    (folder / "spec.yaml").write_text(yaml.safe_dump(DOCUMENT))


def damaged_below_runs(folder: Path) -> None:
    of_another_study(folder)
    (folder / "runs" / "bad" / "spec.yaml").write_text("name: [")


PLAIN = [("trial.train.lr", 0.02), ("trial.compress.keep", 0.1), ("trial.compress.bits", 4)]
LAUGH = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))])
READERS = ["front run", "choose run --best size_bytes", "verify run", "curves run", "report run", "columns run"]

CASES = [
    *(case(f"missing-{words.split()[0]}", words, "run", "no such folder", "give a run's folder") for words in READERS),
    case("a-file", "front run", "run", "no such folder", "give a run's folder", make=lambda f: (f / "run").touch()),
    case("the-folder-above", "front .", ".", "holds no spec.yaml", "give a run's folder", make=run_folder),
    case("an-empty-folder", "verify run", "run", "holds no spec.yaml", "give a run's folder",
         make=lambda folder: (folder / "run").mkdir()),
    case("the-name-of-a-study", "front bad", "bad", "no such folder", "runs/<study>", make=run_folder),
    case("no-reports", "front run", "run", "no reports yet", "run the study first", make=emptied),
    case("no-folder-of-reports", "choose run --best size_bytes", "run", "no reports yet", "run the study first",
         make=lambda folder: shutil.rmtree(run_folder(folder) / "reports")),
    # its spec.yaml
    case("spec-is-a-folder", "front run", "run", "holds no spec.yaml", "give a run's folder", make=replaced_by_folder),
    case("spec-is-empty", "front run", "spec.yaml", "no mapping", "starts with", make=spoilt("spec.yaml", b"")),
    case("spec-is-torn", "report run", "spec.yaml:1", "not readable as YAML", "mend", make=spoilt("spec.yaml", b"a: [")),
    case("spec-is-binary", "verify run", "spec.yaml", "not UTF-8", "YAML", make=spoilt("spec.yaml", b"\x89PNG\xff")),
    case("spec-is-huge", "front run", "spec.yaml", "larger than 1 MiB", "short", make=spoilt("spec.yaml", b"#" * (2 << 20))),
    case("spec-is-a-bomb", "front run", "20,000 values", "not readable", "flat", make=spoilt("spec.yaml", LAUGH.encode())),
    case("spec-is-an-object", "front run", "python/object", "could not determine a constructor", "mend",
         make=spoilt("spec.yaml", b"name: !!python/object/apply:os.system ['touch gone']")),
    case("spec-of-a-later-release", "verify run", "trial.compress.magic", "unknown key", "known",
         make=lambda folder: respecified(folder, ("trial.compress.magic", 3))),
    case("spec-named-to-climb", "front run", "'../../up'", "names a folder", "use letters",
         make=lambda folder: respecified(folder, ("name", "../../up"))),
    case("spec-names-an-objective-nobody-reports", "front run", "'speed'", "no such column", "known|did you mean",
         make=lambda folder: respecified(folder, ("objectives.speed", "max"))),
    case("spec-bounds-what-nobody-reports", "report run", "'speed'", "no such column", "known|did you mean",
         make=lambda folder: respecified(folder, ("constraints.speed.max", 1))),
    case("spec-samples-what-no-report-has", "front run", "'trial.train.momentum'", "no column", "move it away",
         make=lambda folder: respecified(folder, *PLAIN, ("trial.train.momentum", {"uniform": [0.1, 0.9]}))),
    case("spec-samples-more-than-reports-have", "verify run", "'trial.train.momentum'", "no column", "run the study again",
         make=lambda folder: respecified(folder, ("trial.train.momentum", {"uniform": [0.1, 0.9]}))),
    case("spec-without-objectives", "front run", "run/spec.yaml", "names no objectives", "add those",
         make=lambda folder: (run_folder(folder) / "spec.yaml").write_text(yaml.safe_dump(DOCUMENT))),
    case("spec-with-other-choices", "front run", "trial.compress.bits is 4", r"not sampled from \{5, 6\}", "move them away",
         make=lambda folder: respecified(folder, ("trial.compress.bits", {"choice": [5, 6]}))),
    case("data-that-is-not-there", "verify run", "/nowhere", "come with", "remove|leave",
         make=lambda folder: respecified(folder, ("trial.data.root", "/nowhere"))),
    # what it would have imported
    case("a-task-of-its-own", "verify run", "'stranger:Task'", "would import that code", "add --trust",
         make=lambda folder: respecified(folder, ("task", "stranger:Task"))),
    case("data-of-its-own", "verify run", "'stranger:load'", "would import that code", "add --trust",
         make=lambda folder: respecified(folder, ("trial.data", {"name": "stranger:load"}))),
    case("an-attack-of-its-own", "curves run", "'stranger:Attack'", "would import that code", "add --trust",
         make=lambda folder: respecified(folder, ("trial.evaluate.attack", {"name": "stranger:Attack"}))),
    # running into it
    case("run-into-another-study", "run spec.yaml", "runs/bad", "holds another study", "another name, or move",
         make=of_another_study),
    case("run-into-a-damaged-one", "run spec.yaml", "spec.yaml:1", "not readable as YAML", "mend", make=damaged_below_runs),
]  # fmt: skip


@pytest.mark.parametrize("bad", CASES)
def test_a_bad_run_folder_is_refused(atmc: Run, tmp_path: Path, bad: Case) -> None:
    refused(atmc, tmp_path, bad)


@pytest.mark.parametrize(
    "change",
    [
        ("trial.compress.magic", 3),  # of a later release
        ("trial.train.momentum", {"uniform": [0.1, 0.9]}),  # which no trial of its task uses, for all we know
        ("task", "stranger:Task"),
    ],
    ids=lambda change: change[0],
)
@pytest.mark.parametrize("words", [*READERS[:2], *READERS[4:]])
def test_what_reads_tables_asks_no_task(atmc: Run, tmp_path: Path, words: str, change: tuple[str, object]) -> None:
    respecified(tmp_path, change)
    outcome = atmc(*words.split())
    assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.parametrize("words", [*READERS, "verify run --trial 0 --steps 1"])
def test_the_run_folder_that_the_cases_are_made_of_is_good(atmc: Run, tmp_path: Path, words: str) -> None:
    run_folder(tmp_path)
    assert yaml.safe_load((tmp_path / "run" / "spec.yaml").read_text())["name"] == document()["name"]
    outcome = atmc(*words.split())
    assert (outcome.code, outcome.err) == (0, "")
