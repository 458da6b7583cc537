"""Each SQL operator as one SELECT over its inputs' names. The executor runs these, `explain` prints them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from daedalus.catalog.dtypes import to_duckdb
from daedalus.catalog.model import Unset
from daedalus.compute.sql_tier import Relation, rolling_select
from daedalus.pipelines.operators import ROW, TICK
from daedalus.pipelines.schema import checked_fragment, filter_fragments
from daedalus.sql.choices import case_sql, is_boxed
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.storage.view_source import ERROR_MARK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daedalus.pipelines.operators import (
        Filter,
        Join,
        PointInTimeJoin,
        Project,
        ProjectColumn,
        RollingAggregate,
    )

Types = dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Tick:
    """Time in ticks: their number per second, and the target day's bounds."""

    per_second: int
    day_start: int
    day_end: int

    def of(self, seconds: float) -> int:
        """A span in ticks, rounded to the nearest."""
        return round(seconds * self.per_second)


def filter_sql(operator: Filter, types: Types, tick: Tick) -> str:
    """The input's rows that pass."""
    source = quote_ident(operator.inputs[0])
    predicate, counts = filter_fragments(operator, types, operator.name)
    if counts:
        groups = ", ".join(quote_ident(name) for name in operator.group_by)
        partition = f"PARTITION BY {groups}" if groups else ""
        counted = ", ".join(
            f"count(*) FILTER (WHERE {fragment.render()}) OVER ({partition}) AS {quote_ident(name)}"
            for name, fragment in counts.items()
        )
        source = f"(SELECT *, {counted} FROM {source})"
    conditions = []
    if operator.target_day:
        conditions.append(f"{TICK} >= {tick.day_start} AND {TICK} < {tick.day_end}")
    if predicate is not None:
        conditions.append(predicate.render())
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT {', '.join(quote_ident(name) for name in types)} FROM {source}{where}"


def join_sql(operator: Join, right_types: Types, tick: Tick) -> str:
    """The left rows with the right columns beside them."""
    left, right = (quote_ident(name) for name in operator.inputs)
    on = _equalities(operator.on)
    items = ["l.*", *_joined_columns(operator, right_types, tick, "r")]
    if operator.marker:
        items.append(f"r.{quote_ident(operator.on[0][1])} IS NOT NULL AS {quote_ident(operator.marker)}")
    return f"SELECT {', '.join(items)} FROM {left} AS l {operator.how.upper()} JOIN {right} AS r ON {on}"


def _equalities(pairs: tuple[tuple[str, str], ...], right: str = "r") -> str:
    return " AND ".join(f"l.{quote_ident(one)} = {right}.{quote_ident(two)}" for one, two in pairs)


def _joined_columns(
    operator: Join | PointInTimeJoin, right_types: Types, tick: Tick, alias: str
) -> list[str]:
    """The right columns under their output names; NULL where the right row is older than the ttl."""
    items = []
    for name, column in operator.columns:
        value = f"{alias}.{quote_ident(column)}"
        if operator.ttl_seconds is not None:
            alive = f"{alias}.{TICK} >= l.{TICK} - {tick.of(operator.ttl_seconds)}"
            value = case_sql(right_types[column], (alive, value))
        items.append(f"{value} AS {quote_ident(name)}")
    return items


def asof_sql(operator: PointInTimeJoin, right_types: Types, tick: Tick, created_tick: str) -> str:
    """The newest right version that was known strictly before each left row.

    A version is available from the later of its event time plus delay and the time it became known. Per key and
    instant of availability the best version so far (by the total order) is one row, which makes the ASOF join
    free of ties.

    Args:
        operator: the join.
        right_types: the right input's columns.
        tick: the day's unit of time.
        created_tick: SQL of the instant a version became known, or an empty string.
    """
    left, right = (quote_ident(name) for name in operator.inputs)
    keys = [column for _, column in operator.on]
    key_list = ", ".join(quote_ident(key) for key in keys)
    available = f"{TICK} + {tick.of(operator.delay_seconds)}"
    known = [f"{TICK} IS NOT NULL", *(f"{quote_ident(key)} IS NOT NULL" for key in keys)]
    if created_tick:
        available = f"greatest({available}, {created_tick})"
        known.append(f"{created_tick} IS NOT NULL")
    best = (
        f"SELECT {key_list}, __available, max(max({ROW})) OVER (PARTITION BY {key_list} ORDER BY __available) "
        f"AS __best FROM (SELECT {key_list}, {ROW}, {available} AS __available FROM {right} "
        f"WHERE {' AND '.join(known)}) GROUP BY {key_list}, __available"
    )
    items = ["l.*", *_joined_columns(operator, right_types, tick, "v")]
    return (
        f"SELECT {', '.join(items)} FROM {left} AS l\n"
        f"ASOF LEFT JOIN (\n{best}\n) AS b ON {_equalities(operator.on, 'b')} AND l.{TICK} > b.__available\n"
        f"LEFT JOIN {right} AS v ON v.{ROW} = b.__best"
    )


def rolling_sql(operator: RollingAggregate | PointInTimeJoin, types: Mapping[str, Types], tick: Tick) -> str:
    """The rows with the specs' columns beside them, all in SQL."""
    rows, history, *others = operator.inputs
    histories: dict[str | None, Relation] = {None: _relation(history, types[history])}
    if operator.op_kind == "pit_join":
        histories |= {spec.history_view: _relation(history, types[history]) for spec in operator.specs}
    else:
        views = [view for view, _ in operator.histories]  # type: ignore[union-attr]
        histories |= {view: _relation(name, types[name]) for view, name in zip(views, others, strict=True)}
    select = rolling_select(
        operator.specs,
        spine=_relation(rows, types[rows]),
        histories=histories,
        ticks_per_second=tick.per_second,
    )
    made = ", ".join(f"r.{quote_ident(spec.name)}" for spec in operator.specs)
    return f"SELECT l.*, {made} FROM {quote_ident(rows)} AS l JOIN (\n{select}\n) AS r ON r.{ROW} = l.{ROW}"


def _relation(name: str, types: Types) -> Relation:
    return Relation(name=quote_ident(name), types=tuple(types.items()))


def project_sql(operator: Project, types: Types, absent: frozenset[str]) -> str:
    """Computed columns beside the input's, or in their place.

    Args:
        operator: the projection.
        types: the input's columns.
        absent: input columns that their source lacks; a column that is only such a one takes its default.
    """
    made = {column.name: column_sql(column, types, absent, operator.name) for column in operator.columns}
    if not operator.extend:
        positions = [name for name in (TICK, ROW) if name in types and name not in made]
        items = [f"{sql} AS {quote_ident(name)}" for name, sql in made.items()]
        items += [quote_ident(name) for name in positions]
    else:
        items = [
            f"{made[name]} AS {quote_ident(name)}" if name in made else quote_ident(name) for name in types
        ]
        items += [f"{sql} AS {quote_ident(name)}" for name, sql in made.items() if name not in types]
    return f"SELECT {', '.join(items)} FROM {quote_ident(operator.inputs[0])}"


def column_sql(column: ProjectColumn, types: Types, absent: frozenset[str], operator: str) -> str:
    """One computed column: expression, lossless cast, default."""
    dtype = to_duckdb(column.dtype) if column.dtype else ""
    default = default_sql(column, dtype)
    if not column.sql:
        return default or f"CAST(NULL AS {dtype or 'INTEGER'})"
    fragment = checked_fragment(column.sql, types, f"operator {operator}, column {column.name}")
    value = fragment.render()
    bare = fragment.columns[0] if value == quote_ident(next(iter(fragment.columns), "?")) else ""
    if bare and bare in absent and default:
        return default
    if dtype and (not bare or types[bare] != dtype):
        value = lossless_cast_sql(value, dtype, f"column {column.name}", types.get(bare, ""))
    if not column.nullable:
        if not default:
            complaint = quote_literal(
                f"{ERROR_MARK}column {column.name} is nullable: false and has no default"
            )
            default = f"error({complaint})"
        if is_boxed(dtype or types.get(bare, "")):
            return case_sql(dtype or types[bare], (f"{value} IS NULL", default), otherwise=value)
        value = f"coalesce({value}, {default})"
    return value


def default_sql(column: ProjectColumn, dtype: str) -> str:
    """The column's default as a typed expression; empty when it has none."""
    if column.default_sql:
        fragment = checked_fragment(column.default_sql, (), f"column {column.name}, default_sql")
        return f"CAST({fragment.render()} AS {dtype})" if dtype else fragment.render()
    if column.default is Unset.UNSET:
        return ""
    literal = quote_literal(column.default)
    return f"CAST({literal} AS {dtype})" if dtype else literal


def lossless_cast_sql(value: str, dtype: str, what: str, source_type: str) -> str:
    """A cast that stops at the first value that it would change."""
    tried = f"TRY_CAST({value} AS {dtype})"
    fits = f"{tried} IS NOT NULL"
    if source_type not in _WIDENS.get(dtype, ()):
        back = f"TRY_CAST({tried} AS {source_type})" if source_type else tried
        fits += f" AND {back} IS NOT DISTINCT FROM {value}"
    message = quote_literal(f"{ERROR_MARK}{what}: a value does not fit {dtype} without loss: ")
    complain = f"error({message} || CAST({value} AS VARCHAR))"
    return case_sql(dtype, (f"{value} IS NULL", "NULL"), (fits, tried), otherwise=complain)


#: Casts that never lose anything and need no comparison with the original.
_WIDENS = {
    "BIGINT": ("INTEGER", "SMALLINT", "TINYINT", "UINTEGER", "USMALLINT", "UTINYINT"),
    "INTEGER": ("SMALLINT", "TINYINT", "USMALLINT", "UTINYINT"),
    "DOUBLE": ("FLOAT", "INTEGER", "SMALLINT", "TINYINT"),
}
