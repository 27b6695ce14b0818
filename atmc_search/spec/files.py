"""A spec as YAML: read by a safe loader, overridden by dotted path, written so that it reads back equal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from atmc_search.errors import SpecError, explain, shown, written
from atmc_search.spec.paths import set_at
from atmc_search.spec.study import StudySpec

_MAX_SPEC_BYTES = 1 << 20
_MAX_SCALAR = 10_000  # characters; 1:1:1:..., a number to base 60, takes the square of its length
_MAX_DEPTH = 64
_MAX_ALIASES = 1000
_MAX_NODES = 20_000  # with every alias written out: "billion laughs" are few lines


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also reads 1e-3 as a number, refuses a key that stands twice, and has limits.

    Limits are kept while nodes are composed, so that a bomb costs no more than what is read of it until then.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._aliases = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            self._limit(self._aliases, _MAX_ALIASES, "aliases")
            node = super().compose_node(parent, index)
            if node not in self._sizes:  # which a node has once it is whole
                raise yaml.composer.ComposerError(None, None, "an alias refers to what it is part of", self.get_mark())
            return node
        self._depth += 1
        self._limit(self._depth, _MAX_DEPTH, "levels")
        node = super().compose_node(parent, index)
        assert node is not None
        self._depth -= 1
        self._sizes[node] = self._size(node)
        self._limit(max(self._sizes[node], len(self._sizes)), _MAX_NODES, "values, aliases written out")
        return node

    def _size(self, node: yaml.Node) -> int:
        """Values in a node, those of aliases counted anew."""
        if isinstance(node, yaml.ScalarNode):
            self._limit(len(node.value), _MAX_SCALAR, "characters in a value")
            return 1
        parts = (part for item in node.value for part in (item if isinstance(item, tuple) else (item,)))
        return 1 + sum(self._sizes[part] for part in parts)

    def _limit(self, found: int, most: int, what: str) -> None:
        if found > most:
            problem = f"more than {most:,} {what}; a spec is short and flat"
            raise yaml.composer.ComposerError(None, None, problem, self.get_mark())


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


def parse_yaml(text: str, origin: str) -> Any:
    """The plain data that `text` holds, read by a safe loader.

    Raises:
        SpecError: not YAML, or YAML beyond the limits above; the message has the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # nosec B506 # a SafeLoader
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
        raise SpecError(f"{origin}: {written(document)} is no mapping; a spec starts with 'name: ...'")
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
        with path.open("rb") as file:  # not by its size on disk: a device or a pipe has none
            content = file.read(_MAX_SPEC_BYTES + 1)
        if len(content) > _MAX_SPEC_BYTES:
            raise SpecError(f"{path}: larger than 1 MiB; a spec is a short YAML file")
        text = content.decode()
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML spec") from None
    except ValueError:  # bytes, or a path, that are none
        raise SpecError(f"{shown(str(path))}: not UTF-8 text; give the path of a YAML spec") from None
    document = parse_yaml(text, str(path))
    for dotted, value in (overrides or {}).items():
        set_at(document, dotted, value)
    return parse_study(document, str(path))


def dump_yaml(spec: StudySpec) -> str:
    """The spec as YAML that `load_study` reads back to an equal one."""
    document = spec.model_dump(mode="json")
    if not document["objectives"]:  # those of its task, which are not filled in yet
        del document["objectives"]
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False)  # ASCII: PyYAML loses a bare U+0085
