from __future__ import annotations

import math
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from atmc_search.errors import AtmcError, SpecError, TrialFailed, did_you_mean, shown
from atmc_search.registry import resolve, validated

TABLE = {"lenet": 1, "small_cnn": 2}


def test_known_names_come_from_the_table() -> None:
    assert resolve("small_cnn", TABLE, path="trial.model.name") == 2


def test_the_users_own_come_by_import() -> None:
    assert resolve("math:hypot", TABLE, path="x") is math.hypot


def test_the_table_comes_before_an_import() -> None:
    assert resolve("math:hypot", {"math:hypot": 3}, path="x") == 3


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lenett", "unknown name; did you mean 'lenet'? Known: lenet, small_cnn"),
        ("zzz", "unknown name; known: lenet, small_cnn"),
        ("", "unknown name; known: lenet, small_cnn"),
        ("no_such_module_here:x", "importing 'no_such_module_here' failed (ModuleNotFoundError"),
        (":x", "importing '' failed"),
        (".relative:x", "importing '.relative' failed"),
        ("math:no_such", "'math' has no attribute 'no_such'"),
        ("math:", "'math' has no attribute ''"),
        ("math:pi.real", "'math' has no attribute 'pi.real'"),
    ],
)
def test_a_bad_name_is_refused_in_one_line(name: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(name, TABLE, path="trial.model.name")
    assert str(caught.value).startswith(f"trial.model.name = {name!r}: ")
    assert says in str(caught.value)


def test_a_module_that_fails_at_import_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "atmc_test_broken.py").write_text("raise RuntimeError('first line\\nsecond line')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpecError) as caught:
        resolve("atmc_test_broken:x", TABLE, path="a.b")
    assert "RuntimeError: first line second line" in str(caught.value)
    assert "PYTHONPATH" in str(caught.value)


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    size: int = Field(1, ge=1)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    inner: Inner = Inner()
    other: Inner | None = None
    name: str


def test_validated_builds_the_model() -> None:
    assert validated(Outer, {"name": "x", "inner": {"size": 3}}, path="a").inner.size == 3


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "top.name: missing; it must be given"),
        ({"name": 3}, "top.name = 3: input should be a valid string; quote it"),
        (
            {"name": "x", "inner": {"size": 0}},
            "top.inner.size = 0: input should be greater than or equal to 1; raise it",
        ),
        ({"name": "x", "inner": {"sise": 2}}, "top.inner.sise: unknown key; did you mean 'size'? Known: size"),
        ({"name": "x", "other": {"sise": 2}}, "top.other.sise: unknown key; did you mean 'size'? Known: size"),
        ({"name": "x", "inner": 3}, "top.inner = 3: must be a mapping; write {key: value, ...}"),
    ],
)
def test_validated_puts_the_first_fault_in_one_line(values: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        validated(Outer, values, path="top")
    assert str(caught.value) == text


def test_validated_without_a_path_starts_at_the_key() -> None:
    with pytest.raises(SpecError, match=r"^name: missing"):
        validated(Outer, {}, path="")


@pytest.mark.parametrize("kind", [AtmcError, SpecError, TrialFailed])
def test_errors_are_one_encodable_line(kind: type[AtmcError]) -> None:
    text = str(kind("a\n  b\r\nc\x85d\u2028e \ud800"))
    assert text == "a b c d e \\ud800"


def test_shown_is_short_and_one_line() -> None:
    class Odd:
        def __repr__(self) -> str:
            return "two\nlines"

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert shown("a") == "'a'"
    assert shown("a\nb") == "'a\\nb'"
    assert shown(Odd()) == "two lines"
    assert len(shown("x" * 1000)) == 60
    assert shown("x" * 1000).endswith("…")
    assert shown(["abc", 1.5, None]) == "['abc', 1.5, None]"
    assert len(shown("x" * 1000, limit=10)) == 10
    assert "Broken" in shown(Broken())
    assert shown(10**9000) == "<int>"


def test_did_you_mean_names_the_closest_or_all() -> None:
    assert did_you_mean("epoch", ["epochs", "lr"]) == "did you mean 'epochs'? Known: epochs, lr"
    assert did_you_mean("qqq", ["lr", "epochs"]) == "known: epochs, lr"
