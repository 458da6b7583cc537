"""The skeleton stage: for each target day, the SQL source layer and the Arrow operators, written as Parquet.

The day's connection has its own memory, threads and spill folder, so that days do not share limits. While one
chunk is computed the one before it is written, and while the last rows are written the next day may begin.
"""

from __future__ import annotations

import datetime as dt
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from daedalus.errors import DaedalusError, ExecutionError, SourceError
from daedalus.metadata.days import DayManifest, DayStore
from daedalus.pipelines.days.lookups import prepared_stream
from daedalus.pipelines.days.output_schema import output_schema, without_positions
from daedalus.pipelines.days.qid import DenseNumbers
from daedalus.pipelines.days.relation_graph import as_execution_error
from daedalus.pipelines.days.resources import day_session
from daedalus.pipelines.days.stepwise import Stepwise
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.pipelines.operators import TICK, QidKind, Sink
from daedalus.pipelines.run_sources import views_behind
from daedalus.storage.exact_cast import cast_exactly
from daedalus.storage.sinks.parquet import ROW_GROUP_ROWS, ParquetSink
from daedalus.storage.sources.faults import backend_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from daedalus.pipelines.days.context import DayContext
    from daedalus.pipelines.days.stream import DayStream
    from daedalus.pipelines.duckdb_session import OpenSession
    from daedalus.pipelines.profiling import NoProfile

QID = "qid"
_MOST_WRITERS = 2
#: Of a day with more rows the last ones are written before the next begins: it needs all of the memory.
_MOST_ROWS_BESIDE = 1_000_000


def run_skeleton_stage(
    context: DayContext,
    store: DayStore,
    fingerprint: dict[str, Any],
    *,
    report: Callable[[str], None] | None = None,
) -> DayManifest:
    """Compute and write one day, whole or not at all.

    Args:
        context: the day, its pipeline and sources.
        store: where the day goes: `<output_root>/<service>/skeleton`.
        fingerprint: what the day is made from, for its manifest.
        report: told what is being done.

    Returns:
        The manifest that was committed with the day.

    Raises:
        ExecutionError: names day and operator; an earlier version of the day is left as it was.
    """
    return Stepwise(skeleton_day_in_steps(context, store, fingerprint, report=report)).rest()


def skeleton_day_in_steps(
    context: DayContext,
    store: DayStore,
    fingerprint: dict[str, Any],
    *,
    report: Callable[[str], None] | None = None,
    open_session: OpenSession = duckdb_session,
) -> Generator[None, None, DayManifest]:
    """The same in three steps, for whoever has several days to make.

    The first prepares the day: lookups are read, histories at hand, nothing is written. The second makes its rows.
    The last, which any thread may take, writes what then still waits to be written, and commits the day; its
    DuckDB session has ended by then.

    Args:
        context: the day, its pipeline and sources.
        store: where the day goes.
        fingerprint: what the day is made from, for its manifest.
        report: told what is being done.
        open_session: opens the day's DuckDB.
    """
    tell = report or _ignore
    try:
        with store.locked(context.day):
            return (yield from _day_in_steps(context, store, fingerprint, tell, open_session))
    except ExecutionError as error:
        _placed(error, context)
        raise
    except DaedalusError:
        raise
    except OSError as error:
        # A backend that fails in the middle of a stream is told of by Arrow, which knows no other error.
        if error.errno is None and backend_fault(str(error)) is not None:
            failed = as_execution_error(error, "")
            _placed(failed, context)
            raise failed from None
        raise ExecutionError(
            f"the day cannot be written: {error.strerror or error}",
            where=str(store.path(context.day)),
            hint="Free space or fix the permissions, then run again; finished days are kept",
            day=context.day.isoformat(),
        ) from error


def _placed(error: DaedalusError, context: DayContext) -> None:
    """Say in an error which day failed, and of a backend's error which view."""
    if isinstance(error, ExecutionError):
        error.day = error.day or context.day.isoformat()
    if isinstance(error, SourceError):
        context.sources.blame(error, views_behind(context.pipeline, error.operator))


def _day_in_steps(
    context: DayContext,
    store: DayStore,
    fingerprint: dict[str, Any],
    tell: Callable[[str], None],
    open_session: OpenSession,
) -> Generator[None, None, DayManifest]:
    folder = store.begin(context.day)
    rows: _Rows | None = None
    try:
        with day_session(context, open_session) as (connection, resources):
            tell("reading and joining")
            stream = prepared_stream(context, connection, resources)
            yield
            tell("aggregating and writing")
            rows = _write_stream(folder, stream, context, resources.streaming)
            counts = stream.counts
            del stream  # it holds the day's rows
        context.sources.verify_unchanged()
        if rows.sink.rows <= _MOST_ROWS_BESIDE:
            yield
        written = rows.sink.close()
        manifest = DayManifest(
            day=context.day.isoformat(),
            schema=tuple((field.name, str(field.type)) for field in rows.schema),
            row_count=written.row_count,
            ts_min=_instant(rows.first, context.ticks_per_second),
            ts_max=_instant(rows.last, context.ticks_per_second),
            content_hash=written.content_hash,
            fingerprint=fingerprint,
            files=written.files,
            counters=counts.counters(
                written.row_count, {name: stats.nulls for name, stats in written.columns}
            ),
            columns={name: stats.to_mapping() for name, stats in written.columns},
        )
        store.commit(context.day, folder, manifest)
    except BaseException:
        if rows is not None:
            rows.sink.abort()
        store.discard(folder)
        raise
    return manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """The day's rows, handed to the sink.

    Attributes:
        sink: still open.
        first: the smallest time in ticks; None without rows.
        last: the largest.
    """

    sink: ParquetSink
    schema: pa.Schema
    first: int | None
    last: int | None


def _write_stream(folder: Path, stream: DayStream, context: DayContext, stream_memory: int) -> _Rows:
    """Hand the stream's tables to a sink, in a thread of its own, one behind the computation."""
    sink: ParquetSink | None = None
    schema: pa.Schema | None = None
    low: int | None = None
    high: int | None = None
    writing: Future[None] | None = None
    dense = _dense_numbers(context)
    with ThreadPoolExecutor(max_workers=1) as writer:
        try:
            for table in stream.tables():
                low, high = _wider(low, high, table)
                rows = without_positions(table)
                if dense is not None and QID in rows.column_names:
                    at = rows.schema.get_field_index(QID)
                    rows = rows.set_column(at, QID, dense.renumber(rows.column(QID)))
                if schema is None:
                    schema = output_schema(context.pipeline, rows.schema)
                if sink is None and not rows.num_rows:
                    continue
                if sink is None:
                    sink = _sink(folder, schema, context, _groups(rows, stream_memory))
                if writing is not None:
                    writing.result()
                writing = writer.submit(_write, sink, rows, schema, context.profile)
            if writing is not None:
                writing.result()
        except BaseException:
            if writing is not None:
                writing.exception()
            if sink is not None:
                sink.abort()
            raise
    if schema is None:
        raise ExecutionError("the pipeline made no table", day=context.day.isoformat())
    return _Rows(sink=sink or _sink(folder, schema, context, 1), schema=schema, first=low, last=high)


def _sink(folder: Path, schema: pa.Schema, context: DayContext, groups: int) -> ParquetSink:
    unhashed = [QID] if _numbers_sessions(context) else []
    threads, timed = min(groups, _MOST_WRITERS), context.profile.timed
    return ParquetSink(folder, schema, unhashed, threads=threads, groups=groups, timed=timed)


def _groups(rows: pa.Table, memory: int) -> int:
    """How many full row groups are in memory at a time, beside one that fills and the copies of those being encoded."""
    group: int = ROW_GROUP_ROWS * int(rows.nbytes) // rows.num_rows
    return min(_MOST_WRITERS + 1, max(1, memory // max(group, 1) - 1 - _MOST_WRITERS))


def _dense_numbers(context: DayContext) -> DenseNumbers | None:
    """What renumbers the day's sessions, where the sink asks for it."""
    sink = context.pipeline.operators[-1]
    return DenseNumbers() if isinstance(sink, Sink) and sink.qid is QidKind.DENSE else None


def _numbers_sessions(context: DayContext) -> bool:
    return bool(getattr(context.pipeline.operators[-1], "session_column", ""))


def _write(sink: ParquetSink, rows: pa.Table, schema: pa.Schema, profile: NoProfile) -> None:
    with profile.timed("sink", "convert", rows.num_rows):
        converted = to_schema(rows, schema)
    sink.write(converted)


def to_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows in the output's exact types; a value that does not fit is an error, never rounded.

    Raises:
        ExecutionError: names the column.
    """
    columns = []
    for field in schema:
        try:
            columns.append(cast_exactly(rows.column(field.name), field.type))
        except pa.ArrowException as error:
            raise ExecutionError(
                f"column {field.name!r} does not fit its declared type {field.type}: {error}",
                hint="Change the column's dtype in the contract",
            ) from error
    return pa.Table.from_arrays(columns, schema=schema)


def _wider(low: int | None, high: int | None, table: pa.Table) -> tuple[int | None, int | None]:
    if TICK not in table.column_names:
        return low, high
    bounds = pc.min_max(table.column(TICK)).as_py()
    if bounds["min"] is None:
        return low, high
    return (
        bounds["min"] if low is None else min(low, bounds["min"]),
        bounds["max"] if high is None else max(high, bounds["max"]),
    )


def _instant(ticks: int | None, per_second: int) -> str:
    if ticks is None:
        return ""
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(
        microseconds=ticks * 1_000_000 // per_second
    )
    return moment.isoformat()


def _ignore(_message: str) -> None:
    """No one listens."""
