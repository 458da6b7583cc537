"""How each column of a Postgres relation is read, so that no value changes on the way and none is compared otherwise.

DuckDB reads a table through its catalog, with its own filters handed on, or takes what a statement gives. The two
differ for some types, and for some neither is right: an unbounded numeric would be rounded to a double, a NaN in a
bounded one would become 0, a domain or an enum has another type on each way. So a view that declares such a column is
read by statements, in which the column is converted by the server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daedalus.sql.identifiers import quote_ident, quote_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Rows = Callable[[str], list[tuple[Any, ...]]]

#: Types that both ways read alike, and that the server compares as DuckDB does.
_ALIKE = frozenset(
    {
        "bool",
        "int2",
        "int4",
        "int8",
        "float4",
        "float8",
        "text",
        "varchar",
        "bpchar",
        "bytea",
        "date",
        "timestamp",
    }
    | {"timestamptz", "time", "uuid", "json", "jsonb"}
)
_LISTED = _ALIKE - {"bytea", "json", "jsonb", "bpchar"}
_JSON = frozenset({"json", "jsonb"})
_FLOATS_AND_TEXT = ("DOUBLE", "FLOAT", "HALF_FLOAT", "VARCHAR")
_MOST_DIGITS = 38
_DECIMAL = re.compile(r"^DECIMAL\((\d+),(\d+)\)(\[\])?$")
#: The types that a type is made of: of a domain, an array, a composite.
_PARTS_SQL = """
WITH RECURSIVE part(root, oid) AS (
    SELECT o, o FROM unnest(ARRAY[{oids}]::oid[]) AS o
    UNION
    SELECT part.root, inner_type.oid FROM part JOIN pg_type AS t ON t.oid = part.oid CROSS JOIN LATERAL (
        SELECT t.typbasetype AS oid WHERE t.typtype = 'd'
        UNION ALL SELECT t.typelem WHERE t.typcategory = 'A' AND t.typelem <> 0
        UNION ALL SELECT a.atttypid FROM pg_attribute AS a
            WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS inner_type
)
SELECT part.root::bigint AS root, t.typname::text AS name, t.typtype::text AS kind, (t.typcategory = 'A') AS is_array
FROM part JOIN pg_type AS t ON t.oid = part.oid
"""
#: Columns of a table that are compared by rules of their own, or hold arrays of arrays.
_ODD_SQL = """
SELECT a.attname::text AS name, (a.attndims > 1) AS nested
FROM pg_attribute AS a LEFT JOIN pg_collation AS c ON c.oid = a.attcollation
WHERE a.attrelid = {relation}::regclass AND a.attnum > 0 AND NOT a.attisdropped
    AND (a.attndims > 1 OR NOT coalesce(c.collisdeterministic, true))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresColumn:
    """One column of a relation.

    Attributes:
        dtype: the DuckDB type it is read as.
        remote: the server's expression that gives it; empty for the column itself.
        is_nan: the server's condition for a value that `dtype` does not have; empty where there is none.
        direct: whether DuckDB may read it through its catalog.
        is_json: whether it comes as a text, though it is JSON.
    """

    name: str
    dtype: str
    remote: str = ""
    is_nan: str = ""
    direct: bool = False
    is_json: bool = False


@dataclass(slots=True)
class _Kind:
    """What a type is made of: its base types, and whether it is an array, a composite, a domain or an enum."""

    bases: set[str]
    is_array: bool = False
    is_composite: bool = False
    is_own: bool = False


def postgres_columns(
    types: Mapping[str, str], declared: Mapping[str, str], relation: str, *, is_table: bool, rows: Rows
) -> tuple[PostgresColumn, ...]:
    """The relation's columns.

    Args:
        types: (column, DuckDB type) as a statement would give them.
        declared: the view's dtype by source column, in lower case.
        relation: the table or query as a Postgres FROM item.
        is_table: whether it is a table.
        rows: runs a Postgres query.
    """
    kinds = _kinds(list(types), relation, rows)
    odd: dict[str, bool] = {}
    if is_table:
        odd = dict(rows(_ODD_SQL.format(relation=quote_literal(relation))))
    return tuple(
        _column(name, dtype, kinds[name], declared.get(name.lower(), ""), odd.get(name))
        for name, dtype in types.items()
    )


def _kinds(names: Sequence[str], relation: str, rows: Rows) -> dict[str, _Kind]:
    if not names:
        return {}
    items = ", ".join(
        f"pg_typeof(r.{quote_ident(name)})::oid::bigint AS kind_{at}" for at, name in enumerate(names)
    )
    (oids,) = rows(
        f"SELECT {items} FROM (SELECT 1) AS one LEFT JOIN (SELECT * FROM {relation} LIMIT 0) AS r ON true"
    )
    found: dict[int, _Kind] = {oid: _Kind(set()) for oid in oids}
    distinct = ", ".join(str(oid) for oid in sorted(found))
    for root, name, kind, is_array in rows(_PARTS_SQL.format(oids=distinct)):
        one = found[root]
        one.is_array |= is_array
        one.is_composite |= kind == "c"
        one.is_own |= kind in ("d", "e")
        if not is_array and kind not in ("d", "c"):
            one.bases.add(name)
    return {name: found[oid] for name, oid in zip(names, oids, strict=True)}


def _column(name: str, dtype: str, kind: _Kind, declared: str, nested: bool | None) -> PostgresColumn:
    ident = quote_ident(name)
    if nested:
        # What a statement gives does not say how deep an array is.
        return PostgresColumn(name=name, dtype="JSON", remote=f"to_jsonb({ident})", is_json=True)
    if "numeric" in kind.bases and not kind.is_composite:
        return _numeric(name, dtype, kind, declared)
    if (
        kind.is_array
        and dtype == "VARCHAR"
        and kind.is_own
        and not kind.is_composite
        and "bytea" not in kind.bases
    ):
        return PostgresColumn(name=name, dtype="VARCHAR[]", remote=f"{ident}::text[]")
    plain = not kind.is_own and not kind.is_composite and nested is None
    direct = plain and kind.bases <= (_LISTED if kind.is_array else _ALIKE)
    is_json = kind.bases <= _JSON and not kind.is_array and not kind.is_composite
    return PostgresColumn(name=name, dtype="JSON" if is_json else dtype, direct=direct, is_json=is_json)


def _numeric(name: str, dtype: str, kind: _Kind, declared: str) -> PostgresColumn:
    ident, suffix = quote_ident(name), "[]" if kind.is_array else ""
    bounds = _DECIMAL.match(dtype)
    exact = bounds is not None and int(bounds[2]) <= int(bounds[1]) <= _MOST_DIGITS
    if not exact or declared.removesuffix("[]") in _FLOATS_AND_TEXT:
        return PostgresColumn(name=name, dtype=f"VARCHAR{suffix}", remote=f"{ident}::text{suffix}")
    is_nan = f"'NaN'::numeric = ANY({ident})" if kind.is_array else f"{ident} = 'NaN'::numeric"
    return PostgresColumn(name=name, dtype=dtype, is_nan=is_nan)
