"""A day whose lookups are set beside its rows.

Rows get the code of their key once. Of each view's versions, read as a stream, those are held that a row of the
day can find: the newest that was available before the day's first row, and all that became available since. A
binary search per row then finds its version, and Arrow takes the values.

The rows are held in Arrow, too, where they fit. Then what other operators read of a lookup is a column of them from
the beginning, and what those operators make of the rows comes in their order.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from daedalus.pipelines.days import stream as day_stream
from daedalus.pipelines.days.lookup_found import FoundVersions
from daedalus.pipelines.days.lookup_held import MemoryShare, TooManyVersionsError
from daedalus.pipelines.days.lookup_keys import KeyedRows, nulls_of
from daedalus.pipelines.days.lookup_plan import LookupPlan
from daedalus.pipelines.days.lookup_rows import HeldRows, RowsNotHeldError, beside, in_order
from daedalus.pipelines.days.lookup_slices import RowSlices
from daedalus.pipelines.days.memory import give_back_memory
from daedalus.pipelines.days.relations import DayRelations
from daedalus.pipelines.days.resources import less_for_duckdb
from daedalus.pipelines.days.rolling_tiers import spine_columns
from daedalus.pipelines.days.shape import main_chain
from daedalus.pipelines.days.stream import DROPPED, DayStream
from daedalus.pipelines.days.workers import rows_in_files, spine_of_day, workers_for
from daedalus.pipelines.duckdb_session import connection_beside, fewer_threads
from daedalus.pipelines.operator_sql import column_sql
from daedalus.pipelines.operators import ROW, TICK, Filter, Project, Scan
from daedalus.pipelines.run_sources import is_run_relation
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import duckdb

    from daedalus.pipelines.days.aggregates import Resources
    from daedalus.pipelines.days.context import DayContext
    from daedalus.pipelines.days.lookup_keys import Keys
    from daedalus.pipelines.days.lookup_plan import Lookup
    from daedalus.pipelines.operators import AnyOperator, PointInTimeJoin, RollingAggregate

#: Of the memory that aggregation may use, what versions may take beside it, and as much again the rows.
_SHARE = 0.5
#: So many chunks at once get their values where nothing is aggregated: each column's versions enter the cache once.
_CHUNKS = 16
#: Bytes of values that are made at once at most.
_CHUNK_BYTES = 64 << 20
#: Held rows that pass through SQL at once.
_SLICE_ROWS = 131_072
#: Bytes that a value of the day's rows takes, about.
_WIDTH = 16


def prepared_stream(
    context: DayContext, connection: duckdb.DuckDBPyConnection, resources: Resources
) -> DayStream:
    """The day's stream of rows, everything before it done; lookups in SQL where they would take too much memory."""
    plan = LookupPlan.of(context.pipeline, context.catalog)
    while plan is not None:
        beside = LookupStream(context, connection, resources, plan)
        try:
            beside.prepare()
        except (TooManyVersionsError, RowsNotHeldError):
            beside.drop()
        else:
            return beside
        plan = LookupPlan.of(context.pipeline, context.catalog, held=False) if plan.needs_held else None
    stream = DayStream(context, DayRelations(context, connection), resources)
    stream.prepare()
    return stream


class LookupStream(DayStream):
    """The rows of a day without its lookups, and these beside them.

    Args:
        context: the day, with the whole pipeline.
        connection: its own.
        resources: memory, disk and threads.
        plan: what is set beside the rows.
    """

    def __init__(
        self,
        context: DayContext,
        connection: duckdb.DuckDBPyConnection,
        resources: Resources,
        plan: LookupPlan,
    ) -> None:
        inner = replace(context, pipeline=plan.pipeline)
        relations = DayRelations(inner, connection)
        super().__init__(inner, relations, resources)
        self._plan = plan
        self._most = int(resources.memory * _SHARE)
        self._memory = MemoryShare(self._most)
        self._chunk_bytes = min(_CHUNK_BYTES, resources.streaming // 8)
        self._rows: pa.Table | None = None
        self._sliced: RowSlices | None = None
        self._columns_of_rows: dict[str, str] | None = None
        self._keyed: KeyedRows | None = None
        self._numbered = False
        self._found: list[FoundVersions] = []
        self._threads = int(resources.duckdb_config.get("threads") or os.cpu_count() or 1)

    def prepare(self) -> None:
        """Run everything before the stream, and read the versions.

        Raises:
            TooManyVersionsError: they do not fit into memory.
            RowsNotHeldError: nor do the rows, or their types do not come back from Arrow.
        """
        super().prepare()
        if not self._numbered:
            raise RowsNotHeldError
        if not self._tail:
            width = sum(found.width for found in self._found)
            most = max(self._rows_per_chunk, int(self._chunk_bytes / max(width, 1)))
            self._rows_per_chunk = min(self._rows_per_chunk * _CHUNKS, most)

    # ------------------------------------------------------------------ rows and lookups

    def add(self, operator: AnyOperator) -> None:
        """Define an operator's relation; once it is that of the rows, find what they look up."""
        name = self._plan.rows
        if self._plan.reads and operator.output == self._plan.begin:
            self._give_what_is_read()
            return
        if operator.output != name:
            super().add(operator)
            return
        self._relations.leave(name)
        super().add(operator)
        self._hold_rows(name)
        with self._context.profile.shared(name, "keys"):
            known, between = self._number_keys()
        self._numbered = True
        lookups = [lookup for lookup in self._plan.lookups if lookup.given]
        self._found = self._versions_of(lookups, known, between)

    def _hold_rows(self, name: str) -> None:
        """Hold the rows in Arrow where they fit, else as a table: of which slices are held, where they must be."""
        if not self._graph.is_kept(name):
            types = self._graph.types(name)
            if not self._plan.reads:
                self._columns_of_rows = self._plan.passed_on(types, self._relations.absent[name])
            scans = [one for one in self._context.pipeline.upstream(name) if isinstance(one, Scan)]
            with fewer_threads(self._graph.connection, workers_for(self._context, scans, self._threads)):
                if self._columns_of_rows is not None or (
                    self._may_fit(types) and self._graph.comes_back(name)
                ):
                    self._rows = HeldRows(self._relations, name, self._most).read()
            if self._rows is not None:
                return
            if self._plan.needs_held:
                self._sliced = self._slices_of(name)
            self._graph.keep(name)
        elif self._plan.reads:
            self._sliced = self._slices_of(name)

    def _slices_of(self, name: str) -> RowSlices:
        """The rows as slices, where all that follows is done row by row.

        Raises:
            RowsNotHeldError: something needs all rows at once.
        """
        late = self._beside.aggregates if self._beside is not None else ()
        # The slices need a relation of their own: others read all rows.
        if not self._plan.reads or not late or self._tail[0].inputs[0] != self._plan.begin:
            raise RowsNotHeldError
        if not all(operator in late or _is_by_row(operator) for operator in self._tail):
            raise RowsNotHeldError
        read = {column for lookup in self._plan.lookups for column in lookup.read}
        for operator in late:
            if read.intersection(spine_columns(operator.specs, self._columns[operator.inputs[0]])):
                raise RowsNotHeldError
        slices = RowSlices(self._graph, name, day_stream.SLICE_ROWS)
        if not slices.can_number(self._plan_keys) or not self._graph.comes_back(name):
            raise RowsNotHeldError
        return slices

    @property
    def _plan_keys(self) -> list[tuple[str, ...]]:
        return list(dict.fromkeys(lookup.keys for lookup in self._plan.lookups))

    def _number_keys(self) -> tuple[Mapping[tuple[str, ...], Keys], tuple[int, int]]:
        """The numbers of the rows' keys, and the first and the last row's time.

        Raises:
            RowsNotHeldError: the keys alone take more memory than they may.
        """
        keys = self._plan_keys
        if self._sliced is not None:
            self.counts.nulls_beside = self._sliced.nulls(keys)
            try:
                known = {names: self._sliced.keys(names, self._most) for names in keys}
            except MemoryError:
                raise RowsNotHeldError from None
            return known, self._sliced.between()
        rows = self._keys_of_rows(keys)
        self._keyed = KeyedRows(rows, keys)
        self.counts.nulls_beside = nulls_of(rows, keys)
        return self._keyed.known, self._keyed.between()

    def _may_fit(self, types: Mapping[str, str]) -> bool:
        """Whether so many rows as the day's files hold may take no more memory than they may; others are tried."""
        rows = rows_in_files(self._context, [spine_of_day(self._context)])
        return rows is None or rows * _WIDTH * len(types) <= self._most

    def _give_what_is_read(self) -> None:
        """The rows that the other operators begin with: what they read of the lookups are further columns."""
        rows, begin = self._plan.rows, self._plan.begin
        types, absent = dict(self._graph.types(rows)), self._relations.absent[rows]
        for found in self._found:
            types |= found.read_types
            absent |= found.absent
        if self._sliced is not None:
            self._begin_with(self._sliced.sample())
        elif self._rows is not None:
            self._rows = self._with_what_is_read(self._rows)
            self._graph.give(begin, self._rows)
        else:
            raise RowsNotHeldError
        self._relations.absent[begin] = absent
        if self._graph.types(begin) != types:
            raise RowsNotHeldError

    def _begin_with(self, rows: pa.Table) -> pa.Table:
        """Let these rows, with what is read of their lookups, be those that the other operators begin with."""
        known = {found.keys: found.known for found in self._found}
        self._keyed = KeyedRows(rows, list(known), known)
        given = self._with_what_is_read(rows)
        self._graph.give(self._plan.begin, given)
        return given

    def _with_what_is_read(self, rows: pa.Table) -> pa.Table:
        for found in self._found:
            for column, values in found.read_values(cast("KeyedRows", self._keyed)).items():
                rows = rows.append_column(column, values)
        return rows

    def _versions_of(
        self, lookups: Sequence[Lookup], known: Mapping[tuple[str, ...], Keys], between: tuple[int, int]
    ) -> list[FoundVersions]:
        """What each lookup finds; local files are read side by side."""
        sources, profile = self._context.sources, self._context.profile
        local = [
            lookup
            for lookup in lookups
            if not is_run_relation(lookup.scan.source_ref) and sources.is_local(lookup.scan.source_ref)
        ]
        for lookup in local:
            sources.source(lookup.scan.source_ref).snapshot()  # here, so that there is but one of each
        threads = 1 if profile.on else min(self._threads, len(local))
        beside = {lookup.operator.output for lookup in local} if threads > 1 else set()
        found: dict[str, FoundVersions] = {}
        for lookup in lookups:
            if lookup.operator.output not in beside:
                with profile.shared(lookup.operator.name, "versions"):
                    made = FoundVersions(lookup, known[lookup.keys], between, self._relations, self._memory)
                found[lookup.operator.output] = made
        if beside:
            scans = (lookup.scan for lookup in local)
            each = min(self._threads // threads, workers_for(self._context, scans, self._threads))

            def read_beside(lookup: Lookup) -> FoundVersions:
                with connection_beside(self._graph.connection) as connection:
                    relations = DayRelations(self._context, connection)
                    return FoundVersions(lookup, known[lookup.keys], between, relations, self._memory)

            with fewer_threads(self._graph.connection, each), ThreadPoolExecutor(threads) as pool:
                for lookup, made in zip(local, pool.map(read_beside, local), strict=True):
                    found[lookup.operator.output] = made
        return [found[lookup.operator.output] for lookup in lookups]

    def _keys_of_rows(self, keys: Sequence[tuple[str, ...]]) -> pa.Table:
        if self._rows is not None:
            return self._rows
        names = dict.fromkeys(name for one in keys for name in one)
        return self._graph.arrow(self._plan.rows, dict.fromkeys([*names, ROW, TICK]))

    def drop(self) -> None:
        """Let go of the tables."""
        self._rows = None
        for operator in self._plan.pipeline:
            if self._graph.knows(operator.output):
                self._graph.drop(operator.output)

    # ------------------------------------------------------------------ finished rows

    def tables(self) -> Iterator[pa.Table]:
        """The finished rows in order, with their positions."""
        named = self._columns_of_rows if self._rows is not None else None
        with ThreadPoolExecutor(self._threads) as threads:
            for chunk in super().tables() if named is None else self._passed_on(named):
                yield self._with_values(chunk, threads)

    def _passed_on(self, named: Mapping[str, str]) -> Iterator[pa.Table]:
        """The rows under the names that the output gives them."""
        rows = cast("pa.Table", self._rows)
        columns = {column: rows[source] for column, source in named.items()}
        table = pa.table(columns | {TICK: rows[TICK], ROW: rows[ROW]})
        yield table.schema.empty_table()
        for batch in table.to_batches(max_chunksize=self._rows_per_chunk):
            yield pa.Table.from_batches([batch])

    def _in_slices(self, source: str, rows: int) -> Iterator[pa.Table]:
        if self._sliced is None and not self._is_row_by_row(self._final.output):
            yield from super()._in_slices(source, rows)
            return
        self._drop_what_is_not_read()
        yield from self._streamed(self._final.output)

    def _streamed(self, relation: str) -> Iterator[pa.Table]:
        """Rows that are only filtered and computed with come in order; what is passed on need not go through SQL."""
        if self._sliced is None and (self._rows is None or not self._is_row_by_row(relation)):
            yield from super()._streamed(relation)
            return
        begin = self._plan.begin
        passed = self._passed_from(begin)
        columns = list(self._graph.types(relation))
        made = ", ".join(quote_ident(name) for name in columns if name not in passed or name == ROW)
        sql = f"SELECT {made} FROM (\n{self._graph.sql(relation)}\n)"
        self._graph.statements.append((relation, sql))
        table = None
        with fewer_threads(self._graph.connection, 1):
            for rows in self._rows_in_slices():
                for start in range(0, max(rows.num_rows, 1), _SLICE_ROWS):
                    part = rows.slice(start, _SLICE_ROWS)
                    self._graph.give(begin, part)
                    found = in_order(self._graph.fetch(sql, relation))
                    first, table = table is None, beside(found, part, passed).select(columns)
                    if first:
                        yield table.schema.empty_table()
                    for batch in table.combine_chunks().to_batches(max_chunksize=self._rows_per_chunk):
                        yield pa.Table.from_batches([batch])
                self._graph.give(begin, rows)

    def _rows_in_slices(self) -> Iterator[pa.Table]:
        """The rows that the other operators begin with, all of them or slice by slice."""
        if self._sliced is None:
            yield cast("pa.Table", self._rows)
            return
        with less_for_duckdb(self._graph.connection):
            for rows in self._sliced:
                yield self._begin_with(rows)
                give_back_memory()  # else each slice adds to what the allocators hold

    # ------------------------------------------------------------------ of slices

    def _before_tail(self) -> list[AnyOperator]:
        before = super()._before_tail()
        return before if self._sliced is None else before[:-1]

    def _rows_before(self, operator: RollingAggregate | PointInTimeJoin) -> str:
        return self._plan.rows if self._sliced is not None else super()._rows_before(operator)

    def _still_read(self) -> set[str]:
        return super()._still_read() | ({self._plan.rows} if self._sliced is not None else set())

    def _send_again(self, filters: Sequence[AnyOperator], source: str) -> None:
        if self._sliced is None:
            super()._send_again(filters, source)
            return
        for rows in RowSlices(self._graph, DROPPED, day_stream.SLICE_ROWS):
            self._begin_with(rows)
            self._count_dropped(filters, rows.num_rows, 0)

    def _passed_from(self, begin: str) -> dict[str, str]:
        """Output columns that are columns of the rows they begin with, positions included."""
        chain = main_chain(self._context.pipeline)
        late = chain[[operator.output for operator in chain].index(begin) + 1 : -1]
        rewritten = {column.name for one in late if isinstance(one, Project) for column in one.columns}
        last = self._beside.held.operators[-1:] if self._beside is not None else (self._final,)
        if not last or not isinstance(final := last[0], Project) or final.extend:
            return {}
        source = final.inputs[0]
        types, absent = self._graph.types(source), self._relations.absent[source]
        names = {quote_ident(name): name for name in self._graph.types(begin) if name not in rewritten}
        made = {column.name: column_sql(column, types, absent, final.name) for column in final.columns}
        positions = {name: name for name in (TICK, ROW) if name not in made}
        return {column: names[sql] for column, sql in made.items() if sql in names} | positions

    def _is_row_by_row(self, relation: str) -> bool:
        """Whether a relation is made of the held rows alone, each by itself."""
        name, aggregates = relation, self._beside.aggregates if self._beside is not None else ()
        while name != self._plan.begin:
            operator = self._context.pipeline.producer(name)
            if self._graph.is_kept(name) or not (_is_by_row(operator) or operator in aggregates):
                return False
            name = operator.inputs[0]
        return self._graph.held(name) is not None

    def _chunks(self, relation: str) -> Iterator[pa.Table]:
        if relation != self._plan.begin or self._rows is None:
            yield from super()._chunks(relation)
            return
        for start in range(0, max(self._rows.num_rows, 1), self._rows_per_chunk):
            yield self._rows.slice(start, self._rows_per_chunk)

    def _with_values(self, chunk: pa.Table, threads: ThreadPoolExecutor) -> pa.Table:
        keyed = cast("KeyedRows", self._keyed)
        places = keyed.places(chunk[ROW].to_numpy())

        def values_of(found: FoundVersions) -> dict[str, pa.ChunkedArray]:
            with self._context.profile.timed(found.name, "lookup", chunk.num_rows):
                return found.values(keyed, places)

        values: dict[str, pa.ChunkedArray] = {}
        for made in threads.map(values_of, self._found):
            values |= made
        return self._plan.held.beside(chunk, values)


def _is_by_row(operator: AnyOperator) -> bool:
    """Whether SQL makes each row, or drops it, by itself."""
    return isinstance(operator, Project) or (isinstance(operator, Filter) and not operator.counts)
