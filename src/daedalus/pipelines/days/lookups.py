"""A day whose lookups as of a time are set beside its finished rows.

Rows get the code of their key once. Of each view's versions, read as a stream, those are held that a row of the
day can find: the newest that was available before the day's first row, and all that became available since. A
binary search per row then finds its version, and Arrow takes the values.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa

from daedalus.pipelines.days.counts import NULL_KEY
from daedalus.pipelines.days.lookup_held import MemoryShare, TooManyVersionsError
from daedalus.pipelines.days.lookup_kernels import best_so_far, find_versions, starts_of
from daedalus.pipelines.days.lookup_keys import KeyedRows
from daedalus.pipelines.days.lookup_plan import LookupPlan
from daedalus.pipelines.days.lookup_rows import HeldRows
from daedalus.pipelines.days.lookup_versions import VersionReader
from daedalus.pipelines.days.relations import DayRelations
from daedalus.pipelines.days.stream import DayStream
from daedalus.pipelines.duckdb_session import connection_beside, fewer_threads
from daedalus.pipelines.operators import ROW, TICK, Scan
from daedalus.pipelines.run_sources import is_run_relation
from daedalus.storage.embedding_kernels import compiled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import duckdb
    from numpy.typing import NDArray

    from daedalus.pipelines.days.aggregates import Resources
    from daedalus.pipelines.days.context import DayContext
    from daedalus.pipelines.days.lookup_plan import Lookup
    from daedalus.pipelines.operators import AnyOperator
    from daedalus.storage.sources.parquet import ParquetSnapshot

#: Of the memory that aggregation may use, what versions may take beside it.
_SHARE = 0.5
#: So many chunks at once get their values where nothing is aggregated: each column's versions enter the cache once.
_CHUNKS = 16
#: With fewer rows, a second thread mostly waits.
_ROWS_PER_WORKER = 2_000_000
#: Bytes of values that are made at once at most.
_CHUNK_BYTES = 64 << 20


def prepared_stream(
    context: DayContext, connection: duckdb.DuckDBPyConnection, resources: Resources
) -> DayStream:
    """The day's stream of rows, everything before it done; lookups in SQL where their versions take too much memory."""
    plan = LookupPlan.of(context.pipeline, context.catalog)
    if plan is not None:
        beside = LookupStream(context, connection, resources, plan)
        try:
            beside.prepare()
        except TooManyVersionsError:
            beside.drop()
        else:
            return beside
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
        self._columns_of_rows: dict[str, str] = {}
        self._found: list[FoundVersions] = []
        self._threads = int(resources.duckdb_config.get("threads") or os.cpu_count() or 1)

    def prepare(self) -> None:
        """Run everything before the stream, and read the versions.

        Raises:
            TooManyVersionsError: they do not fit into memory.
        """
        super().prepare()
        lookups = [lookup for lookup in self._plan.lookups if lookup.columns]
        keys = [tuple(left for left, _ in one.operator.on) for one in self._plan.lookups]
        with self._context.profile.shared(self._plan.rows, "keys"):
            self._keyed = KeyedRows(self._keys_of_rows(keys), keys)
        self._found = self._versions_of(lookups)
        if not self._tail:
            width = sum(found.width for found in self._found)
            most = max(self._rows_per_chunk, int(self._chunk_bytes / max(width, 1)))
            self._rows_per_chunk = min(self._rows_per_chunk * _CHUNKS, most)

    def _versions_of(self, lookups: Sequence[Lookup]) -> list[FoundVersions]:
        """What each lookup finds; local files are read side by side."""
        sources, profile = self._context.sources, self._context.profile
        local = [lookup for lookup in lookups if sources.is_local(lookup.scan.source_ref)]
        for lookup in local:
            sources.source(lookup.scan.source_ref).snapshot()  # here, so that there is but one of each
        threads = 1 if profile.on else min(self._threads, len(local))
        beside = {lookup.operator.output for lookup in local} if threads > 1 else set()
        found: dict[str, FoundVersions] = {}
        for lookup in lookups:
            if lookup.operator.output not in beside:
                with profile.shared(lookup.operator.name, "versions"):
                    made = FoundVersions(lookup, self._keyed, self._relations, self._memory)
                found[lookup.operator.output] = made
        if beside:
            each = min(self._threads // threads, self._workers(lookup.scan for lookup in local))
            with fewer_threads(self._graph.connection, each), ThreadPoolExecutor(threads) as pool:
                for lookup, made in zip(local, pool.map(self._read_beside, local), strict=True):
                    found[lookup.operator.output] = made
        return [found[lookup.operator.output] for lookup in lookups]

    def _read_beside(self, lookup: Lookup) -> FoundVersions:
        with connection_beside(self._graph.connection) as connection:
            relations = DayRelations(self._context, connection)
            return FoundVersions(lookup, self._keyed, relations, self._memory)

    def add(self, operator: AnyOperator) -> None:
        """Define an operator's relation; rows that are only passed on are held in Arrow instead of a table."""
        super().add(operator)
        name = self._plan.rows
        if operator.output != name or self._graph.is_kept(name):
            return
        columns = self._plan.passed_on(self._graph.types(name), self._relations.absent[name])
        scans = [one for one in self._context.pipeline.upstream(name) if isinstance(one, Scan)]
        with fewer_threads(self._graph.connection, self._workers(scans)):
            if columns is not None:
                self._columns_of_rows = columns
                self._rows = HeldRows(self._relations, name, self._most).read()
            self._graph.keep(name)

    def _workers(self, scans: Iterable[Scan]) -> int:
        """How many of DuckDB's threads a statement over one of these scans, or over all of them, can keep busy."""
        rows, sources = 0, self._context.sources
        for scan in scans:
            if is_run_relation(scan.source_ref) or not sources.is_local(scan.source_ref):
                return self._threads
            snapshot = cast("ParquetSnapshot", sources.source(scan.source_ref).snapshot())
            rows += sum(file.rows for file in snapshot.pruned(self._context.time_range(scan)))
        return 1 + rows // _ROWS_PER_WORKER

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

    def tables(self) -> Iterator[pa.Table]:
        """The finished rows in order, with their positions."""
        with ThreadPoolExecutor(self._threads) as threads:
            for chunk in super().tables() if self._rows is None else self._passed_on(self._rows):
                yield self._with_values(chunk, threads)

    def _passed_on(self, rows: pa.Table) -> Iterator[pa.Table]:
        """The rows under the names that the output gives them."""
        named = {column: rows[source] for column, source in self._columns_of_rows.items()}
        table = pa.table(named | {TICK: rows[TICK], ROW: rows[ROW]})
        yield table.schema.empty_table()
        for batch in table.to_batches(max_chunksize=self._rows_per_chunk):
            yield pa.Table.from_batches([batch])

    def counters(self, rows_out: int, nulls: Mapping[str, int]) -> dict[str, int]:
        """The counters of the other operators, and the NULL keys of the lookups."""
        counted = super().counters(rows_out, nulls)
        return counted | {NULL_KEY + name: count for name, count in self._keyed.nulls.items()}

    def _with_values(self, chunk: pa.Table, threads: ThreadPoolExecutor) -> pa.Table:
        places = self._keyed.places(chunk[ROW].to_numpy())

        def values_of(found: FoundVersions) -> dict[str, pa.ChunkedArray]:
            with self._context.profile.timed(found.name, "lookup", chunk.num_rows):
                return found.values(places)

        values: dict[str, pa.ChunkedArray] = {}
        for made in threads.map(values_of, self._found):
            values |= made
        return self._plan.held.beside(chunk, values)


class FoundVersions:
    """One lookup, ready to be searched.

    Args:
        lookup: what to look up.
        keyed: the rows.
        relations: reads the versions.
        memory: what they take is taken from it.

    Attributes:
        width: bytes that a row's values take, more or less.
    """

    def __init__(
        self, lookup: Lookup, keyed: KeyedRows, relations: DayRelations, memory: MemoryShare
    ) -> None:
        self.name = lookup.operator.name
        keys = keyed.keys(tuple(left for left, _ in lookup.operator.on))
        versions = VersionReader(lookup, keys, keyed.times, relations, memory).read()
        self._codes = keys.codes
        self._times = keyed.times
        self._versions = versions
        count = len(versions.codes)
        self._starts = np.empty(keys.distinct.num_rows + 1, np.int64)
        self._best = np.empty(count, np.int64)
        compiled(starts_of)(versions.codes, self._starts)
        compiled(best_so_far)(versions.codes, versions.ticks, versions.ranks, self._best)
        ttl = lookup.operator.ttl_seconds
        self._alive = -1 if ttl is None else relations.context.tick.of(ttl)
        self.width = versions.values.nbytes / (count + 1)

    def values(self, places: slice | NDArray[np.int64]) -> dict[str, pa.ChunkedArray]:
        """The looked-up columns of the rows at these places, by the names that the join gives them."""
        codes = self._codes[places]
        found = np.empty(len(codes), np.int64)
        compiled(find_versions)(
            codes,
            self._times[places],
            self._starts,
            self._versions.available,
            self._best,
            self._versions.ticks,
            self._alive,
            found,
        )
        taken = self._versions.values.take(pa.array(found))
        return dict(zip(taken.column_names, taken.columns, strict=True))
