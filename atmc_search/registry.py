"""Names to things: a word from one of the visible tables, or `"package.module:attribute"` for the user's own.

The tables are plain dicts beside what they list (`MODELS`, `DATASETS`, `ATTACKS`, `TASKS`). There are no decorators:
a worker process that never imported a module would not know what that module had registered.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from atmc_search.errors import SpecError, did_you_mean, explain

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


def validated(model: type[M], values: Mapping[str, Any], *, path: str) -> M:
    """`model(**values)` by pydantic's strict rules, its complaint put as one line that starts at `path`."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise SpecError(explain(error, path, model)) from None
