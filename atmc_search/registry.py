"""Names to things: a word from one of the visible tables, or `"package.module:attribute"` for the user's own.

The tables are plain dicts beside what they list (`MODELS`, `DATASETS`, `ATTACKS`, `TASKS`). There are no decorators:
a worker process that never imported a module would not know what that module had registered.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from atmc_search.errors import RunError, SpecError, did_you_mean, explain, shown

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


def resolve(name: str, table: Mapping[str, T], *, path: str) -> T | Any:
    """What `name` stands for.

    Args:
        name: a key of `table`, or "package.module:attribute", which is imported.
        table: the known names.
        path: where the name was written, dotted, for the message.

    Raises:
        SpecError: unknown name, or the module or its attribute cannot be imported.
    """
    if name in table:
        return table[name]
    if ":" not in name:
        raise SpecError(
            f"{path} = {name!r}: unknown name; {did_you_mean(name, list(table))}, or 'package.module:attribute'"
        )
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # user code may raise anything while it is imported
        raise SpecError(
            f"{path} = {name!r}: importing {module_name!r} failed ({type(error).__name__}: {error}); "
            "check that it is installed or on PYTHONPATH"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise SpecError(
            f"{path} = {name!r}: {module_name!r} has no attribute {attribute!r}; check the spelling"
        ) from None


def imports(document: object, path: str = "") -> Iterator[tuple[str, str]]:
    """What plain data, such as a spec's, would have `resolve` import: dotted path and name of each.

    Names stand under the keys `name` and `task`, alone or in a choice.
    """
    if not isinstance(document, Mapping):
        return
    for key, value in document.items():
        here = f"{path}.{key}" if path else str(key)
        if key in ("name", "task"):
            choices = value.get("choice", []) if isinstance(value, Mapping) else [value]
            yield from ((here, name) for name in choices if isinstance(name, str) and ":" in name)
        yield from imports(value, here)


def refuse_imports(document: object, where: str, remedy: str) -> None:
    """Passes if `resolve` would import nothing for `document`: what lies in a run folder is data, whoever made it.

    Raises:
        RunError: something would be imported, which runs its code.
    """
    for path, name in imports(document):
        raise RunError(f"{where}: {path} = {shown(name)} would import that code and run it; {remedy}")


def validated(model: type[M], values: Mapping[str, Any], *, path: str) -> M:
    """`model(**values)` by pydantic's strict rules, its complaint put as one line that starts at `path`."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise SpecError(explain(error, path, model)) from None
