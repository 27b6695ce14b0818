"""What the tables of bad input share: a case, a folder to try it in, and what every refusal has to be.

A case's words are given to the program in a folder that holds what `make` put there. To add one: a line in the table of
its subject, with the value, the rule and the remedy that its message must name (regular expressions, ignoring case).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from shell import Run, one_line

from atmc_search.spec.paths import remove_at, set_at

DOCUMENT: dict[str, Any] = {
    "name": "bad",
    "trial": {
        "data": {"name": "digits", "train_size": 100, "validation_size": 50, "test_size": 50},
        "model": {"name": "mlp", "hidden": [8]},
        "threat": {"norm": "linf", "eps": 0.1},
        "dense": {"epochs": 1, "attack": {"name": "fgsm"}},
        "train": {"epochs": 1, "lr": {"log_uniform": [0.01, 0.04]}, "attack": {"name": "pgd", "steps": 1}},
        "compress": {"keep": {"uniform": [0.1, 0.9]}, "bits": {"choice": [4, 8]}},
        "evaluate": {"attack": {"name": "pgd", "steps": 1}},
    },
    "constraints": {"clean_accuracy": {"min": 0.5}},
    "search": {"trials": 4},
}
GONE = object()


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        words: of the command line.
        value: what the message quotes of it.
        rule: what is wrong, as a regular expression.
        remedy: what to do, likewise.
        make: puts files into the folder first.
    """

    words: tuple[str, ...]
    value: str
    rule: str
    remedy: str
    make: Callable[[Path], object] = lambda folder: None


def case(name: str, words: str | Iterable[str], *facts: Any, make: Callable[[Path], object] | None = None) -> Any:
    """A row of a table: its name in the test's output, the command line, value, rule and remedy."""
    split = tuple(words.split()) if isinstance(words, str) else tuple(words)
    return pytest.param(Case(split, *facts, **({} if make is None else {"make": make})), id=name)


def document(*changes: tuple[str, object]) -> dict[str, Any]:
    """`DOCUMENT` with the values at these dotted paths set, or taken out where the value is `GONE`."""
    found: dict[str, Any] = yaml.safe_load(yaml.safe_dump(DOCUMENT))
    for path, value in changes:
        if value is GONE:
            remove_at(found, path)
        else:
            set_at(found, path, value)
    return found


def as_run(*changes: tuple[str, object]) -> dict[str, Any]:
    """Likewise, as a run folder has it: with its task's objectives, unless they are changed too."""
    objectives = {"size_bytes": "min", "clean_accuracy": "max", "robust_accuracy": "max"}
    found = document(("objectives", objectives))
    for path, value in changes:
        set_at(found, path, value)
    return found


def refused(atmc: Run, folder: Path, bad: Case) -> None:
    """Passes if the program refuses the case in one line with value, rule and remedy, and changes no file."""
    bad.make(folder)
    before = tree(folder)
    said = one_line(atmc(*bad.words))
    assert said[:-1].isprintable()
    assert len(said) < 1500
    assert "Traceback" not in said
    assert bad.value in said, f"{bad.value!r} is not in: {said}"
    for part in (bad.rule, bad.remedy):
        assert re.search(part, said, re.IGNORECASE), f"{part!r} is not in: {said}"
    assert tree(folder) == before


def tree(folder: Path) -> dict[str, str]:
    """Every name below `folder` with what it is: a file's length and hash, a link's target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            content = path.read_bytes()
            found[name] = f"{len(content)} {hashlib.sha256(content).hexdigest()}"
        else:
            found[name] = "folder" if path.is_dir() else "other"
    return found
