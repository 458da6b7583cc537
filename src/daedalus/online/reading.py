"""Records as they came back to the values of a request: what is visible at the instant, in the reader's schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from daedalus.errors import ExecutionError
from daedalus.online.decoding import Decoded
from daedalus.online.instants import US, known_until
from daedalus.online.layout import BIAS, DELETED, FORMAT, HEADER_DTYPE, unreadable
from daedalus.online.model import Status, TableValues, unbiased
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
    if all(records):
        filled = cast("list[bytes]", records)
    else:
        missing = np.flatnonzero([one is None for one in records])
        filled = [layout.empty if one is None else one for one in records]
    decoded = Decoded.of(layout, filled)
    head = decoded.head if decoded is not None else _heads(filled, layout.subject)
    whole = not len(missing) and _all_visible(table, head, as_of_us)
    status = np.zeros(len(head), np.uint8) if whole else _statuses(table, head, missing, as_of_us)
    shown = None if whole else status == Status.FOUND
    definition: Sequence[str]
    if decoded is not None:
        batch = decoded.batch(shown)
        definition = [layout.definition] * len(filled)
    else:
        batch, definition = _converted(layout, filled, shown, schemas)
    if len(missing):
        definition = list(definition)
        for at in missing.tolist():
            definition[at] = ""
    return TableValues(
        table=table,
        keys=request.keys,
        batch=batch,
        head=head,
        status=status,
        all_found=whole or not status.any(),
        as_of_us=as_of_us,
        definition=definition,
    )


def _all_visible(table: OnlineTable, head: NDArray[Any], now: int) -> bool:
    """Whether the oldest and the newest event already tell that every row is found; False says nothing.

    Most reads end here: NumPy takes longer to judge a few rows than the store to send them.
    """
    if not len(head) or table.created_field or head["flags"].tobytes() != bytes(len(head)):
        return False
    times = head["event"]
    oldest, newest = int(np.minimum.reduce(times)), int(np.maximum.reduce(times))
    late = now - round(table.delay_seconds * US) + BIAS
    since = 1 if table.ttl_seconds is None else now - round(table.ttl_seconds * US) + BIAS
    if newest == late and head["event_ns"].any():
        return False
    return bool(max(since, 1) <= oldest and newest <= late)


def _statuses(
    table: OnlineTable, head: NDArray[Any], missing: NDArray[np.int64], now: int
) -> NDArray[np.uint8]:
    has_event = head["event"] != 0
    event = unbiased(head["event"])
    status = np.zeros(len(head), np.uint8)
    if table.ttl_seconds is not None:
        # In whole microseconds, as the materialization counts; what is left below one belongs to the event.
        status[has_event & (event < now - round(table.ttl_seconds * US))] = Status.EXPIRED
    late = now - round(table.delay_seconds * US)
    unseen = (event > late) | ((event == late) & (head["event_ns"] > 0))
    unseen &= has_event
    if table.created_field:
        unseen |= _created_after(table, head["created"], now)
    status[unseen] = Status.NOT_YET
    status[((head["flags"] & DELETED) != 0) & (event <= now)] = Status.DELETED
    status[missing] = Status.MISSING
    return status


def _created_after(table: OnlineTable, created: NDArray[Any], now: int) -> NDArray[np.bool_]:
    kind = table.layout.schema.field(table.created_field).type
    limit = known_until(kind, table.created_unit, now)
    # As records have it: numbers without a sign as they are, all others biased.
    late: NDArray[np.bool_] = (created if pa.types.is_uint64(kind) else unbiased(created)) > limit
    return late


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
) -> tuple[pa.RecordBatch, list[str]]:
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
    (batch,) = table.take(pa.array(back)).combine_chunks().to_batches()
    return batch, definition


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
    columns = dict(zip((slot.name for slot in own.slots), decoded.batch(shown).columns, strict=True))
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
