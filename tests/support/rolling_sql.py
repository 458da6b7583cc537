"""Runs the SQL tier over Arrow tables, so that it can be held against the oracle.

assert_agrees(rolling_sql(spine, specs), spine, specs)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from daedalus.compute.sql_tier import Relation, rolling_parts, rolling_plan
from daedalus.sql.identifiers import quote_ident
from support.oracle import rolling_oracle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daedalus.catalog.aggregation import AggregationSpec


def rolling_sql(
    spine: pa.Table,
    specs: Sequence[AggregationSpec],
    *,
    history: Mapping[str, pa.Table] | None = None,
    time: str = "ts",
    how: str = "select",
    threads: int = 2,
) -> pa.Table:
    """The spine plus one column per spec, as `aggregate_pit_table` gives it; times are seconds in `time`.

    Args:
        how: `select` runs one statement, `staged` each stage as a table, `parts` each part by itself.
    """
    columns = computed(spine, specs, history=history, time=time, how=how, threads=threads)
    expected = rolling_oracle(spine.slice(0, 0), specs, history=history).schema
    result = spine
    for spec in specs:
        field = expected.field(spec.name)
        result = result.append_column(field, columns[spec.name].cast(field.type))
    return result.replace_schema_metadata(spine.schema.metadata)


def computed(
    spine: pa.Table,
    specs: Sequence[AggregationSpec],
    *,
    history: Mapping[str, pa.Table] | None = None,
    time: str = "ts",
    how: str = "select",
    threads: int = 2,
) -> pa.Table:
    """What the tier returns, in spine order, `__row` left out."""
    with duckdb.connect() as session:
        session.execute(f"SET threads = {threads}")
        own = _relation(session, "spine rows", spine, time)
        others = {name: _relation(session, name, table, time) for name, table in (history or {}).items()}
        arguments: dict[str, Any] = {
            "spine": own,
            "histories": {None: own, **others},
            "ticks_per_second": 1,
        }
        if how == "parts":
            parts = rolling_parts(specs, **arguments)
            tables = [_ordered(session, part.sql) for part in parts]
            found = {name: table[name] for table in tables for name in table.column_names}
            return pa.table({spec.name: found[spec.name] for spec in specs})
        plan = rolling_plan(specs, **arguments)
        if how == "select":
            return _ordered(session, plan.sql)
        for stage in plan.stages:
            session.execute(f"CREATE TEMP TABLE {stage.name} AS {stage.sql}")
        return _ordered(session, plan.select)


def _relation(session: duckdb.DuckDBPyConnection, name: str, table: pa.Table, time: str) -> Relation:
    rows = pa.array(range(table.num_rows), pa.int64())
    numbered = table.append_column("__row", rows).append_column("__t", table[time].cast(pa.int64()))
    session.register("given", numbered)
    # Scattered, so that nothing can rely on the order of storage.
    session.execute(f"CREATE TABLE {quote_ident(name)} AS FROM given ORDER BY hash(__row)")
    session.unregister("given")
    described = session.execute(f"DESCRIBE {quote_ident(name)}").fetchall()
    return Relation(name=quote_ident(name), types=tuple((row[0], row[1]) for row in described))


def _ordered(session: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    table = session.execute(f"FROM (\n{sql}\n) ORDER BY __row").to_arrow_table()
    assert table["__row"].to_pylist() == list(range(table.num_rows))
    return table.drop_columns("__row")
