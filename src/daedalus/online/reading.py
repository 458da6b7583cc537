"""Records as they came back to the values of a request: what is visible at the instant, in the reader's schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from daedalus.errors import ExecutionError
from daedalus.online.encoding import Decoded
from daedalus.online.layout import DELETED, FORMAT, HEADER_DTYPE, unreadable
from daedalus.online.model import US, Status, TableValues, unbiased
from daedalus.storage.exact_cast import cast_exactly

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from daedalus.online.layout import RecordLayout
    from daedalus.online.model import OnlineTable, ReadRequest

    Schemas = Callable[[bytes, str], RecordLayout]


def table_values(
    request: ReadRequest, records: list[bytes | None], as_of_us: int, schemas: Schemas
) -> TableValues:
    """The values of one request.

    Args:
        request: what was asked.
        records: as stored, one per key; None where there is none.
        as_of_us: the instant.
        schemas: the layout of an id, for records of another schema than the reader's.
    """
    table = request.table
    layout = table.layout
    missing = np.zeros(0, np.int64)
    filled: Sequence[bytes]
    if None in records:
        missing = np.flatnonzero([one is None for one in records])
        filled = [layout.empty if one is None else one for one in records]
    else:
        filled = [one for one in records if one is not None]
    decoded = Decoded.of(layout, filled)
    head = decoded.head if decoded is not None else _heads(filled, layout.subject)
    status, event, has_event = _statuses(table, head, missing, as_of_us)
    shown = None if not status.any() else status == Status.FOUND
    definition: Sequence[str]
    if decoded is not None:
        arrays = decoded.columns(shown)
        definition = [layout.definition] * len(filled)
    else:
        arrays, definition = _converted(layout, filled, shown, schemas)
    if len(missing):
        definition = list(definition)
        for at in missing.tolist():
            definition[at] = ""
    return TableValues(
        table=table,
        keys=request.keys,
        arrays=arrays,
        status=status,
        event_us=event,
        has_event=has_event,
        written_us=head["written"].astype(np.int64),
        as_of_us=as_of_us,
        definition=definition,
    )


def _statuses(
    table: OnlineTable, head: NDArray[Any], missing: NDArray[np.int64], now: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    has_event = head["event"] != 0
    event = unbiased(head["event"])
    status = np.zeros(len(head), np.uint8)
    if table.ttl_seconds is not None:
        # In whole microseconds, as the materialization counts; what is left below one belongs to the event.
        status[has_event & (event < now - round(table.ttl_seconds * US))] = Status.EXPIRED
    late = now - round(table.delay_seconds * US)
    unseen = event > late
    if head["event_ns"].any():
        unseen |= (event == late) & (head["event_ns"] > 0)
    unseen &= has_event
    if table.created_field and _created_is_time(table):
        unseen |= unbiased(head["created"]) > _in_unit_of_created(table, now)
    status[unseen] = Status.NOT_YET
    if head["flags"].any():
        status[((head["flags"] & DELETED) != 0) & (event <= now)] = Status.DELETED
    if len(missing):
        status[missing] = Status.MISSING
    return status, event, has_event


def _created_is_time(table: OnlineTable) -> bool:
    kind = table.layout.schema.field(table.created_field).type
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date32(kind))


def _in_unit_of_created(table: OnlineTable, now_us: int) -> int:
    kind = table.layout.schema.field(table.created_field).type
    if pa.types.is_date32(kind):
        return now_us // (86_400 * US)
    return now_us * 1000 if kind.unit == "ns" else now_us


def _heads(records: Sequence[bytes], subject: str) -> NDArray[Any]:
    size = HEADER_DTYPE.itemsize
    heads = b"".join([one[:size] for one in records])
    found: NDArray[Any] = np.frombuffer(heads, HEADER_DTYPE, len(heads) // size)
    if len(heads) != size * len(records):
        raise unreadable(subject, "it is too short")
    if (found["format"] != FORMAT).any():
        raise unreadable(subject, f"its format is not {FORMAT}; a newer Daedalus may have written it")
    return found


def _converted(
    layout: RecordLayout, records: Sequence[bytes], shown: NDArray[np.bool_] | None, schemas: Schemas
) -> tuple[list[pa.Array], list[str]]:
    """Columns of records of several schemas, in the reader's."""
    groups: dict[bytes, list[int]] = {}
    for at, record in enumerate(records):
        groups.setdefault(bytes(record[2:6]), []).append(at)
    tables, order, definition = [], [], [""] * len(records)
    for schema_id, places in groups.items():
        own = layout if schema_id == layout.schema_id else schemas(schema_id, layout.subject)
        visible = None if shown is None else shown[places]
        tables.append(converted_rows(own, layout, [records[at] for at in places], visible))
        order += places
        for at in places:
            definition[at] = own.definition
    table = pa.concat_tables(tables).combine_chunks()
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    taken = table.take(pa.array(back)).combine_chunks()
    arrays = [column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in taken.columns]
    return arrays, definition


def converted_rows(
    own: RecordLayout, layout: RecordLayout, records: Sequence[bytes], shown: NDArray[np.bool_] | None = None
) -> pa.Table:
    """Records of one schema in another: a field that they lack is NULL, one of another type is cast without loss.

    Raises:
        ExecutionError: the records are damaged, or a value does not fit the reader's type.
    """
    decoded = Decoded.of(own, records)
    if decoded is None:
        raise unreadable(own.subject, "it does not fit its schema")
    columns = dict(zip((slot.name for slot in own.slots), decoded.columns(shown), strict=True))
    arrays = []
    for field in layout.schema:
        column = columns.get(field.name)
        if column is None:
            arrays.append(pa.nulls(len(records), field.type))
        else:
            arrays.append(_cast(column, field, layout.subject))
    return pa.Table.from_arrays(arrays, schema=layout.schema)


def _cast(column: pa.Array, field: pa.Field, subject: str) -> pa.Array:
    try:
        return cast_exactly(column, field.type)
    except pa.ArrowException:
        raise ExecutionError(
            f"field {field.name!r} was written as {column.type}, and does not fit {field.type} without loss",
            where=subject,
            hint="Materialize it again with --online",
        ) from None
