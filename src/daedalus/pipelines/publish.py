"""From staged days to the table that the sink operator asks for: one writer, day by day, ascending.

Days are computed and enriched as Parquet first, by as many workers as there are. When they are complete, the
run's own process copies each into the table in one transaction. A run that dies between the two is finished by
the next one: the day is up to date, the table lacks it.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import xxhash

from daedalus.errors import ExecutionError
from daedalus.metadata.days import MANIFEST_NAME
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.pipelines.execution import DayResult
from daedalus.pipelines.operators import SinkFormat
from daedalus.pipelines.settings.sink_places import absolute_place, duckdb_file, lake_catalog
from daedalus.storage.sinks.tables import Partition, StagedRows

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from daedalus.metadata.days import DayManifest, DayStore
    from daedalus.pipelines.operators import Sink
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.storage.sinks.tables import TableSink

STAGE = "sink"


def publish_days(
    sink: Sink,
    service: str,
    store: DayStore,
    days: Sequence[dt.date],
    config: TrainingRunConfig,
    *,
    run_id: str,
    tell: Callable[[str, str, int, int], None],
) -> list[DayResult]:
    """Bring the sink's table up to date with the staged days; one result per day, ascending.

    Args:
        sink: the pipeline's last operator; its format is not `parquet`.
        service: names the schema.
        store: the final stage's days, complete.
        days: which of them.
        config: the default places, and what the DuckDB connection is configured with.
        run_id: goes into the commit message and the ledger.
        tell: told (day, message, done, total).

    Raises:
        ExecutionError: the database is locked, full, or cannot take the schema; days before it are committed.
    """
    results = []
    with open_sink(sink.format, service, config, path=sink.path, data_path=sink.data_path) as table:
        for done, day in enumerate(sorted(days)):
            started = time.perf_counter()
            iso = day.isoformat()

            def report(message: str, iso: str = iso, done: int = done) -> None:
                tell(iso, message, done, len(days))

            # Held against a run that would replace the day while it is read.
            with store.locked(day):
                report("publishing")
                manifest, staged = staged_day(store, day)
                try:
                    published = table.publish(
                        Partition(column=sink.partition, dtype="DATE", value=iso),
                        staged,
                        run_id=run_id,
                        message=f"{service} {iso}, run {run_id}",
                        report=report,
                    )
                except ExecutionError as error:
                    error.day = error.day or iso
                    raise
            tell(iso, "published", done + 1, len(days))
            results.append(
                DayResult(
                    day=iso,
                    stage=STAGE,
                    state="written" if published.written else "up to date",
                    rows=manifest.row_count,
                    content_hash=manifest.content_hash,
                    reason=published.reason,
                    seconds=round(time.perf_counter() - started, 3),
                    snapshot=published.snapshot,
                )
            )
    return results


@contextlib.contextmanager
def open_sink(
    format_: SinkFormat,
    service: str,
    config: TrainingRunConfig,
    *,
    path: str = "",
    data_path: str = "",
    table: str = "training",
) -> Iterator[TableSink]:
    """The database of a sink, attached to a DuckDB connection of its own."""
    # A day's rows are inserted as they come: in order.
    settings = config.duckdb_settings() | {"preserve_insertion_order": "true"}
    with duckdb_session(settings) as connection:
        if format_ is SinkFormat.DUCKDB:
            from daedalus.storage.sinks.duckdb_file import DuckDBFileSink

            file = duckdb_file(path, config, service)
            sink: TableSink = DuckDBFileSink(connection, file, schema=service, table=table)
        else:
            from daedalus.storage.sinks.ducklake import DuckLakeSink

            files = absolute_place(data_path, config.project_root) if data_path else ""
            catalog = lake_catalog(path, config)
            sink = DuckLakeSink(connection, catalog, schema=service, table=table, data_path=files)
        with sink:
            yield sink


def staged_day(store: DayStore, day: dt.date) -> tuple[DayManifest, StagedRows]:
    """A complete day's manifest, and its files as a sink takes them."""
    manifest = store.manifest(day)
    if manifest is None:
        raise ExecutionError(
            "the staged day is gone",
            where=str(store.path(day)),
            hint="Run again: it is computed anew",
            day=day.isoformat(),
        )
    return manifest, staged_rows(store.path(day), manifest)


def staged_rows(folder: Path, manifest: DayManifest) -> StagedRows:
    """The files of a finished folder, in row order."""
    return StagedRows(
        files=tuple(folder / name for name, _ in manifest.files if name.endswith(".parquet")),
        row_count=manifest.row_count,
        content_hash=manifest.content_hash,
        staged_id=xxhash.xxh3_64((folder / MANIFEST_NAME).read_bytes()).hexdigest(),
    )
