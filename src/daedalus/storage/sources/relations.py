"""What the database backends share: table names as people write them, and a time range in a column's own terms."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from typing import TYPE_CHECKING

from daedalus.catalog.dtypes import INTEGERS
from daedalus.errors import DefinitionError
from daedalus.sql.identifiers import quote_ident
from daedalus.storage.sources.base import ticks_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daedalus.storage.sources.base import TickRange

_NAME_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DAY_US = 86_400_000_000


def split_table_name(text: str, *, default_schema: str, where: str) -> tuple[str, str]:
    """Schema and table; a part that holds a dot or a quote stands in double quotes.

    >>> split_table_name("events", default_schema="public", where="")
    ('public', 'events')
    >>> split_table_name('my schema."we.ird ""x"" y"', default_schema="public", where="")
    ('my schema', 'we.ird "x" y')
    """
    parts, position = [], 0
    while position < len(text):
        match = _NAME_PART.match(text, position)
        if match is None:
            break
        parts.append(match[1].replace('""', '"') if match[1] else match[2])
        position = match.end()
        if position < len(text) and text[position] == ".":
            position += 1
            if position == len(text):
                break
        elif position < len(text):
            break
    if position != len(text) or text.endswith(".") or len(parts) not in {1, 2}:
        raise DefinitionError(
            f"table_name {text!r} is not table or schema.table",
            where=where,
            hint='Put a name that holds a dot or a quote into double quotes: "my.table"',
        )
    return (default_schema, parts[0]) if len(parts) == 1 else (parts[0], parts[1])


def relation_label(table: tuple[str, str] | None, query: str) -> str:
    """What a snapshot calls its relation: `schema.table`, or the query by its hash."""
    return ".".join(table) if table else f"query {query_hash(query)}"


def query_hash(query: str) -> str:
    """A name for a query that is the same for equal texts."""
    return hashlib.sha256(query.encode()).hexdigest()[:16]


def chosen(schema: Mapping[str, str], columns: Sequence[str] | None) -> list[str]:
    """The source's columns that are wanted, in its own spelling; all of them without `columns`."""
    if columns is None:
        return list(schema)
    wanted = {name.lower() for name in columns}
    return [name for name in schema if name.lower() in wanted]


def range_conditions(
    time_range: TickRange | None, column: str, dtype: str, unit_us: float, *, postgres: bool = False
) -> list[str]:
    """Conditions that every row of the range meets, on the raw column, so that the backend can use them.

    They may let in rows just outside the range, which the view's reader cuts exactly; a column of any other type
    (a text, a float) gives none.

    Args:
        time_range: what is read.
        column: the raw time column.
        dtype: its DuckDB type.
        unit_us: microseconds per tick where it is an integer.
        postgres: write Postgres' SQL in place of DuckDB's.
    """
    if time_range is None:
        return []
    name = quote_ident(column)
    found = []
    low, high = time_range.low_us, time_range.high_us
    if low is not None and (text := _literal(low, dtype, unit_us, postgres=postgres, up=False)):
        found.append(f"{name} >= {text}")
    if high is not None and (text := _literal(high, dtype, unit_us, postgres=postgres, up=True)):
        found.append(f"{name} {'<=' if dtype == 'DATE' else '<'} {text}")
    return found


def _literal(us: int, dtype: str, unit_us: float, *, postgres: bool, up: bool) -> str:
    if dtype in INTEGERS:
        return str(ticks_of(us, unit_us, up=up))
    if dtype == "DATE":
        us = us // _DAY_US * _DAY_US
    try:
        moment = _EPOCH + dt.timedelta(microseconds=us)
    except OverflowError:
        return ""
    text = moment.replace(tzinfo=None).isoformat(sep=" ")
    if dtype == "DATE":
        return f"DATE '{text[:10]}'"
    if dtype == "TIMESTAMP":
        return f"TIMESTAMP '{text}'"
    if dtype == "TIMESTAMP WITH TIME ZONE":
        return f"TIMESTAMPTZ '{text}+00'" if postgres else f"CAST(TIMESTAMP '{text}' AS TIMESTAMPTZ)"
    return ""
