"""Studies of every format so far open and go on; one of a later format is refused and left alone.

formats/0 was written by release 0.1.0, before there was a study.json: three trials of ATMC on 256 digits.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import atmc_search
from atmc_search.errors import RunError
from atmc_search.results import STUDY_COLUMNS, Column, RunFolder, parameter_columns, reports
from atmc_search.results.layout import FORMAT
from atmc_search.spec import StudySpec
from atmc_search.tasks import TrialSpace
from atmc_search.tasks.atmc.columns import ATMC_COLUMNS
from atmc_search.version import __version__

FORMATS = Path(__file__).parent / "formats"


@pytest.fixture
def format_0(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FORMATS / "0", tmp_path / "format-0"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same(now: pd.DataFrame, then: pd.DataFrame) -> None:
    """What a table of then said, one of now says too."""
    plain = [frame[list(then.columns)].astype(object).where(frame.notna(), None) for frame in (now, then)]
    assert plain[0].to_dict("records") == plain[1].to_dict("records")


def test_a_study_of_the_first_format_opens(format_0: Path) -> None:
    before = content(format_0)
    trials = atmc_search.load_trials(format_0)
    same(trials, pd.read_parquet(format_0 / "trials.parquet"))
    same(atmc_search.front(trials), pd.read_parquet(format_0 / "front.parquet"))
    decision = atmc_search.choose(trials, best="robust_accuracy", max={"size_bytes": 1800})
    assert decision.trial is not None
    assert decision.trial["trial"] == 0
    artifact = format_0 / decision.trial["artifact"]
    assert hashlib.sha256(artifact.read_bytes()).hexdigest() == decision.trial["artifact_sha256"]
    atmc_search.load_artifact(artifact)
    assert content(format_0) == before  # who only looks changes nothing


@pytest.mark.parametrize("compact_at", [3, 512])
def test_a_study_of_the_first_format_goes_on(
    format_0: Path, monkeypatch: pytest.MonkeyPatch, compact_at: int, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reports, "COMPACT_AT", compact_at)
    before = content(format_0)
    then = pd.read_parquet(format_0 / "reports")
    folder = RunFolder.open(format_0)
    spec = folder.spec()
    assert {spec.fingerprint} == set(then["fingerprint"])  # what defines a result is told as it was
    columns: tuple[Column, ...] = (*STUDY_COLUMNS, *ATMC_COLUMNS, *parameter_columns(spec.distributions))
    (last,) = pq.read_table(format_0 / "reports" / "00000006.parquet").to_pylist()
    trials_of_it = TrialSpace.of(spec)
    with folder.locked(spec, trials_of_it.defaults):
        same(folder.read_reports(), then)
        trials_of_it.fill({path: last[path] for path in trials_of_it.distributions})
        number = folder.next_report()
        assert number == len(then)
        folder.append({**last, "trial": 3, "size_bytes": 100}, columns, number)
        trials = folder.derive(spec, columns)
    assert trials["trial"].tolist() == [0, 1, 2, 3]
    again = RunFolder.open(format_0)
    assert again.read_reports()["report"].tolist() == list(range(len(then) + 1))
    same(again.read_reports().head(len(then)), then)
    assert len(pd.read_parquet(format_0 / "reports")) == len(then) + 1
    written = json.loads((format_0 / "study.json").read_text())
    assert written == {"format": FORMAT, "atmc_search": __version__, "trials": trials_of_it.defaults}
    after = content(format_0)
    for name in before:
        if name.startswith(("artifacts", "starts")) or (compact_at == 512 and name.startswith("reports")):
            assert after[name] == before[name]
    (told,) = caplog.messages
    assert "does not say which defaults it ran with" in told


def test_a_study_does_not_go_on_with_other_defaults(tmp_path: Path, study: StudySpec) -> None:
    folder = RunFolder(tmp_path / "s")
    defaults = TrialSpace.of(study).defaults
    folder.create(study, defaults)
    folder.create(study, defaults)
    document = json.loads(folder.format_path.read_text())
    assert document["trials"] == defaults
    del document["trials"][""]["compress"]["code_price"]  # a setting that came since
    folder.format_path.write_text(json.dumps(document))
    folder.create(study, defaults)
    for section, name, was in (("train", "nesterov", False), ("compress", "schedule", None), ("train", "gone", [1])):
        changed = json.loads(json.dumps(document))
        assert changed["trials"][""][section].get(name) != was
        changed["trials"][""][section][name] = was
        folder.format_path.write_text(json.dumps(changed))
        before = content(tmp_path)
        with pytest.raises(
            RunError, match=rf"where trial\.{section}\.{name} is .* by default; it is .* now; continue with"
        ) as e:
            folder.create(study, defaults)
        assert len(str(e.value).splitlines()) == 1
        assert content(tmp_path) == before


def test_who_knows_no_defaults_keeps_those_that_the_study_ran_with(tmp_path: Path, study: StudySpec) -> None:
    folder = RunFolder(tmp_path / "s")
    folder.create(study)
    assert "trials" not in json.loads(folder.format_path.read_text())  # nobody said what they are
    defaults = TrialSpace.of(study).defaults
    folder.create(study, defaults, {"net.pt": "9" * 64})
    before = folder.format_path.read_bytes()
    folder.create(study)
    with folder.locked(study):
        pass
    assert folder.format_path.read_bytes() == before
    assert json.loads(before) == {
        "format": FORMAT,
        "atmc_search": __version__,
        "trials": defaults,
        "inputs": {"net.pt": "9" * 64},
    }


def test_a_study_does_not_go_on_with_another_file_under_the_same_name(tmp_path: Path, study: StudySpec) -> None:
    folder = RunFolder(tmp_path / "s")
    folder.create(study, {}, {"nets/a.pt": "1" * 64})
    folder.create(study, {}, {"nets/a.pt": "1" * 64, "nets/b.pt": "2" * 64})  # one more
    folder.create(study, {}, {"nets/b.pt": "2" * 64})
    before = content(tmp_path)
    for name, held in (("nets/a.pt", "1" * 12), ("nets/b.pt", "2" * 12)):
        with pytest.raises(RunError) as error, folder.locked(study, {}, {name: "3" * 64}):
            pass
        assert str(error.value) == (
            f"{name}: is not the file that {folder.path} ran with (its SHA-256 begins {'3' * 12}, that one's {held}); "
            "restore it, or give the spec another name"
        )
        after = {path: data for path, data in content(tmp_path).items() if "/lock/" not in path}
        assert after == before


@pytest.mark.parametrize("inputs", [None, 7, [], ["a"], {"a": None}, {"a": {"b": 1}}, {"": ""}])
def test_strange_inputs_of_a_study_are_no_traceback(tmp_path: Path, study: StudySpec, inputs: object) -> None:
    folder = RunFolder(tmp_path / "s")
    folder.create(study)
    folder.format_path.write_text(json.dumps({"format": FORMAT, "inputs": inputs}))
    folder.create(study, None, {"b": "1" * 64})
    if isinstance(inputs, dict) and "a" in inputs:
        with pytest.raises(RunError, match="is not the file that"):
            folder.create(study, None, {"a": "1" * 64})
    else:
        folder.create(study, None, {"a": "1" * 64})


def test_a_later_format_is_refused_and_left_alone(format_0: Path, study: StudySpec) -> None:
    (format_0 / "study.json").write_text(json.dumps({"format": FORMAT + 1, "atmc_search": "7.0.0", "more": [1]}))
    with (format_0 / "spec.yaml").open("a") as spec:
        spec.write("later: {setting: 1}\n")
    before = content(format_0)
    actions: list[Callable[[], Any]] = [
        lambda: atmc_search.load_trials(format_0),
        lambda: RunFolder(format_0).create(study),
        lambda: RunFolder(format_0).locked(study).__enter__(),
    ]
    for action in actions:
        with pytest.raises(RunError) as error:
            action()
        assert str(error.value) == (
            f"{format_0}: format {FORMAT + 1}, written by atmc-search '7.0.0'; this is {__version__}, which knows "
            f"formats up to {FORMAT}; install that release or a later one"
        )
    assert content(format_0) == before


@pytest.mark.parametrize("damage", ["", "{", "[]", "7", '{"format": "x"}', '{"format": -1}', "{}", "[" * 100_000])
def test_a_damaged_format_is_written_anew(
    tmp_path: Path, study: StudySpec, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(tmp_path / "kept")
    folder.create(study)
    folder.format_path.write_text(damage)
    RunFolder.open(folder.path)
    (warning,) = caplog.messages
    assert str(folder.format_path) in warning
    assert folder.format_path.read_text() == damage
    with folder.locked(study):
        pass
    assert json.loads(folder.format_path.read_text())["format"] == FORMAT
    assert (folder.damaged / "study.json").read_text() == damage


def test_a_folder_in_the_place_of_the_format_is_set_aside(tmp_path: Path, study: StudySpec) -> None:
    folder = RunFolder(tmp_path / "kept")
    folder.create(study)
    folder.format_path.unlink()
    folder.format_path.mkdir()
    RunFolder.open(folder.path)
    with folder.locked(study):
        pass
    assert json.loads(folder.format_path.read_text())["format"] == FORMAT
    assert (folder.damaged / "study.json").is_dir()


def test_a_damaged_spec_is_set_aside_if_the_reports_tell_whose_they_are(
    tmp_path: Path, make_study: Callable[..., StudySpec], table: tuple[Column, ...], row: Callable[..., dict[str, Any]]
) -> None:
    study, other = make_study(), make_study(objectives={"nnz": "min"})
    folder = RunFolder(tmp_path / "kept")
    folder.create(study)
    folder.append(row(0, fingerprint=study.fingerprint), table, 0)
    folder.spec_path.write_text("name: [kept")
    before = content(folder.path)
    with pytest.raises(RunError, match=r"spec\.yaml.*not readable as YAML.*reports do not tell that it is this study"):
        folder.create(other)
    assert content(folder.path) == before
    with folder.locked(study):
        assert folder.read_reports()["trial"].tolist() == [0]
    assert RunFolder.open(folder.path).spec() == study
    assert (folder.damaged / "spec.yaml").read_text() == "name: [kept"
