"""`settings`: everything that a spec can say, from the classes that validate it."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.table import Table

from atmc_search.cli.common import console, echo
from atmc_search.errors import AtmcError, did_you_mean, shown
from atmc_search.spec import Component

_COMPONENT = "a name, and that component's settings beside it"


@click.command()
@click.argument("word", required=False)
@click.option("--task", "name", default="atmc", show_default=True, metavar="NAME", help="Whose trial section to print.")
def settings(word: str | None, name: str) -> None:
    """Print every setting of a spec: path, type, default, meaning. With WORD, those that have it in their path.

    \b
      atmc-search settings compress
      atmc-search settings pgd
    """
    from atmc_search.spec import StudySpec
    from atmc_search.tasks import task_named

    task = task_named(name)
    rows = [row for row in _rows(StudySpec, "") if row[0] != "trial"]
    rows += _rows(task.Spec, "trial.")
    for kind, parts in task.components.items():
        for part, model in parts.items():
            own = [(f"{kind} {part}: {row[0]}", row[1], row[2], row[3]) for row in _rows(model, "")]
            rows += own or [(f"{kind} {part}", "", "", "no settings")]
    kind = task.deciding[0].rpartition(".")[2] if task.deciding else ""
    rows += [(f"{kind} {preset}", "", "", says) for preset, says in task.presets.items()]
    if word is not None and not any(word in row[0] for row in rows):
        words = sorted({part for row in rows for part in re.split(r"[.: ]+", row[0])})
        raise AtmcError(f"{shown(word)}: no setting has that in its path; {did_you_mean(word, words)}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("setting", "type", "default", "meaning"):
        table.add_column(heading, no_wrap=heading == "setting", max_width={"type": 26, "default": 26}.get(heading))
    for row in rows:
        if word is None or word in row[0]:
            table.add_row(*row)
    console().print(table, highlight=False, markup=False)
    echo(
        "any value under trial may be {choice: [a, b]}, {uniform: [low, high]}, {log_uniform: ...}, {int_uniform: ...}"
    )


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Path, type, default and meaning of each field, sections walked into."""
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is not None and not issubclass(section, Component):
            yield from _rows(section, f"{prefix}{name}.")
        else:
            yield (
                f"{prefix}{name}",
                _type_text(field.annotation),
                _default_text(field),
                field.description or _COMPONENT,
            )
            if section is not None:  # a component: fields that any of its kind has, beside the name
                yield from (row for row in _rows(section, f"{prefix}{name}.") if not row[0].endswith(".name"))


def _section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _type_text(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " | ".join(str(value) for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(_type_text(part) for part in get_args(annotation) if part is not type(None))
    if _section(annotation) is not None or get_origin(annotation) is dict:
        return "mapping"
    return {"str": "word", "int": "whole number", "float": "number", "bool": "true | false"}.get(
        getattr(annotation, "__name__", ""), str(annotation)
    )


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory_takes_validated_data:
        return "it depends"
    default = field.get_default(call_default_factory=True)
    if default is None:
        return "none"
    if isinstance(default, BaseModel):
        return "{" + ", ".join(f"{key}: {value}" for key, value in default.model_dump().items()) + "}"
    return str(default).lower() if isinstance(default, bool) else str(default)
