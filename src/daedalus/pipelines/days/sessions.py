"""The sessions of each day, in the order in which their rows come: what qid numbers."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from daedalus.pipelines.days.history_cache import HistoryCache, HistoryChain, NotExactError
from daedalus.pipelines.days.history_files import files_sql
from daedalus.pipelines.days.relation_graph import RelationGraph
from daedalus.pipelines.days.relations import DayRelations
from daedalus.pipelines.days.stream import DayStream
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.pipelines.operators import ROW, TICK, OperatorPipeline, Scan, Sink, TimeRange
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Sequence

    import duckdb
    import pyarrow as pa

    from daedalus.pipelines.days.context import DayContext


def session_tables(context: DayContext, days: Sequence[dt.date]) -> Iterator[pa.Table]:
    """Per day its sessions as text, each once, in order of their first row; before the session filter.

    Args:
        context: any day of the run.
        days: ascending.
    """
    sink = context.pipeline.operators[-1]
    if not isinstance(sink, Sink) or not sink.session_column:
        return
    session = quote_ident(sink.session_column)
    for day in days:
        of_day = dataclasses.replace(context, day=day)
        with duckdb_session(context.config.duckdb_settings()) as connection:
            rows = _rows(of_day, connection, sink.sessions_from)
            tick = of_day.tick
            yield RelationGraph(connection, context.profile).fetch(
                f"SELECT CAST({session} AS VARCHAR) AS session FROM ({rows}) WHERE {session} IS NOT NULL "
                f"AND {TICK} >= {tick.day_start} AND {TICK} < {tick.day_end} "
                f"GROUP BY {session} ORDER BY min({ROW})",
                sink.sessions_from,
            )


def _rows(context: DayContext, connection: duckdb.DuckDBPyConnection, relation: str) -> str:
    """A SELECT of the relation's rows of the day: from the shared history where that holds the same rows."""
    chain = HistoryChain.of(context.pipeline)
    if chain is not None and relation in (chain.relation, *chain.same_rows):
        try:
            return f"SELECT * FROM {files_sql(HistoryCache(context, chain).files(context.day)[-1:])}"
        except NotExactError:
            pass
    operators = tuple(
        # Only the day's own rows are numbered: the window before it is not read.
        dataclasses.replace(operator, lookback_seconds=0.0)
        if isinstance(operator, Scan) and operator.time_range is TimeRange.WINDOW
        else operator
        for operator in context.pipeline.upstream(relation)
    )
    pipeline = OperatorPipeline(
        service=context.pipeline.service, version=context.pipeline.version, operators=operators
    )
    relations = DayRelations(dataclasses.replace(context, pipeline=pipeline), connection)
    stream = DayStream(dataclasses.replace(context, pipeline=pipeline), relations)
    for operator in operators:
        stream.add(operator)
    return relations.graph.sql(relation)
