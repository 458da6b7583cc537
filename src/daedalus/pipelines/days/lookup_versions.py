"""The versions of a view that some row of a day can find, read as a stream and held in memory.

Where a view has few versions per key they are all read, and their keys are numbered beside DuckDB. Otherwise DuckDB
joins them to the keys, the last days first: a key that has a version there from before the day's rows needs no
older one. Where versions are daily snapshots, the rest of the source is not read at all.

The newest row of a key is the version that a row of the end of time finds.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa

from daedalus.pipelines.days.lookup_held import HeldVersions, Part
from daedalus.pipelines.days.lookup_kernels import tied
from daedalus.pipelines.days.lookup_order import VersionOrder
from daedalus.pipelines.days.visibility import created_ticks
from daedalus.pipelines.operator_sql import column_sql
from daedalus.pipelines.operators import TICK, Join
from daedalus.sql.identifiers import quote_ident
from daedalus.storage.sources.base import TickRange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from daedalus.pipelines.days.lookup_held import MemoryShare
    from daedalus.pipelines.days.lookup_keys import Keys
    from daedalus.pipelines.days.lookup_plan import Lookup
    from daedalus.pipelines.days.relations import DayRelations
    from daedalus.storage.embedding_index import IdIndex
    from daedalus.storage.sources.parquet import ParquetSnapshot

_BATCH_ROWS = 131_072
#: With fewer versions per key, reading all of them at once is cheaper than reading twice.
_MANY = 8
#: How far before the day's first row the first reading goes.
_RECENT_US = 2 * 86_400_000_000
_KEY, _CODE, _AVAILABLE, _RANK = "__key", "__code", "__available", "__rank"
_EARLIEST, _LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
#: The time of a version that has none, where the newest is asked for: any other is newer.
_TIMELESS = _EARLIEST + 1


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions, sorted by key and the time they became available.

    Attributes:
        codes: the number of each version's key.
        ticks: its own time.
        available: the instant before which no row finds it.
        ranks: the total order among versions of equal time; 0 where there is but one.
        values: the columns that it gives to a row, and a last row: what a row without a version gets.
    """

    codes: NDArray[np.int64]
    ticks: NDArray[np.int64]
    available: NDArray[np.int64]
    ranks: NDArray[np.int64]
    values: pa.Table

    @property
    def size(self) -> int:
        """Bytes that they take, and what finds them."""
        return int(self.values.nbytes) + 40 * len(self.codes)


class VersionReader:
    """Reads the versions of one lookup.

    Args:
        lookup: what to look up.
        keys: of the rows.
        between: the first and the last of the rows' times, in ticks.
        relations: the day's.
        memory: what the versions take is taken from it.

    Attributes:
        read_types: DuckDB's, of the columns that other operators read.
        absent: of these, what the source lacks.
    """

    def __init__(
        self,
        lookup: Lookup,
        keys: Keys,
        between: tuple[int, int],
        relations: DayRelations,
        memory: MemoryShare,
    ) -> None:
        self._lookup = lookup
        self._name = lookup.operator.name
        self._keys = keys
        self._relations = relations
        self._graph = relations.graph
        self._memory = memory
        operator = lookup.operator
        self._newest = isinstance(operator, Join)
        self._created_column = "" if isinstance(operator, Join) else operator.created_column
        self._delay_seconds = 0.0 if isinstance(operator, Join) else operator.delay_seconds
        self._low, self._high = (_LAST, _LAST) if self._newest else between
        base, self._reader = relations.scan_rows(lookup.scan)
        if self._newest and not self._reader.view.timestamp_field:
            relations.require_unique_view(lookup.scan, base, self._reader)

        self._order = VersionOrder(lookup, keys, self._reader)
        pairs = dict(lookup.operator.columns)
        self.read_types = {name: self._reader.columns[pairs[name]].dtype for name in lookup.read}
        self.absent = frozenset(name for name in lookup.read if self._reader.columns[pairs[name]].absent)

    def read(self) -> Versions:
        """The versions.

        Raises:
            TooManyVersionsError: they take more memory than they may.
        """
        between = (self._low, self._high)
        held = HeldVersions(self._name, self._keys.distinct.num_rows, between, self._memory)
        (recent, older), index = self._parts()
        self._stream(held, recent, self._keys.distinct, index)
        unseen = held.unseen()
        if older is not None and unseen.any():
            keys = self._keys.distinct
            self._stream(held, older, keys if unseen.all() else keys.filter(pa.array(unseen)), None)
        versions = self._sorted(held)
        self._memory.use(self._name, versions.size)
        return versions

    def _whole(self) -> TickRange | None:
        """The part of the view's time that the scan reads; None is all of it, versions without a time too."""
        known = self._relations.context.time_range(self._lookup.scan)
        return known if self._newest else known or TickRange()

    def _parts(self) -> tuple[tuple[TickRange | None, TickRange | None], IdIndex | None]:
        """The parts of the view's time to read, one after the other, and what numbers keys beside SQL."""
        context = self._relations.context
        whole = self._whole()
        if whole is None or self._newest:
            return (whole, None), self._index() if self._has_few() else None
        low_us = self._low * 1_000_000 // context.ticks_per_second
        cut = low_us - math.ceil(self._delay_seconds * 1_000_000) - _RECENT_US
        if (whole.low_us is not None and whole.low_us >= cut) or not cut > _EARLIEST // 2:
            return (whole, None), None
        few = self._has_few()
        if (whole.high_us is not None and whole.high_us <= cut) or few or not self._reader.view.source.path:
            # Each reading of a database is a query of its own.
            return (whole, None), self._index() if few else None
        recent = replace(whole, low_us=cut)
        if not self._skips(recent, whole):
            return (whole, None), None
        return (recent, replace(whole, high_us=cut)), None

    def _skips(self, part: TickRange, whole: TickRange) -> bool:
        """Whether reading a part first spares reading much of local files; of others nobody knows."""
        sources, view = self._relations.context.sources, self._reader.view.name
        if not sources.is_local(view):
            return True
        snapshot = cast("ParquetSnapshot", sources.source(view).snapshot())
        return 2 * snapshot.rows_touched(part) < snapshot.rows_touched(whole)

    def _has_few(self) -> bool:
        """Whether files hold few versions for each key that is asked for; of a database nobody knows beforehand."""
        if not self._reader.view.source.path:
            return False
        sql = f"SELECT count(*) FROM {self._reader.relation_sql()}"
        count = int(self._graph.rows(sql, self._name)[0][0])
        return count < _MANY * int(self._keys.distinct.num_rows)

    def _index(self) -> IdIndex | None:
        on = self._lookup.operator.on
        return self._keys.index_for(self._reader.columns[on[0][1]].dtype) if len(on) == 1 else None

    # ------------------------------------------------------------------ what was read

    def _sorted(self, held: HeldVersions) -> Versions:
        parts, order = held.finished()
        codes, ticks, available = _joined(parts)
        by_tick = order
        if self._created_column:  # else the order of their times is that of availability
            by_tick = order[np.lexsort((ticks[order], codes[order]))]
        equal = by_tick[tied(codes[by_tick], ticks[by_tick])]
        values = [pa.Table.from_batches([part.values]) for part in parts]
        ranks = np.zeros(len(codes), np.int64)
        if len(equal) and self._order.known:
            equals = pa.concat_tables(values).take(pa.array(equal))
            ranks[equal] = self._order.ranks(equals, self._graph, self._name)
        elif len(equal):
            ranked = self._with_ranks(codes[equal], ticks[equal])
            order = np.setdiff1d(order, equal)
            more = (_numbers(ranked, name) for name in (_CODE, TICK, _AVAILABLE, _RANK))
            before = (codes, ticks, available, ranks)
            codes, ticks, available, ranks = (np.concatenate(pair) for pair in zip(before, more, strict=True))
            order = np.concatenate([order, np.arange(len(codes) - ranked.num_rows, len(codes))])
            order = order[np.lexsort((available[order], codes[order]))]
            values.append(ranked)
        missing = self._missing()
        whole = pa.concat_tables([*(table.select(missing.column_names) for table in values), missing])
        taken = whole.take(pa.array(np.append(order, len(codes)))).combine_chunks()
        return Versions(codes[order], ticks[order], available[order], ranks[order], taken)

    # ------------------------------------------------------------------ SQL

    def _delay(self) -> int:
        return self._relations.context.tick.of(self._delay_seconds)

    def _versions_sql(self, within: TickRange | None, keys: str, ranked: str = "") -> str:
        """A SELECT of code, times and values of the versions of the rows' keys, in any order.

        Args:
            within: the part of the view's time; None is all that the scan reads.
            keys: the registered keys; empty for the versions of all keys, and their keys in place of the code.
            ranked: a registered relation of (code, time): only these, numbered in the view's total order.
        """
        operator = self._lookup.operator
        base = self._relations.scan_rows(self._lookup.scan, within)[0]
        if self._newest:
            base = f"SELECT * REPLACE (coalesce({TICK}, {_TIMELESS}) AS {TICK}) FROM ({base})"
        known = [f"{TICK} IS NOT NULL"]
        times = [TICK]
        if self._created_column:
            created = self._created()
            times.append(f"greatest({TICK} + {self._delay()}, {created}) AS {_AVAILABLE}")
            known.append(f"{created} IS NOT NULL")
        elif ranked:
            times.append(f"{TICK} + {self._delay()} AS {_AVAILABLE}")
        code = _CODE if keys else _KEY
        if keys:
            pairs = " AND ".join(
                f"b.{quote_ident(right)} = k.k{number}" for number, (_, right) in enumerate(operator.on)
            )
            rows = (
                f"SELECT k.code AS {_CODE}, b.* FROM ({base}) AS b JOIN {quote_ident(keys)} AS k ON {pairs}"
            )
        else:
            rows = f"SELECT b.{quote_ident(operator.on[0][1])} AS {_KEY}, b.* FROM ({base}) AS b"
        rows += f" WHERE {' AND '.join(known)}"
        if ranked:
            times.append(f"row_number() OVER (ORDER BY {self._reader.order_sql()}) AS {_RANK}")
            pairs = f"v.{_CODE} = t.c AND v.{TICK} = t.t"
            rows = f"SELECT v.* FROM ({rows}) AS v SEMI JOIN {quote_ident(ranked)} AS t ON {pairs}"
        looked_up = [f"{quote_ident(column)} AS {quote_ident(name)}" for name, column in self._lookup.given]
        looked_up += [f"{quote_ident(column)} AS {name}" for name, column in self._order.more]
        named = f"SELECT {', '.join([code, *times, *looked_up])} FROM ({rows})"
        made = [code, *(text.rsplit(" AS ", 1)[-1] for text in times), *self._values()]
        made += [name for name, _ in self._order.more]
        return f"SELECT {', '.join(made)} FROM ({named})" + (
            f" WHERE {_AVAILABLE} < {self._high}" if ranked else ""
        )

    def _created(self) -> str:
        dtype = self._reader.columns[self._created_column].dtype
        unit = self._reader.view.source.timestamp_unit
        per_second = self._relations.context.ticks_per_second
        return created_ticks(quote_ident(self._created_column), dtype, unit, per_second)

    def _values(self) -> list[str]:
        """The looked-up columns, those that go to the output as its expressions, under the names of the join."""
        pairs = dict(self._lookup.given)
        types = {name: self._reader.columns[column].dtype for name, column in pairs.items()}
        absent = frozenset(name for name, column in pairs.items() if self._reader.columns[column].absent)
        by_source = {column.sql: column for column in self._lookup.columns}
        found = []
        for name in types:
            column = by_source.get(quote_ident(name))
            value = quote_ident(name) if column is None else column_sql(column, types, absent, self._name)
            found.append(f"{value} AS {quote_ident(name)}")
        return found

    def _missing(self) -> pa.Table:
        """One row: the values of a row without a version."""
        nulls = ", ".join(
            f"CAST(NULL AS {self._reader.columns[column].dtype}) AS {quote_ident(name)}"
            for name, column in self._lookup.given
        )
        return self._graph.fetch(f"SELECT {', '.join(self._values())} FROM (SELECT {nulls})", self._name)

    # ------------------------------------------------------------------ reading

    def _stream(
        self, held: HeldVersions, within: TickRange | None, keys: pa.Table, index: IdIndex | None
    ) -> None:
        """Hold what a row may find among the versions of these keys, in a part of the view's time."""
        with contextlib.ExitStack() as registered:
            joined_to = "" if index is not None else registered.enter_context(self._registered("keys", keys))
            reader = self._graph.stream(self._versions_sql(within, joined_to), self._name, _BATCH_ROWS)
            for batch in self._graph.batches(reader, self._name):
                held.add(self._part(batch, index))

    def _part(self, batch: pa.RecordBatch, index: IdIndex | None) -> Part:
        ticks = np.array(batch.column(TICK))
        codes = np.array(batch.column(_CODE)) if index is None else index.find(batch.column(_KEY))
        available = np.array(batch.column(_AVAILABLE)) if self._created_column else ticks + self._delay()
        names = [name for name in batch.schema.names if name not in (_KEY, _CODE, TICK, _AVAILABLE)]
        return Part(codes, ticks, available, batch.select(names))

    @contextlib.contextmanager
    def _registered(self, what: str, table: pa.Table) -> Iterator[str]:
        name = f"__{what}_of_{self._name}"
        self._graph.connection.register(name, table)
        try:
            yield name
        finally:
            self._graph.connection.unregister(name)

    def _with_ranks(self, codes: NDArray[np.int64], ticks: NDArray[np.int64]) -> pa.Table:
        """All versions of these keys and times, numbered by the view's total order."""
        pairs = pa.table({"c": codes, "t": ticks}).group_by(["c", "t"]).aggregate([])
        with (
            self._registered("keys", self._keys.distinct) as keys,
            self._registered("tied", pairs) as ties,
        ):
            return self._graph.fetch(self._versions_sql(self._whole(), keys, ties), self._name)


def numbered_sessions(lookup: Lookup, keys: Keys, relations: DayRelations, memory: MemoryShare) -> Versions:
    """The numbers of the rows' sessions, as versions without a time.

    Raises:
        TooManyVersionsError: they take more memory than they may.
    """
    graph, name = relations.graph, lookup.operator.name
    (_, right), names = lookup.operator.on[0], [name for name, _ in lookup.given]
    given = ", ".join(f"r.{quote_ident(column)} AS {quote_ident(one)}" for one, column in lookup.given)
    registered = f"__keys_of_{name}"
    graph.connection.register(registered, keys.distinct)
    try:
        session_type = graph.rows(f"DESCRIBE SELECT k0 FROM {quote_ident(registered)}", name)[0][1]
        rows = graph.fetch(
            f"SELECT k.code AS {_CODE}, {given} FROM ({relations.session_map(lookup.scan, session_type)}) AS r "
            f"JOIN {quote_ident(registered)} AS k ON r.{quote_ident(right)} = k.k0 ORDER BY 1",
            name,
        )
    finally:
        graph.connection.unregister(registered)
    none = pa.table({one: pa.nulls(1, rows.schema.field(one).type) for one in names})
    codes = _numbers(rows, _CODE)
    same: NDArray[np.int64] = np.zeros(len(codes), np.int64)
    values = pa.concat_tables([rows.select(names), none]).combine_chunks()
    versions = Versions(codes, same, same, same, values)
    memory.use(name, versions.size)
    return versions


def _numbers(table: pa.Table, name: str) -> NDArray[np.int64]:
    values: NDArray[np.int64] = table[name].to_numpy()
    return values


def _joined(parts: list[Part]) -> tuple[NDArray[np.int64], ...]:
    """Codes, ticks and times of availability of all parts."""
    none = np.zeros(0, np.int64)
    return tuple(
        np.concatenate([none, *arrays])
        for arrays in (
            [part.codes for part in parts],
            [part.ticks for part in parts],
            [part.available for part in parts],
        )
    )
