"""Stored events back as rows, in their view's total order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from daedalus.online.arrays import one_array
from daedalus.online.reading import converted_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daedalus.online.layout import RecordLayout
    from daedalus.online.model import EventIndex, EventRequest


def ordered_events(
    request: EventRequest,
    members: Sequence[list[bytes] | None],
    schemas: Callable[[bytes, str], RecordLayout],
) -> pa.Table:
    """The events of all keys: the index's keys, then its fields, in the view's total order.

    Args:
        request: what was asked.
        members: per key asked for, what is stored.
        schemas: the layout of an id.
    """
    layout = request.index.layout
    seen: dict[tuple[object, ...], int] = {}
    records: list[bytes] = []
    of_key: list[int] = []
    values = [column.to_pylist() for column in request.keys]
    for at, found in enumerate(members):
        key = tuple(column[at] for column in values)
        # The same entity may be asked for twice; its events are there once.
        if found and key not in seen:
            seen[key] = at
            records += found
            of_key += [at] * len(found)
    rows, kept = _rows(layout, records, of_key, schemas)
    places = pa.array(kept, pa.int64())
    keys = [one_array(column).take(places) for column in request.keys]
    schema = pa.schema(
        [
            *(pa.field(name, array.type) for (name, _), array in zip(layout.keys, keys, strict=True)),
            *rows.schema,
        ]
    )
    table = pa.Table.from_arrays([*keys, *rows.columns], schema=schema)
    return table.take(_total_order(table, request.index))


def _rows(
    layout: RecordLayout,
    records: list[bytes],
    of_key: list[int],
    schemas: Callable[[bytes, str], RecordLayout],
) -> tuple[pa.Table, list[int]]:
    """The records in the reader's schema, and the key of each."""
    by_schema: dict[bytes, list[int]] = {}
    for at, record in enumerate(records):
        by_schema.setdefault(bytes(record[2:6]), []).append(at)
    own = by_schema.pop(layout.schema_id, [])
    tables = [converted_rows(layout, layout, [records[at] for at in own])] if own else []
    kept = [of_key[at] for at in own]
    for schema_id, places in by_schema.items():
        other = schemas(schema_id, layout.subject)
        table = converted_rows(other, layout, [records[at] for at in places])
        keys = [of_key[at] for at in places]
        if tables:
            # An event that was pushed again after the schema changed counts once.
            common = [name for name, _ in layout.fields if name in dict(other.fields)]
            known = _identities(pa.concat_tables(tables), kept, common)
            fresh = [at for at, one in enumerate(_identities(table, keys, common)) if one not in set(known)]
            table, keys = table.take(pa.array(fresh, pa.int64())), [keys[at] for at in fresh]
        tables.append(table)
        kept = kept + keys
    return (pa.concat_tables(tables) if tables else layout.schema.empty_table()), kept


def _identities(table: pa.Table, keys: list[int], names: list[str]) -> list[str]:
    columns = [table.column(name).to_pylist() for name in names]
    return [repr(row) for row in zip(keys, *columns, strict=True)]


def _total_order(table: pa.Table, index: EventIndex) -> pa.Array:
    """Positions in the order of section 1 of the semantics: NULLs first, NaN last."""
    leading = [index.time_field, index.created_field, index.sequence_field, *index.entity_keys]
    scalars = sorted(field.name for field in table.schema if not pa.types.is_nested(field.type))
    names = [name for name in dict.fromkeys([*leading, *scalars]) if name]
    columns, terms = [], []
    for name in names:
        column = table.column(name)
        if isinstance(column.type, pa.BaseExtensionType):
            column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
        if pa.types.is_floating(column.type):
            wide = column.cast(pa.float64())
            columns.append(pc.fill_null(pc.is_nan(wide), False))
            terms.append((f"{len(columns)}", "ascending", "at_start"))
            column = wide
        elif pa.types.is_interval(column.type):
            continue
        columns.append(column)
        terms.append((f"{len(columns)}", "ascending", "at_start"))
    sortable = pa.table({f"{at + 1}": column for at, column in enumerate(columns)})
    if not sortable.num_rows:
        return pa.array(np.zeros(0, np.int64))
    return pc.sort_indices(sortable, sort_keys=terms)
