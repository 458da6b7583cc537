"""Snowflake's columns as DuckDB's, and a result's Arrow batches as one Parquet file.

    NUMBER(p,0)                BIGINT up to 18 digits, or where the view declares whole numbers or ticks;
                               else DECIMAL(38,0)
    NUMBER(p,s)                DECIMAL(p,s)
    FLOAT                      DOUBLE
    VARCHAR, BOOLEAN, DATE     of that name
    BINARY                     BLOB
    TIME                       TIME
    TIMESTAMP_NTZ              TIMESTAMP; TIMESTAMP_NS where the view declares it
    TIMESTAMP_LTZ, _TZ         TIMESTAMP WITH TIME ZONE (the instant); TIMESTAMP_NS where the view declares it
    VARIANT, OBJECT, ARRAY     JSON

The client gives one column another Arrow type in each batch (int64 here, decimal there; microseconds, nanoseconds):
every batch is brought to the one type, without loss or with an error that shows the first value that does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from daedalus.catalog.dtypes import is_integer
from daedalus.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_PLAIN = {
    "REAL": ("DOUBLE", pa.float64()),
    "TEXT": ("VARCHAR", pa.string()),
    "BOOLEAN": ("BOOLEAN", pa.bool_()),
    "DATE": ("DATE", pa.date32()),
    "BINARY": ("BLOB", pa.binary()),
    "TIME": ("TIME", pa.time64("us")),
    "VARIANT": ("JSON", pa.string()),
    "OBJECT": ("JSON", pa.string()),
    "ARRAY": ("JSON", pa.string()),
}
_ZONED = ("TIMESTAMP_LTZ", "TIMESTAMP_TZ")
_BIGINT_DIGITS = 18
_MICROSECONDS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SnowflakeColumn:
    """One column of a result.

    Attributes:
        kind: Snowflake's name of its type, such as `FIXED`.
        dtype: the DuckDB type it is read as.
        shown: its type as Snowflake writes it, for messages.
    """

    name: str
    kind: str
    dtype: str
    arrow: pa.DataType
    shown: str


def columns_of(
    description: Iterable[Any], declared: dict[str, str], where: str
) -> tuple[SnowflakeColumn, ...]:
    """The columns of a result.

    Args:
        description: the cursor's.
        declared: the view's dtype by source column, in lower case.
        where: how messages name the source.

    Raises:
        SourceError: a column that the view declares has a type that cannot be read.
    """
    found = []
    for item in description:
        column = _column(item, declared.get(item.name.lower(), ""))
        if column is not None:
            found.append(column)
        elif item.name.lower() in declared:
            raise SourceError(
                f"column {item.name} has a type that is not read from Snowflake ({_kind(item)})",
                where=where,
                hint="Cast it in source.query, for instance to VARCHAR or VARIANT",
            )
    return tuple(found)


def _kind(item: Any) -> str:
    from snowflake.connector.constants import FIELD_ID_TO_NAME

    return str(FIELD_ID_TO_NAME.get(item.type_code, f"type {item.type_code}"))


def _column(item: Any, declared: str) -> SnowflakeColumn | None:
    kind = _kind(item)
    precision, scale = item.precision or 0, item.scale or 0
    shown = kind
    if kind == "FIXED":
        shown = f"NUMBER({precision},{scale})"
        dtype, arrow = _number(precision, scale, declared)
    elif kind.startswith("TIMESTAMP"):
        shown = f"{kind}({scale})"
        dtype, arrow = _instant(kind, scale, declared)
    elif kind in _PLAIN:
        dtype, arrow = _PLAIN[kind]
    else:
        return None
    return SnowflakeColumn(name=item.name, kind=kind, dtype=dtype, arrow=arrow, shown=shown)


def _number(precision: int, scale: int, declared: str) -> tuple[str, pa.DataType]:
    if scale:
        return f"DECIMAL({precision},{scale})", pa.decimal128(precision, scale)
    # NUMBER(38,0) is what Snowflake calls an integer: what the view declares says whether 64 bits are enough.
    whole = declared and (declared.startswith("TIMESTAMP") or is_integer(declared))
    if precision <= _BIGINT_DIGITS or (whole and declared not in ("HUGEINT", "UBIGINT")):
        return "BIGINT", pa.int64()
    return "DECIMAL(38,0)", pa.decimal128(38, 0)


def _instant(kind: str, scale: int, declared: str) -> tuple[str, pa.DataType]:
    if scale > _MICROSECONDS and declared == "TIMESTAMP_NS":
        return "TIMESTAMP_NS", pa.timestamp("ns")
    if kind in _ZONED:
        return "TIMESTAMP WITH TIME ZONE", pa.timestamp("us", "UTC")
    return "TIMESTAMP", pa.timestamp("us")


def spool(batches: Iterable[pa.Table], columns: Sequence[SnowflakeColumn], path: Path, where: str) -> None:
    """Write a result's batches to one Parquet file, holding one at a time.

    Raises:
        SourceError: a value does not fit its column's type; names the first.
    """
    import pyarrow.parquet as pq

    schema = pa.schema([pa.field(column.name, column.arrow) for column in columns])
    with pq.ParquetWriter(path, schema, compression="lz4") as writer:
        for batch in batches:
            if batch.num_rows:
                parts = [_fitted(batch.column(at), column, where) for at, column in enumerate(columns)]
                writer.write_table(pa.Table.from_arrays(parts, schema=schema))


def _fitted(values: pa.ChunkedArray, column: SnowflakeColumn, where: str) -> pa.ChunkedArray:
    if values.type == column.arrow:
        return values
    try:
        return _cast(values, column.arrow)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        first = _first_unfit(values, column.arrow)
        raise SourceError(
            f"column {column.name}: a value of type {column.shown} does not fit {column.dtype} without loss. "
            f"The first such value: {first}",
            where=where,
            hint=_mend(column),
        ) from None


def _cast(values: Any, target: pa.DataType) -> Any:
    if (
        pa.types.is_timestamp(values.type)
        and pa.types.is_timestamp(target)
        and values.type.tz
        and not target.tz
    ):
        values = values.cast(pa.timestamp(values.type.unit, "UTC"))
    return values.cast(target)


def _first_unfit(values: pa.ChunkedArray, target: pa.DataType) -> str:
    for chunk in values.chunks:
        for at in range(len(chunk)):
            one = chunk.slice(at, 1)
            try:
                _cast(one, target)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                return str(one.cast(pa.string())[0].as_py())
    return "?"


def _mend(column: SnowflakeColumn) -> str:
    if column.kind.startswith("TIMESTAMP"):
        return f"Declare the field {'TIMESTAMP' if column.dtype == 'TIMESTAMP_NS' else 'TIMESTAMP_NS'}"
    if column.kind == "FIXED":
        return "Declare the field HUGEINT or DECIMAL(38,0)"
    return "Cast the column in source.query"
