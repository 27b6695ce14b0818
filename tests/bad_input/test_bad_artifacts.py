"""Artifacts that are none, are damaged, strange or hostile: one line, nothing imported, nothing written."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import ARTIFACT, artifact, reported, run_folder, with_header
from refusals import Case, case, refused
from shell import Run

GOOD = artifact()
MLP = {"model": "mlp", "args": {"hidden": [8]}, "input": [1, 8, 8], "classes": 10, "threat": ["linf", 0.1]}
COMMANDS = {
    "inspect": "inspect model.atmc",
    "evaluate": "evaluate model.atmc --data digits",
    "export": "export model.atmc --to state_dict --out model.pt",
    "repack": "repack model.atmc --out new.atmc",
}


def bad(name: str, content: bytes, shown: str, rule: str, remedy: str, *, by: str = "inspect") -> Any:
    def make(folder: Path) -> None:
        (folder / "model.atmc").write_bytes(content)

    return case(f"{name}-{by}", COMMANDS[by], shown, rule, remedy, make=make)


def by_all(name: str, content: bytes, shown: str, rule: str, remedy: str) -> list[Any]:
    return [bad(name, content, shown, rule, remedy, by=by) for by in COMMANDS]


def flipped(at: int) -> bytes:
    return GOOD[:at] + bytes([GOOD[at] ^ 0x40]) + GOOD[at + 1 :]


def in_run(content: bytes | None) -> Callable[[Path], object]:
    """A good run with another second artifact, or none; its report says that this is the file that was measured."""

    def make(folder: Path) -> None:
        reported(folder, {"artifact_sha256": hashlib.sha256(content or b"").hexdigest()})
        (folder / ARTIFACT).unlink()
        if content is not None:
            (folder / ARTIFACT).write_bytes(content)

    return make


VERIFY = "verify run --trial 1"

CASES = [
    *by_all("junk", b"PK\x03\x04 a zip", "b'PK", "not an artifact", "give a file that a run made"),
    *by_all("cut", GOOD[:-1], "model.atmc", "checksum does not match", "get it again"),
    *by_all("later", GOOD[:4] + b"\x09" + GOOD[5:], "version 9", "reads 1 to 2", "update atmc-search"),
    *by_all("huge", with_header(MLP | {"args": {"hidden": [50_000, 50_000]}}), "values", "few bytes", "do not trust"),
    bad("empty", b"", "b''", "not an artifact", "give a file that a run made"),
    bad("magic-alone", b"ATMC", "4 bytes", "ends early", "get it again"),
    bad("zeros", bytes(1000), "\\x00", "not an artifact", "give a file that a run made"),
    bad("half", GOOD[: len(GOOD) // 2], "model.atmc", "checksum does not match", "get it again"),
    bad("one-bit-of-the-header", flipped(20), "model.atmc", "checksum does not match", "get it again"),
    bad("one-bit-of-the-code", flipped(len(GOOD) - 5), "model.atmc", "checksum does not match", "get it again"),
    bad("more-behind-it", GOOD + b"more", "model.atmc", "checksum does not match", "get it again"),
    bad("gzipped", gzip.compress(GOOD), "\\x1f\\x8b", "not an artifact", "give a file that a run made"),
    bad("a-pickle", b"\x80\x04cos\nsystem\n(S'touch gone'\ntR.", "\\x80", "not an artifact", "give a file that a run"),
    bad("version-0", GOOD[:4] + b"\x00" + GOOD[5:], "version 0", "reads 1 to 2", "update atmc-search"),
    bad("header-of-no-json", with_header(b"{model: mlp}"), "header", "not JSON", "get it again"),
    bad("header-of-no-text", with_header(b"\xff\xfe"), "header", "not JSON", "get it again"),
    bad("header-in-a-list", with_header([1]), "header", "no mapping", "get it again"),
    bad("header-of-nothing", with_header({}), "header", "does not describe a model", "get it again"),
    bad("header-nested-deep", with_header(b'{"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"), "header", "not JSON", "again"),
    bad("header-without-classes", with_header({**MLP, "classes": None}), "header", "does not describe", "get it again"),
    bad("header-below-0", with_header({**MLP, "classes": -1}), "header", "does not describe", "get it again"),
    bad("header-of-huge-images", with_header({**MLP, "input": [3, 65536, 65536]}), "values", "over", "do not trust"),
    bad("no-such-model", with_header({**MLP, "model": "mpl"}), "'mpl'", "cannot be built here", "did you mean 'mlp'"),
    bad("no-such-setting", with_header({**MLP, "args": {"hiden": [8]}}), "hiden", "unknown key", "did you mean 'hidden'"),
    bad("settings-in-words", with_header({**MLP, "args": {"hidden": "x"}}), "'x'", "list of positive", "write e.g."),
    bad("a-thousand-layers", with_header({**MLP, "args": {"hidden": [1] * 5000}}), "5000 entries", "over 1000", "fewer"),
    bad("no-tensors", with_header(MLP), "model.atmc", "ends|damaged|layout|tensor", "damaged|get it again"),
    bad("a-strangers-model", with_header({**MLP, "model": "stranger:net"}), "'stranger:net'", "runs code",
        "--allow-custom-models", by="evaluate"),
    bad("a-strangers-model", with_header({**MLP, "model": "stranger:net"}), "'stranger:net'", "runs code",
        "--allow-custom-models", by="export"),
    bad("a-name-with-escapes", with_header({**MLP, "model": "x\x1b[2J:net"}), "\\x1b[2J", "runs code",
        "--allow-custom-models", by="repack"),
    case("a-strangers-model-that-is-not-here", "inspect model.atmc --allow-custom-models", "stranger", "importing",
         "installed or on PYTHONPATH",
         make=lambda folder: (folder / "model.atmc").write_bytes(with_header({**MLP, "model": "stranger:net"}))),
    bad("a-threat-of-no-kind", artifact(threat=("l7", 0.1)), "'l7'", "'linf' or 'l2'", "choose one", by="evaluate"),
    bad("a-threat-of-bytes", artifact(threat=("linf", -8.0)), "-8.0", "greater than or equal to 0", "raise it", by="evaluate"),
    bad("of-other-images", artifact(shape=(3, 8, 8)), "3×8×8", "its images are 1×8×8", "name the dataset", by="evaluate"),
    bad("of-other-classes", artifact(classes=4), "4", "has 10 classes", "name the dataset", by="evaluate"),
    case("missing", "inspect nowhere.atmc", "nowhere.atmc", "cannot be read", "give the path of an .atmc file"),
    case("a-folder", "inspect run", "run", "is a directory", "give the path of an .atmc file", make=run_folder),
    case("a-spec", "inspect run/spec.yaml", "run/spec.yaml", "not an artifact", "give a file", make=run_folder),
    # in a run
    case("run-without", VERIFY, "trial 1", "is missing", "run the study again", make=in_run(None)),
    case("run-with-junk", VERIFY, "trial 1", "not an artifact", "give a file", make=in_run(b"junk")),
    case("run-with-half", VERIFY, "trial 1", "checksum does not match", "get it again", make=in_run(GOOD[:-9])),
    case("run-with-other-images", VERIFY, "(3, 8, 8, 10)", "another study's", "restore it", make=in_run(artifact(shape=(3, 8, 8)))),
    case("run-with-other-classes", VERIFY, "(1, 8, 8, 4)", "another study's", "restore it", make=in_run(artifact(classes=4))),
    case("run-with-a-strangers-model", VERIFY, "'stranger:net'", "would import that code", "add --trust",
         make=in_run(with_header({**MLP, "model": "stranger:net"}))),
    case("run-with-a-huge-one", VERIFY, "values", "few bytes", "do not trust its origin",
         make=in_run(with_header(MLP | {"args": {"hidden": [50_000, 50_000]}}))),
    case("run-with-another-file", VERIFY, "trial 1", "not the file that was measured", "restore it",
         make=lambda folder: reported(folder, {"artifact_sha256": "0" * 64})),
]  # fmt: skip


@pytest.mark.parametrize("bad", CASES)
def test_a_bad_artifact_is_refused(atmc: Run, tmp_path: Path, bad: Case) -> None:
    refused(atmc, tmp_path, bad)
