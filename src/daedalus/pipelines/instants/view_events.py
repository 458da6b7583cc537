"""A view's rows of a span of time, as a stream: what an online store's events are filled from."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from daedalus.pipelines.days.visibility import ticks_of
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.pipelines.instants.view_snapshot import BATCH_ROWS, snapshot_batches, snapshot_schema
from daedalus.pipelines.run_sources import RunSources, view_ticks_per_second
from daedalus.storage.sources.base import TickRange
from daedalus.storage.view_reader import ViewReader

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    import pyarrow as pa

    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.settings import TrainingRunConfig


@contextlib.contextmanager
def view_events(
    name: str,
    catalog: FeatureCatalog,
    config: TrainingRunConfig,
    *,
    since: dt.datetime | None,
    until: dt.datetime,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[Iterator[pa.RecordBatch]]:
    """Open a view's rows with an event time in `[since, until]`, in any order.

    Every batch has the view's fields in their declared types, then `__event_time`; None for `since` is the whole past.

    Raises:
        SourceError: the source cannot be read.
    """
    view = catalog.view(name)
    sources = RunSources(catalog, config)
    per_second = view_ticks_per_second(view)
    low = None if since is None else ticks_of(since, 1_000_000)
    span = TickRange(low_us=low, high_us=ticks_of(until, 1_000_000) + 1)
    try:
        with duckdb_session(config.duckdb_settings()) as connection:
            source = sources.source(view.name)
            source.setup(connection)
            reader = ViewReader(view, source, connection, per_second)
            sql = reader.select_sql([field.name for field in view.fields], span)
            schema = snapshot_schema(view, per_second)
            yield snapshot_batches(connection, sql, schema, batch_rows, sources)
    finally:
        sources.close()
