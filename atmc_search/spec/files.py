"""A spec as YAML: read by a safe loader, overridden by dotted path, written so that it reads back equal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from atmc_search.errors import SpecError, explain, shown
from atmc_search.spec.paths import set_at
from atmc_search.spec.study import StudySpec


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also reads 1e-3 as a number and refuses a key that stands twice."""


class _Dumper(yaml.SafeDumper):
    """YAML's safe dumper, which quotes the word '1e-3' because `_Loader` would read it as a number."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)$"), list("-+.0123456789")
    )


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    written: set[str] = set()
    for key_node, _ in node.value:  # before merging: a key beside `<<` overrides the merged one
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a word", key_node.start_mark)
        if key in written:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        written.add(key)
    loader.flatten_mapping(node)
    construct = loader.construct_object
    return {construct(key, deep=True): construct(value, deep=True) for key, value in node.value}


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)

_MAX_SPEC_BYTES = 1 << 20


def parse_yaml(text: str, origin: str) -> Any:
    """The plain data that `text` holds, read by a safe loader.

    Raises:
        SpecError: not YAML; the message has the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except Exception as error:  # a YAMLError, or whatever PyYAML's constructors stumble over (`!!int ""`: IndexError)
        mark = getattr(error, "problem_mark", None)
        where = f"{origin}:{mark.line + 1}" if mark else origin
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise SpecError(f"{where}: not readable as YAML ({problem}); mend that line") from None


def parse_study(document: object, origin: str = "spec") -> StudySpec:
    """A validated StudySpec from plain data (what YAML gives, or dicts built in Python).

    Raises:
        SpecError: one line: origin, path, value, rule, remedy.
    """
    if not isinstance(document, Mapping):
        raise SpecError(f"{origin}: {shown(document)} is no mapping; a spec starts with 'name: ...'")
    try:
        return StudySpec.model_validate(dict(document))
    except ValidationError as error:
        raise SpecError(f"{origin}: {explain(error, '', StudySpec)}") from None
    except SpecError as error:
        raise SpecError(f"{origin}: {error}") from None


def load_study(path: str | Path, overrides: Mapping[str, Any] | None = None) -> StudySpec:
    """Reads, overrides and validates a spec file.

    Args:
        path: a YAML file.
        overrides: values by dotted path, set before validation, e.g. {"trial.compress.bits": 4}.

    Raises:
        SpecError: the file is missing, too large, not YAML, or breaks a rule.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_SPEC_BYTES:
            raise SpecError(f"{path}: larger than 1 MiB; a spec is a short YAML file")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML spec") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: not UTF-8 text; give the path of a YAML spec") from None
    document = parse_yaml(text, str(path))
    for dotted, value in (overrides or {}).items():
        set_at(document, dotted, value)
    return parse_study(document, str(path))


def dump_yaml(spec: StudySpec) -> str:
    """The spec as YAML that `load_study` reads back to an equal one."""
    return yaml.dump(spec.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False)  # ASCII: PyYAML loses a bare U+0085
