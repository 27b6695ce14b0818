"""Between Arrow and pandas, and a table as the bytes of a Parquet file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


def to_frame(table: pa.Table | None) -> pd.DataFrame:
    """As pandas: whole numbers and truth values keep their type where some are missing."""
    if table is None:
        return pd.DataFrame()
    # Without the file's own word on indices and types, which anybody may have written.
    frame: pd.DataFrame = table.to_pandas(types_mapper=_nullable, ignore_metadata=True)
    return frame


def to_arrow(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`, in its types; null where `frame` has none."""
    present: Iterable[str] = [name for name in schema.names if name in frame.columns]
    table = pa.Table.from_pandas(frame[list(present)], preserve_index=False)
    arrays = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(frame), field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def table_bytes(table: pa.Table) -> bytes:
    """The table as a Parquet file."""
    sink = pa.BufferOutputStream()
    # A dictionary of one value costs half of the time that a report takes to write.
    pq.write_table(table, sink, compression="zstd", use_dictionary=len(table) > 1)
    return bytes(sink.getvalue())


def _nullable(kind: pa.DataType) -> Any:
    """All other types are pandas' own choice."""
    if pa.types.is_integer(kind):
        return pd.Int64Dtype()
    if pa.types.is_boolean(kind):
        return pd.BooleanDtype()
    return None
