"""Mistakes that a user can mend. Each message is one line: the value, the rule and the remedy.

The command line prints an `AtmcError` as that line and exits with 2. Our own invariants are `assert`s.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from reprlib import Repr
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError


class AtmcError(Exception):
    """A mistake that the user can mend. Its text is one line: value, rule, remedy."""

    def __init__(self, message: str) -> None:
        # What a message quotes (a key, another library's complaint) may hold line breaks, escapes, lone surrogates.
        super().__init__(printable(" ".join(part.strip() for part in message.splitlines())))


class SpecError(AtmcError):
    """A spec, or a value set on the command line, that breaks a rule."""


class DataError(AtmcError):
    """A dataset that is missing, damaged or of the wrong shape."""


class ArtifactError(AtmcError):
    """Bytes that are not an artifact this version can open."""


class RunError(AtmcError):
    """A run folder that is missing, foreign, or of another study."""


class StorageError(AtmcError):
    """A run folder that cannot be written for now: full, unreachable, forbidden, or taken over by another driver."""


class TrialFailed(AtmcError):
    """A trial that cannot continue, by no fault of the code: it diverged, say. Recorded as a row with this reason."""


def printable(text: str, keep: str = "") -> str:
    """`text` for a terminal or a page, whoever wrote it: characters that control, hide or reorder become escapes.

    A study's name, a column or an artifact's header may be a stranger's: ESC could retitle or clear a terminal,
    U+202E shows a file name backwards (CVE-2021-42574), a lone surrogate cannot be encoded at all.

    Args:
        text: anything.
        keep: characters that stay although they are not printable, such as line breaks.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else character.encode("unicode_escape").decode()
        for character in text
    )


class _Yaml(Repr):
    """Python's notation but for the words of YAML: users wrote null, not None."""

    def repr_NoneType(self, value: None, level: int) -> str:  # reprlib names methods after types
        return "null"

    def repr_bool(self, value: bool, level: int) -> str:
        return "true" if value else "false"


def shown(value: object, limit: int = 60) -> str:
    """`repr(value)` cut to `limit` characters and one line, for use inside a message."""
    return _cut(Repr(), value, limit)


def written(value: object, limit: int = 60) -> str:
    """Likewise a value as its author wrote it in a spec, with null, true and false."""
    return _cut(_Yaml(), value, limit)


def _cut(brief: Repr, value: object, limit: int) -> str:
    # Not plain `repr`: a few YAML aliases of aliases would make it gigabytes long.
    brief.maxlevel = 4
    brief.maxlist = brief.maxtuple = brief.maxset = brief.maxdict = brief.maxstring = brief.maxother = 4 * limit
    brief.maxlong = 5000
    try:
        text = brief.repr(value).replace("\n", " ")
    except Exception:  # an int of more digits than Python prints, or a foreign object's own repr
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else text[: limit - 1] + "…"


_MOST_LISTED = 20


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The remedy for an unknown name: the closest known one, and all of them where they are few or none is close."""
    close = get_close_matches(word, known, n=1) or [name for name in known if word and word in name][:1]
    listing = ", ".join(sorted(known)[:_MOST_LISTED])
    if len(known) > _MOST_LISTED:
        return f"did you mean {close[0]!r}?" if close else f"known: {listing} and {len(known) - _MOST_LISTED} more"
    return f"did you mean {close[0]!r}? Known: {listing}" if close else f"known: {listing}"


def explain(error: ValidationError, path: str, model: type[BaseModel]) -> str:
    """The first fault of a pydantic error as one line: dotted path, value, rule, remedy.

    Args:
        error: what pydantic raised.
        path: the dotted path of the object that was validated, "" for a whole file.
        model: the class it was validated as, for the list of known keys.
    """
    fault = error.errors()[0]
    parts = [str(part) for part in fault["loc"]]
    where = ".".join(([path] if path else []) + parts)
    if fault["type"] == "extra_forbidden":
        known = _fields_at(model, parts[:-1])
        return f"{where}: unknown key; {did_you_mean(parts[-1], known) if known else 'remove it'}"
    if fault["type"] == "missing":
        return f"{where}: missing; it must be given"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] in ("model_type", "dict_type"):  # pydantic's own text names our classes
        message = "must be a mapping; write {key: value, ...}"
    message = message[0].lower() + message[1:]
    remedy = _remedy(fault["type"], fault["input"], str(fault.get("ctx", {}).get("expected", "")))
    return f"{where} = {written(fault['input'])}: {message}{remedy and f'; {remedy}'}"


_REMEDIES = {
    "greater_than": "raise it",
    "greater_than_equal": "raise it",
    "less_than": "lower it",
    "less_than_equal": "lower it",
    "finite_number": "give a number, or leave it out",
    "bool_type": "write true or false",
}
_DISTRIBUTIONS = "or a distribution: choice, uniform, log_uniform or int_uniform"


def _remedy(kind: str, given: object, expected: str) -> str:
    """What to do about a fault whose text, pydantic's own, names only the rule; empty where our text says it."""
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", expected)
        word = given.lower()[:100] if isinstance(given, str) else ""
        close = get_close_matches(word, words, n=1) or [known for known in words if word.startswith(known)]
        return f"did you mean {close[0]!r}?" if close else "choose one of these"
    if kind == "string_type":
        return "quote it" if isinstance(given, bool | int | float) else "write a word"
    if kind not in ("float_type", "int_type", "int_from_float"):
        return _REMEDIES.get(kind, "")
    number = "a whole number" if kind != "float_type" else "a number"
    match given:
        case str() if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", given):
            return "write it without quotes"
        case str() if fraction := re.fullmatch(r"(\d{1,9})/([1-9]\d{0,8})", given):
            return f"write {int(fraction[1]) / int(fraction[2]):.4g}"
        case float() if given.is_integer():
            return f"write {int(given)}, and int_uniform for a range"
        case list():
            return f"write {number}, or {{choice: {written(given, 40)}}} to have one chosen"
        case dict():
            return f"write {number}, {_DISTRIBUTIONS}"
    return f"write {number}"


def _fields_at(model: type[BaseModel], loc: Sequence[str]) -> list[str]:
    """The keys that the (nested) model at `loc` knows."""
    current: Any = model
    for part in loc:
        if get_origin(current) is dict:
            current = get_args(current)[1]
        else:
            field = next((f for name, f in current.model_fields.items() if part == (f.alias or name)), None)
            current = field and field.annotation
        if get_origin(current) is not dict:  # then a section, or an optional one
            parts = (current, *get_args(current))
            current = next((kind for kind in parts if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if current is None:
            return []
    return [field.alias or name for name, field in getattr(current, "model_fields", {}).items()]
