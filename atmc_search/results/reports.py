"""The reports of a study: one Parquet file each as they arrive, many in one file later; each is read once.

    reports/00000512.parquet              report 512
    reports/00000000-00000511.parquet     reports 0 to 511, compacted

A report is known by its number: the column `report` holds it, and a file whose name says another one is a stray copy.
Compacting writes the file of many, reads it back, and only then removes the files of one. If a process dies in between,
some reports lie in both; readers take each once.

Files that are not reports are skipped; the driver moves them to damaged/. Nothing valid is ever moved away. A file that
the storage cannot give for now may be a report, so it stays. A report whose columns have other types than those of most
reports cannot stand in one table with them: it is named and left out, and stays.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from atmc_search.errors import RunError, StorageError, printable, shown
from atmc_search.results.checks import read_reports
from atmc_search.results.columns import Column, schema_of
from atmc_search.results.damaged import warn
from atmc_search.results.frames import table_bytes

COMPACT_AT = 512
"""How many files of one report make a file of many."""

NUMBER = "report"
_NAME = re.compile(r"(\d{8,})(?:-(\d{8,}))?\.parquet")
_READS = 10

Write = Callable[[Path, bytes], None]
Check = Callable[[pa.Table], None]


class Quarantine(Protocol):
    """Deals with files that are not reports, given with reasons. `nothing_else`: there is no report beside them."""

    def __call__(self, files: Mapping[Path, str], *, nothing_else: bool = False) -> None: ...


class Reports:
    """The folder `reports/`: appends, reads, compacts."""

    def __init__(
        self, path: Path, *, damaged: Path, write: Write, write_new: Write, check: Check, quarantine: Quarantine
    ) -> None:
        """`damaged` holds what was quarantined before.

        The functions write files, raise ValueError for reports that no trial of the study can have made, and deal with
        files that are not reports.
        """
        self.path = path
        self._damaged = damaged
        self._write = write
        self._write_new = write_new
        self._check = check
        self._quarantine = quarantine
        self._singles: dict[int, pa.Table] = {}  # those that this object appended and that lie in files of their own
        self._fresh: list[pa.Table] = []  # appended since `latest` was last called
        self._latest: pa.Table | None = None
        self._schema: pa.Schema | None = None  # of the reports that were there, and of those appended

    def append(self, row: Mapping[str, Any], columns: Sequence[Column], number: int) -> None:
        """Writes one report; columns that the row lacks are null.

        Raises:
            FileExistsError: there is another report of this number.
            StorageError: it cannot be written, or a column has another type than in the reports that are there.
        """
        table = pa.Table.from_pylist([{**row, NUMBER: number}], schema=schema_of(columns))
        self._take(table.schema)
        self._write_new(self.path / f"{number:08d}.parquet", table_bytes(table))
        table = _numbered(table, number)
        self._singles[number] = table
        if self._latest is not None:
            self._fresh.append(table)
        if len(self._singles) >= COMPACT_AT:
            self.compact()

    def next_number(self) -> int:
        """One more than any report has or had, those quarantined counted."""
        found = (_NAME.match(path.name) for folder in (self.path, self._damaged) for path in _entries(folder))
        return 1 + max((int(match[2] or match[1]) for match in found if match), default=-1)

    def read(self) -> pa.Table | None:
        """All reports by number; None when there is none.

        Raises:
            RunError: there are reports, and all are another study's, or are damaged and stay where they are.
            OSError: the storage cannot give them for now.
        """
        for _ in range(_READS):
            try:
                return _joined(self._tables())
            except FileNotFoundError:
                continue  # a driver compacted meanwhile: what vanished lies in a file of many by now
        return _joined(self._tables())

    def latest(self) -> pa.Table | None:
        """Each trial's last report. Reads the folder once; from then on only what this object appends."""
        new = [self.read()] if self._latest is None else [self._latest, *self._fresh]
        joined = _joined([table for table in new if table is not None])
        if joined is not None:
            trials = joined["trial"].to_pandas()
            self._latest = joined.take(pa.array(trials.drop_duplicates(keep="last").index))
        self._fresh = []
        return self._latest

    def tidy(self) -> None:
        """For the driver, at its start: removes what compacting left, moves away files that are not reports, compacts.

        Raises:
            OSError: as `read`.
        """
        for path in _entries(self.path):
            if not path.name.startswith(".") and not _NAME.fullmatch(path.name):
                self._quarantine({path: "no report's name"})
        many, one = self._sound()
        self._schema = None
        for table in (*many.values(), *one.values()):
            self._take(table.schema)
        compacted = {number for table in many.values() for number in table[NUMBER].to_pylist()}
        self._singles = {}
        for path, table in one.items():
            (number,) = table[NUMBER].to_pylist()
            if number in compacted:
                path.unlink()
            else:
                self._singles[number] = table
        while len(self._singles) >= COMPACT_AT:
            self.compact()

    def compact(self) -> None:
        """Puts the oldest `COMPACT_AT` files of one report into one file."""
        numbers = sorted(self._singles)[:COMPACT_AT]
        path = self.path / f"{numbers[0]:08d}-{numbers[-1]:08d}.parquet"
        table = _joined([self._singles[number] for number in numbers])
        self._write(path, table_bytes(table))
        try:
            back = _read(path)[NUMBER].to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StorageError(f"{path}: does not read as it was written ({error}); check that disk") from None
        assert back == numbers, path
        for number in numbers:
            del self._singles[number]
            with suppress(OSError):  # what stays is in both, is read once, and goes at the next start
                (self.path / f"{number:08d}.parquet").unlink(missing_ok=True)

    def _take(self, schema: pa.Schema) -> None:
        """Takes note of a table's columns, which must be able to stand in one table with those before."""
        try:
            self._schema = schema if self._schema is None else _united(self._schema, schema)
        except pa.ArrowException:
            assert self._schema is not None
            name, was, now = next(_differences(self._schema, schema))
            raise StorageError(
                f"{self.path}: column {shown(name)} is {was} in the reports there and {now} in a new one; give the "
                "spec another name"
            ) from None

    def _tables(self) -> list[pa.Table]:
        many, one = self._sound()
        taken = {number for table in many.values() for number in table[NUMBER].to_pylist()}
        return [*many.values(), *(table for table in one.values() if table[NUMBER][0].as_py() not in taken)]

    def _sound(self) -> tuple[dict[Path, pa.Table], dict[Path, pa.Table]]:
        """The files that can be read, of many reports and of one; files that are not reports are quarantined."""
        tables: dict[Path, pa.Table] = {}
        bad: dict[Path, str] = {}
        for path in sorted(path for path in _entries(self.path) if _NAME.fullmatch(path.name)):
            try:
                tables[path] = _read(path)
            except ValueError as error:  # not OSError: what cannot be read for now may be sound
                bad[path] = str(error)
        odd = list(_odd(tables))
        bad |= {path: reason for path in odd if (reason := self._why_not(tables[path]))}
        tables = {path: table for path, table in tables.items() if path not in bad}
        odd = [path for path in odd if path in tables]
        if odd:
            named = ", ".join(printable(path.name) for path in odd[:3]) + (", ..." if len(odd) > 3 else "")
            warn(f"{self.path}: left out {named} (columns of other types than most reports have); they stay there")
        tables = {path: table for path, table in tables.items() if path not in odd}
        joined = _joined(list(tables.values()))
        if joined is not None and self._why_not(joined):
            foreign = {path: reason for path, table in tables.items() if (reason := self._why_not(table))}
            if len(foreign) == len(tables):
                path, reason = next(iter(foreign.items()))
                raise RunError(
                    f"{path}: {reason}, as in all reports here, so they are another study's; move them away to "
                    "continue without them"
                )
            tables = {path: table for path, table in tables.items() if path not in foreign}
            bad |= foreign
        if bad:
            self._quarantine(bad, nothing_else=not tables)
        many = {path: table for path, table in tables.items() if "-" in path.name}
        return many, {path: table for path, table in tables.items() if path not in many}

    def _why_not(self, table: pa.Table) -> str | None:
        """What no trial of the study can have reported, if there is such a thing."""
        try:
            self._check(table)
        except ValueError as error:
            return str(error)
        return None


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _read(path: Path) -> pa.Table:
    """A file's reports.

    Raises:
        ValueError: they are no reports, or not those that its name says.
        OSError: not readable.
    """
    match = _NAME.fullmatch(path.name)
    assert match, path
    if not path.is_file() and (path.exists() or path.is_symlink()):
        raise ValueError("not a file")
    table = read_reports(path.read_bytes())
    first, last = int(match[1]), int(match[2] or match[1])
    if match[2] is None:
        if len(table) != 1:
            raise ValueError(f"{len(table):,} rows, and a report is one")
        table = _numbered(table, first)
    numbers = table[NUMBER].to_pylist() if NUMBER in table.column_names else []
    if not numbers or (numbers[0], numbers[-1]) != (first, last) or sorted(set(numbers)) != numbers:
        raise ValueError(f"it says it is report {numbers[0] if len(numbers) == 1 else 'of other numbers'}")
    return table


def _numbered(table: pa.Table, number: int) -> pa.Table:
    """The table of one report with its number, which earlier releases wrote into the file's name only."""
    if NUMBER in table.column_names and table[NUMBER].null_count == 0:
        return table
    bare = table.drop_columns([NUMBER]) if NUMBER in table.column_names else table
    return bare.append_column(NUMBER, pa.array([number], pa.int64()))


def _joined(tables: Sequence[pa.Table]) -> pa.Table | None:
    """One table of them all, by number; a column that some lack is null there. Newer descriptions of columns count."""
    if not tables:
        return None
    joined = pa.concat_tables(tables, promote_options="permissive").sort_by(NUMBER).combine_chunks()
    described: dict[str, Any] = {}
    for table in sorted(tables, key=lambda table: table[NUMBER][0].as_py()):
        described |= {field.name: field.metadata for field in table.schema if field.metadata}
    fields = [field.with_metadata(described.get(field.name)) for field in joined.schema]
    return joined.cast(pa.schema(fields))


def _odd(tables: Mapping[Path, pa.Table]) -> Iterable[Path]:
    """The files whose columns cannot stand in one table with those of most."""
    try:
        _united(*(table.schema for table in tables.values()))
        return []
    except pa.ArrowException:
        votes: dict[str, Counter[pa.DataType]] = {}
        for table in tables.values():
            for field in table.schema:
                votes.setdefault(field.name, Counter())[field.type] += 1
        common = pa.schema([(name, counts.most_common(1)[0][0]) for name, counts in votes.items()])
        return [path for path, table in tables.items() if not _fits(table.schema, common)]


def _united(*schemas: pa.Schema) -> pa.Schema:
    """One schema of them all; raises where a column has types that cannot stand in one table."""
    return pa.unify_schemas(schemas, promote_options="permissive")


def _differences(one: pa.Schema, other: pa.Schema) -> Iterator[tuple[str, pa.DataType, pa.DataType]]:
    """Columns whose types cannot stand in one table."""
    for field in other:
        before = pa.schema([one.field(field.name)] if field.name in one.names else [])
        if not _fits(pa.schema([field]), before):
            yield field.name, before.field(0).type, field.type


def _fits(schema: pa.Schema, common: pa.Schema) -> bool:
    try:
        _united(common, schema)
    except pa.ArrowException:
        return False
    return True
