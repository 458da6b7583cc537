"""The history rows of a piece of event time, read, ordered, filtered and joined in Arrow instead of in SQL.

Most histories are the spine's rows in the view's total order with columns of `latest` views beside them, and maybe
without rows that an id relation does not cover. For these, rows are joined by position: nothing is hashed or sorted
again, and each view is read once for all event days.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa

from daedalus.pipelines.days.latest_rows import LatestRows, same_keys
from daedalus.pipelines.days.plain_files import PlainFiles, decoded
from daedalus.pipelines.days.relations import DayRelations
from daedalus.pipelines.days.total_order import SIMPLE, TotalOrder, has_instants, ordering_columns
from daedalus.pipelines.duckdb_session import fewer_threads
from daedalus.pipelines.operators import ROW, TICK, Filter, Join, Scan
from daedalus.pipelines.run_sources import is_run_relation
from daedalus.pipelines.schema import filter_fragments
from daedalus.sql.identifiers import quote_ident
from daedalus.storage.view_reader import FLOATS, apart_from_source

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    import duckdb

    from daedalus.pipelines.days.context import DayContext
    from daedalus.pipelines.operators import AnyOperator, OperatorPipeline
    from daedalus.storage.sources.base import TickRange
    from daedalus.storage.view_reader import ViewReader

#: Of `memory_limit`, what the rows of a piece may take, and what the views beside them.
_SHARE = 0.1
_READ_ROWS = 262_144


class TooManyRowsError(Exception):
    """A piece of event time, or a view beside it, does not fit into the memory that it may use."""


class HeldHistory:
    """Makes the history of one service in Arrow.

    Args:
        context: its pipeline makes the history.
        path: the operators that each row passes through, from the spine's scan on.
        connection: reads.
        memory: bytes, of the whole run.
    """

    def __init__(
        self,
        context: DayContext,
        path: Sequence[AnyOperator],
        connection: duckdb.DuckDBPyConnection,
        memory: int,
    ) -> None:
        self._path = path
        self._relations = DayRelations(context, connection)
        self.graph = self._relations.graph
        self._most = int(memory * _SHARE)
        self._left = self._most
        self._latest: dict[str, LatestRows] = {}
        dry = DayRelations(context, connection, dry=True)
        for operator in context.pipeline:
            dry.add(operator)
        self.types = {operator.output: dry.graph.types(operator.output) for operator in context.pipeline}

    def beside(self, connection: duckdb.DuckDBPyConnection) -> HeldHistory:
        """The same for another thread, which reads with a connection of its own; the views beside are shared.

        Raises:
            TooManyRowsError: these do not fit into memory.
        """
        for operator in self._path[1:]:
            if isinstance(operator, Join):
                self._latest_of(operator)
        other = copy.copy(self)
        other._relations = DayRelations(self._relations.context, connection)
        other.graph = other._relations.graph
        return other

    @property
    def spine(self) -> Scan:
        """The scan that the rows come from."""
        return cast("Scan", self._path[0])

    def fits(self) -> bool:
        """Whether the history has the shape that is made here."""
        context, scan = self._relations.context, self.spine
        if not context.sources.is_local(scan.source_ref):
            return False
        if not has_instants(self._relations.scan_rows(scan)[1]):
            return False
        return all(self._can(operator, context.pipeline) for operator in self._path[1:])

    def _can(self, operator: AnyOperator, pipeline: OperatorPipeline) -> bool:
        if isinstance(operator, Filter):
            types = self.types[operator.inputs[0]]
            predicate, _ = filter_fragments(operator, types, operator.name)
            return predicate is None or {types[name] for name in predicate.columns} <= SIMPLE
        if not isinstance(operator, Join) or len(operator.on) != 1:
            return False
        right = pipeline.producer(operator.inputs[1])
        [(left_key, right_key)] = operator.on
        types, others = (self.types[name] for name in operator.inputs)
        return (
            isinstance(right, Scan)
            and (right.keys == (right_key,) if right.keep else is_run_relation(right.source_ref))
            and same_keys(types[left_key], others[right_key])
        )

    def bounds(self, day: dt.date) -> tuple[int, int]:
        """The first tick of a day, and that of the next."""
        tick = dataclasses.replace(self._relations.context, day=day).tick
        return tick.day_start, tick.day_end

    def source_rows(self) -> int:
        """How many rows the context's days have at the source."""
        return self._relations.source_rows(self.spine)

    def rows(self, within: TickRange) -> pa.Table:
        """The history's rows of this time in the view's total order, with `__t`, without `__row`.

        Raises:
            TooManyRowsError: they take more memory than they may.
        """
        table = self._spine_rows(within)
        profile = self.graph.profile
        for operator in self._path[1:]:
            with profile.shared(operator.name, "history", table.num_rows):
                step = self._filtered if isinstance(operator, Filter) else self._joined
                table = step(operator, table)
        with profile.shared(self.spine.name, "history"):
            return decoded(table)

    # ------------------------------------------------------------------ the spine

    def _spine_rows(self, within: TickRange) -> pa.Table:
        scan = self.spine
        base, reader = self._relations.scan_rows(scan, within)
        wanted = [*scan.columns, TICK]
        names = [*wanted, *ordering_columns(reader, wanted)]
        rows = self._plain_rows(reader, names, within)
        if rows is None:
            sql = f"SELECT {', '.join(map(quote_ident, names))} FROM ({base})"
            rows = self._read(sql).combine_chunks()
        with self.graph.profile.shared(scan.name, "history", rows.num_rows):
            ordered = TotalOrder(reader, self.graph, scan.name).sorted(rows, base)
        if ordered is None:
            self._relations.context.sources.verify_unchanged()  # says which file is another by now
            raise TooManyRowsError
        return ordered.select(wanted)

    def _plain_rows(self, reader: ViewReader, names: Sequence[str], within: TickRange) -> pa.Table | None:
        """The rows as their files have them; None where SQL has to read them, or to find what orders them."""
        context, scan = self._relations.context, self.spine
        if scan.predicate or not set(reader.order_by()).issubset(names):
            return None
        source = context.sources.source(scan.source_ref)
        fields = [name for name in names if name != TICK]
        plain = PlainFiles(reader, source, fields, context.ticks_per_second)
        with self.graph.profile.shared(scan.name, "read"):
            try:
                found = plain.read(within, self._most)
            except MemoryError:
                raise TooManyRowsError from None
        return None if found is None else found.select(names)

    def _read(self, sql: str) -> pa.Table:
        try:
            with fewer_threads(self.graph.connection, 1), self.graph.in_order():
                return self.graph.fetch_at_most(sql, self.spine.name, _READ_ROWS, self._most)
        except MemoryError:
            raise TooManyRowsError from None

    # ------------------------------------------------------------------ beside it

    def _filtered(self, operator: AnyOperator, table: pa.Table) -> pa.Table:
        """The rows for which DuckDB says that the predicate is true; it gets only the columns that this reads."""
        types = self.types[operator.inputs[0]]
        predicate, _ = filter_fragments(cast("Filter", operator), types, operator.name)
        if predicate is None:
            return table
        names = [name for name in types if name in predicate.columns]
        given = decoded(table.select(names)).append_column(ROW, pa.array(np.arange(table.num_rows)))
        registered = f"__rows_of_{operator.name}"
        floats = [name for name in names if types[name] in FLOATS]
        apart = ", ".join(f"{apart_from_source(quote_ident(name))} AS {quote_ident(name)}" for name in floats)
        columns = f"* REPLACE ({apart})" if apart else "*"
        sql = (
            f"SELECT {ROW} FROM (SELECT {columns} FROM {quote_ident(registered)}) WHERE {predicate.render()}"
        )
        self.graph.connection.register(registered, given)
        try:
            passed = self.graph.fetch(sql, operator.name)[ROW].to_numpy()
        finally:
            self.graph.connection.unregister(registered)
        return (
            table if len(passed) == table.num_rows else table.take(pa.array(np.sort(passed))).combine_chunks()
        )

    def _joined(self, operator: AnyOperator, table: pa.Table) -> pa.Table:
        join = cast("Join", operator)
        latest = self._latest_of(join)
        key = table[join.on[0][0]].combine_chunks()
        places = latest.places(key.chunk(0) if isinstance(key, pa.ChunkedArray) else key)
        found = places
        if join.ttl_seconds is not None:
            oldest = table[TICK].to_numpy() - self._relations.context.tick.of(join.ttl_seconds)
            found = np.where(latest.older_than(places, oldest), -1, places)
        for name, column in join.columns:
            table = table.append_column(name, latest.values(column, found))
        if join.marker:
            table = table.append_column(join.marker, pa.array(places >= 0))
        return table

    def _latest_of(self, join: Join) -> LatestRows:
        """The rows of the join's right input, read when the first day needs them."""
        name = join.inputs[1]
        if name not in self._latest:
            scan = cast("Scan", self._relations.context.pipeline.producer(name))
            joins = [one for one in self._path if isinstance(one, Join) and one.inputs[1] == name]
            columns = [column for one in joins for _, column in one.columns]
            try:
                self._latest[name] = LatestRows(scan, join.on[0][1], columns, self._relations, self._left)
            except MemoryError:
                raise TooManyRowsError from None
            self._left -= self._latest[name].nbytes
        return self._latest[name]
