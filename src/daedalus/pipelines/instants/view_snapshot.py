"""A view's newest visible row per entity at an instant, as a stream: what an online store is filled from."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from daedalus.catalog.dtypes import to_arrow
from daedalus.errors import SourceError
from daedalus.pipelines.days.relation_graph import RelationGraph, as_execution_error
from daedalus.pipelines.days.visibility import AsOf, ticks_of, visible_sql
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.pipelines.operators import TICK
from daedalus.pipelines.run_sources import RunSources, view_ticks_per_second
from daedalus.pipelines.training import to_schema
from daedalus.sql.identifiers import quote_ident
from daedalus.storage.sources.base import TickRange
from daedalus.storage.view_reader import ViewReader

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    import duckdb

    from daedalus.catalog.model import FeatureViewDef
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.settings import TrainingRunConfig

EVENT_TIME = "__event_time"
BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSnapshot:
    """One view at one instant; its batches can be read once, while the block that made it is open.

    Attributes:
        keys: the entity keys; one row for each combination of their values, ordered by them.
        schema: of every batch: the view's fields in their declared types, then `__event_time`.
        ttl_seconds: how long after its event time a row is valid; None is for ever.
        sources: what is read.
        batches: the rows; memory is bounded by `compute.duckdb_config.memory_limit` and a batch.
    """

    view: str
    as_of: dt.datetime
    keys: tuple[str, ...]
    schema: pa.Schema
    ttl_seconds: float | None
    sources: dict[str, Any]
    batches: Iterator[pa.RecordBatch]


@contextlib.contextmanager
def view_snapshot(
    name: str,
    catalog: FeatureCatalog,
    config: TrainingRunConfig,
    as_of: dt.datetime,
    *,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[ViewSnapshot]:
    """Open a view's newest visible rows.

    A row is visible when it has arrived (`u + delay_seconds <= as_of`), was known (`created_field` not after
    `as_of`) and has not expired (`ttl`). A view without a time holds one row per entity. Rows without a key are
    left out. `__event_time` is the event time in UTC, NULL for a view without one.

    Args:
        name: the view.
        catalog: the definitions.
        config: sources and DuckDB's limits.
        as_of: the instant; naive is UTC.
        batch_rows: rows per batch.

    Raises:
        SourceError: the source cannot be read, or a view without a time has two rows for one entity.
    """
    view = catalog.view(name)
    sources = RunSources(catalog, config)
    per_second = view_ticks_per_second(view)
    try:
        with duckdb_session(config.duckdb_settings()) as connection:
            source = sources.source(view.name)
            source.setup(connection)
            reader = ViewReader(view, source, connection, per_second)
            sql = _newest_sql(view, reader, as_of, per_second, RelationGraph(connection))
            schema = snapshot_schema(view, per_second)
            yield ViewSnapshot(
                view=view.name,
                as_of=as_of,
                keys=tuple(view.join_keys),
                schema=schema,
                ttl_seconds=view.ttl_seconds,
                sources=sources.records(),
                batches=snapshot_batches(connection, sql, schema, batch_rows, sources),
            )
    finally:
        sources.close()


def _newest_sql(
    view: FeatureViewDef, reader: ViewReader, as_of: dt.datetime, per_second: int, graph: RelationGraph
) -> str:
    """A SELECT of the rows, ordered by key."""
    names = [field.name for field in view.fields]
    keys = ", ".join(quote_ident(key) for key in view.join_keys)
    known = [f"{quote_ident(key)} IS NOT NULL" for key in view.join_keys]
    if not view.timestamp_field:
        rows = f"SELECT *, CAST(NULL AS BIGINT) AS {TICK} FROM ({reader.select_sql(names)})"
        where = " AND ".join(known)
        _require_unique(view, f"SELECT {keys} FROM ({rows}) WHERE {where}", keys, graph)
        return f"SELECT * FROM ({rows}) WHERE {where} ORDER BY {keys}"
    ticks = ticks_of(as_of, per_second)
    instant = AsOf(ticks=ticks)
    rows = reader.select_sql(names, TickRange(high_us=ticks * 1_000_000 // per_second + 1))
    created = view.source.created_field
    dtype = reader.columns[created].dtype if created else ""
    where = " AND ".join([visible_sql(view, dtype, instant, per_second, with_ttl=True), *known])
    return (
        f"SELECT * FROM ({rows}) WHERE {where} "
        f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {reader.order_sql(descending=True)}) = 1 "
        f"ORDER BY {keys}"
    )


def _require_unique(view: FeatureViewDef, rows: str, keys: str, graph: RelationGraph) -> None:
    found = graph.execute(
        f"SELECT concat_ws(', ', {keys}) FROM ({rows}) GROUP BY {keys} HAVING count(*) > 1 "
        f"ORDER BY {keys} LIMIT 3",
        view.name,
    ).fetchall()
    if found:
        shown = "; ".join(row[0] for row in found)
        raise SourceError(
            f"it has no timestamp_field, so it must be unique per entity; it is not for {shown}",
            where=f"view {view.name} ({view.file})",
            hint="Declare a timestamp_field, or remove the duplicates at the source",
        )


def snapshot_schema(view: FeatureViewDef, per_second: int) -> pa.Schema:
    """The view's fields in their declared types, then `__event_time`."""
    unit = "ns" if per_second == 1_000_000_000 else "us"
    fields = [pa.field(field.name, to_arrow(field.dtype)) for field in view.fields]
    return pa.schema([*fields, pa.field(EVENT_TIME, pa.timestamp(unit, "UTC"))])


def snapshot_batches(
    connection: duckdb.DuckDBPyConnection, sql: str, schema: pa.Schema, rows: int, sources: RunSources
) -> Iterator[pa.RecordBatch]:
    """The rows of a SELECT over the view, in this schema; the sources are checked at the end."""
    import duckdb

    time_type = schema.field(EVENT_TIME).type
    try:
        for batch in connection.execute(sql).to_arrow_reader(rows):
            table = pa.Table.from_batches([batch])
            at = table.column_names.index(TICK)
            table = table.set_column(at, EVENT_TIME, table.column(TICK).cast(time_type))
            yield from to_schema(table, schema).to_batches()
    except duckdb.Error as error:
        raise as_execution_error(error, "") from None
    sources.verify_unchanged()
