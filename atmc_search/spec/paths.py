"""Values at dotted paths of nested mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atmc_search.errors import SpecError


def value_at(document: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted path of nested mappings; None where there is none."""
    here: Any = document
    for part in dotted.split("."):
        here = here.get(part) if isinstance(here, Mapping) else None
    return here


def set_at(document: Any, dotted: str, value: Any) -> None:
    """Puts `value` at a dotted path; sections on the way are copied, or made.

    Raises:
        SpecError: the path leads through something that is no mapping, or has an empty part.
    """
    if "" in dotted.split("."):
        raise SpecError(f"{dotted}: there is a dot too many; write e.g. trial.compress.bits")
    *parents, leaf = dotted.split(".")
    here = document
    for part in parents:
        if not isinstance(here, dict):
            break
        child = here.get(part, {})
        # Copied: a YAML alias makes one dict stand in two places, and only this place is meant.
        here[part] = dict(child) if isinstance(child, dict) else child
        here = here[part]
    if not isinstance(here, dict):
        raise SpecError(f"{dotted}: does not lead into a section of the spec; write e.g. trial.compress.bits")
    here[leaf] = value


def remove_at(document: dict[str, Any], dotted: str) -> None:
    """Takes the value at a dotted path out, where there is one; the document's own dicts change."""
    *parents, leaf = dotted.split(".")
    here: Any = document
    for part in parents:
        here = here.get(part) if isinstance(here, dict) else None
    if isinstance(here, dict):
        here.pop(leaf, None)
