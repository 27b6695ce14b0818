"""Any bytes at all, given as a spec, are a valid study or are refused in one line.

`pytest tests/bad_input/test_any_document.py --hypothesis-profile=thorough` tries fifty times as many.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from shell import Run, one_line

from atmc_search.errors import SpecError
from atmc_search.spec import StudySpec, dump_yaml, load_study, parse_study, parse_yaml

DEMO = (Path(__file__).parents[2] / "search_spaces" / "digits_quickstart.yaml").read_text()
DOCUMENT: dict[str, Any] = yaml.safe_load(DEMO)
settings.register_profile("thorough", max_examples=5000)

# Scalars as one finds them in YAML by people and by those who mean harm, and signs that have a meaning there.
SCALARS = (
    *("", "~", "null", "yes", "NO", "on", "1_000", "0x1F", "0o17", "1:30", "1e3", "1e400", "-.inf", ".nan", "+.5", "1.", "8/255"),
    *("2024-01-01", "2001-12-14t21:59:43.10-05:00", "!!binary aGk=", "!!set {a}", "!!omap [a: 1]", "!!int x", "!!float ''"),
    *("!!python/object/apply:os.system [id]", "!!python/name:os.system", "!x y", "&a", "*a", "&a [*a]", "<<: {}", "? [a]"),
    *("{choice: [1, 2]}", "{uniform: [0, 1]}", "{log_uniform: [1, 0]}", "{choice: []}", "[[[[]]]]", "{}", "[]", "{a: {b: 1}}"),
    *("9" * 400, "'" + "x" * 400 + "'", '"\\x1b[2J"', '"\\u202e"', '"\\uD800"', "$x$", "<b>", "a: b", "- a", "'", '"', "|", ">-"),
)  # fmt: skip
SIGNS = "\t\n\r \x00\x1b\x85\u2028\ufeff{}[]:,-&*!<>|'\"%@`?#~=0e.é\U0001f40d"


def verdict(text: str) -> StudySpec | str:
    """The study, or the line that refuses it."""
    try:
        spec = parse_study(parse_yaml(text, "x"), "x")
    except SpecError as error:
        said = str(error)
        assert said.isprintable()
        assert said.startswith("x")
        assert len(said) < 3000
        return said
    assert parse_study(parse_yaml(dump_yaml(spec), "again")) == spec
    return spec


@st.composite
def edited(draw: st.DrawFn) -> str:
    """The demo's spec after a few slips of the hand: lines lost, doubled, swapped or indented; signs and values typed."""
    text = DEMO
    for _ in range(draw(st.integers(1, 4))):
        lines = text.split("\n")
        at, to = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["drop", "double", "swap", "indent", "value", "type", "cut"])):
            case "drop":
                del lines[at]
            case "double":
                lines.insert(to, lines[at])
            case "swap":
                lines[at], lines[to] = lines[to], lines[at]
            case "indent":
                lines[at] = draw(st.sampled_from([" ", "  ", "\t", "- "])) + lines[at]
            case "value":
                lines[at] = f"{lines[at].partition(':')[0]}: {draw(st.sampled_from(SCALARS))}"
            case "type":
                place = draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:place] + draw(st.text(SIGNS, min_size=1, max_size=3)) + lines[at][place:]
            case "cut":
                lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
        text = "\n".join(lines) or "\n"
    return text


def paths(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = value.items() if isinstance(value, dict) else ()
    return [path, *(found for key, child in inner for found in paths(child, (*path, key)))][0 if path else 1 :]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["name", "choice", "uniform", "int_uniform", "epochs"]) | st.text(), inner, max_size=3)
    ),
    max_leaves=10,
)  # fmt: skip


@given(st.text(max_size=200) | st.text(SIGNS + "abn1", max_size=60) | st.lists(st.sampled_from(SCALARS)).map("\n".join))
@settings(deadline=None)
def test_any_text(text: str) -> None:
    verdict(text)


@given(edited())
@settings(deadline=None)
def test_the_demo_after_slips_of_the_hand(text: str) -> None:
    verdict(text)


@given(st.sampled_from(paths(DOCUMENT)), VALUES)
@settings(deadline=None)
def test_the_demo_with_any_value_anywhere(path: tuple[str, ...], value: object) -> None:
    document = copy.deepcopy(DOCUMENT)
    here = document
    for part in path[:-1]:
        here = here[part]
    here[path[-1]] = value
    verdict(yaml.safe_dump(document, allow_unicode=True))


@given(st.dictionaries(st.sampled_from([*DOCUMENT, "constraints", "resources"]) | st.text(max_size=4), VALUES))
@settings(deadline=None)
def test_any_document(document: dict[str, object]) -> None:
    verdict(yaml.safe_dump(document))


def test_the_strategies_reach_both_verdicts() -> None:
    """A property that is never put to the test would hold too."""
    found: set[type] = set()

    @given(edited())
    @settings(deadline=None, database=None, max_examples=100, derandomize=True)
    def collect(text: str) -> None:
        found.add(type(verdict(text)))

    collect()
    assert found == {StudySpec, str}


FILE = st.binary(max_size=200) | edited().map(lambda text: text.encode(errors="surrogatepass"))


def test_any_bytes_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"

    @given(FILE)
    @settings(deadline=None)
    def read(content: bytes) -> None:
        path.write_bytes(content)
        try:
            load_study(path)
        except SpecError as error:
            said = str(error)
        else:
            return
        assert said.isprintable()

    read()


def test_any_override_of_the_demo(atmc: Run, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(DEMO)
    places = st.sampled_from([".".join(path) for path in paths(DOCUMENT)]) | st.text(SIGNS + "ab.", max_size=8)

    @given(places, st.sampled_from(SCALARS) | st.text(SIGNS, max_size=8))
    @settings(deadline=None, max_examples=settings().max_examples // 10)
    def run(place: str, value: str) -> None:
        if place in ("trial.data.name", "trial.data"):
            return  # --check loads data, and this might be told to download some
        outcome = atmc("run", "spec.yaml", "--check", "--set", f"{place}={value}")
        if outcome.code:
            one_line(outcome)

    run()


@pytest.mark.parametrize("text", [DEMO])
def test_the_demo_itself_is_valid(text: str) -> None:
    assert isinstance(verdict(text), StudySpec)
