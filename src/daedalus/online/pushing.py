"""Rows that come in from outside, as a view declares them."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from daedalus.catalog.dtypes import to_arrow
from daedalus.errors import DefinitionError, did_you_mean
from daedalus.online.instants import US, instant_us, known_until
from daedalus.online.json_values import typed
from daedalus.online.model import EVENT_TIME
from daedalus.online.rolling import event_times
from daedalus.storage.exact_cast import cast_exactly

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    from daedalus.catalog.model import FeatureViewDef

_ARROW_STREAM = b"\xff\xff\xff\xff"
_ARROW_FILE = b"ARROW1"
_LINES = 10_000


def read_rows(view: FeatureViewDef, stream: IO[bytes]) -> Iterator[pa.Table]:
    """Rows of JSON lines, 10,000 at a time, or of an Arrow stream or file, in pieces.

    Raises:
        DefinitionError: a line is no JSON object, or a value does not fit its field; says which line.
    """
    start = stream.read(8)
    if start.startswith((_ARROW_STREAM, _ARROW_FILE)):
        source = pa.BufferReader(start + stream.read())
        try:
            if start.startswith(_ARROW_FILE):
                yield pa.ipc.open_file(source).read_all()
            else:
                for batch in pa.ipc.open_stream(source):
                    yield pa.Table.from_batches([batch])
        except pa.ArrowException as error:
            raise DefinitionError(f"the Arrow data cannot be read: {error}", where="input") from None
        return
    rows: list[tuple[int, dict[str, Any]]] = []
    head = start + stream.readline()
    for number, line in enumerate((*head.splitlines(keepends=True), *stream), start=1):
        if line.strip():
            rows.append((number, _object(line, number)))
        if len(rows) == _LINES:
            yield _table(view, rows)
            rows = []
    if rows:
        yield _table(view, rows)


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise DefinitionError(
            "this is no JSON", where=f"line {number}", hint="Write one JSON object per line"
        ) from None
    if not isinstance(found, dict):
        raise DefinitionError(
            "this is no JSON object", where=f"line {number}", hint='Write {"user_id": 1, ...}'
        )
    return found


def _table(view: FeatureViewDef, rows: list[tuple[int, dict[str, Any]]]) -> pa.Table:
    """Rows, each with its line's number, as columns in the view's types."""
    columns = {}
    for name in dict.fromkeys(name for _, row in rows for name in row):
        kind = _type(view, name)
        try:
            columns[name] = typed([row.get(name) for _, row in rows], kind, name)
        except DefinitionError:
            for number, row in rows:
                _require_fit(row.get(name), kind, name, number)
            raise
    return pa.table(columns)


def _require_fit(value: Any, kind: pa.DataType, name: str, number: int) -> None:
    """DefinitionError with the line's number unless the value fits by itself."""
    try:
        typed([value], kind, name)
    except DefinitionError as error:
        raise DefinitionError(error.what, where=f"line {number}", hint=error.hint) from None


def _type(view: FeatureViewDef, name: str) -> pa.DataType:
    if not view.has_field(name):
        raise DefinitionError(
            f"the view has no field {name!r}",
            where=f"view {view.name} ({view.file})",
            hint=did_you_mean(name, [one.name for one in view.fields]),
        )
    return to_arrow(view.field(name).dtype)


def fitted(view: FeatureViewDef, rows: pa.Table) -> pa.Table:
    """Every field of the view in its type, and `__event_time`.

    Raises:
        DefinitionError: an unknown field, a missing key or time, a NULL where there may be none, or a wrong type.
    """
    for name in rows.column_names:
        _type(view, name)
    columns: dict[str, Any] = {}
    for field in view.fields:
        kind = to_arrow(field.dtype)
        needed = field.name in view.join_keys or field.name == view.timestamp_field or not field.nullable
        if field.name not in rows.column_names:
            if needed:
                raise DefinitionError(
                    f"the rows lack {field.name!r}", where=f"view {view.name} ({view.file})"
                )
            columns[field.name] = pa.nulls(rows.num_rows, kind)
            continue
        column = rows.column(field.name)
        if needed and column.null_count:
            raise DefinitionError(
                f"{field.name!r} is NULL in {column.null_count} rows", where=f"view {view.name} ({view.file})"
            )
        columns[field.name] = _exact(column, kind, field.name, view)
    table = pa.table(columns)
    try:
        return table.append_column(EVENT_TIME, event_times(view, table))
    except (pa.ArrowException, OverflowError):
        raise DefinitionError(
            f"{view.timestamp_field!r} holds a time that is out of range",
            where=f"view {view.name} ({view.file})",
        ) from None


def _exact(column: pa.ChunkedArray, kind: pa.DataType, name: str, view: FeatureViewDef) -> pa.ChunkedArray:
    try:
        return cast_exactly(column, kind)
    except pa.ArrowException:
        raise DefinitionError(
            f"{name!r} is {column.type}, and does not fit {kind} without loss",
            where=f"view {view.name} ({view.file})",
        ) from None


def visible(view: FeatureViewDef, rows: pa.Table, instant: dt.datetime) -> pa.ChunkedArray:
    """Which rows can be seen at the instant: arrived, and known."""
    now = instant_us(instant)
    times = rows.column(EVENT_TIME)
    newest = pa.scalar(now - round(view.delay_seconds * US), pa.timestamp("us", "UTC")).cast(times.type)
    seen = pc.fill_null(pc.less_equal(times, newest), not view.timestamp_field)
    if not view.source.created_field:
        return seen
    created = rows.column(view.source.created_field)
    limit: Any = known_until(created.type, view.source.timestamp_unit, now)
    if pa.types.is_date32(created.type):
        created = created.cast(pa.int32())
    elif pa.types.is_timestamp(created.type):
        fine = "ns" if created.type.unit == "ns" else "us"
        created = created.cast(pa.timestamp(fine, created.type.tz)).cast(pa.int64())
    elif pa.types.is_uint64(created.type):
        # Before 1970, nothing that counts from there on was known.
        limit = pa.scalar(limit if limit >= 0 else None, created.type)
    return pc.and_(seen, pc.fill_null(pc.less_equal(created, limit), False))
