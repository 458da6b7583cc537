"""The versions of a view that some row of a day can find, read as a stream and held in memory.

The last days are read first: a key that has a version there from before the day's rows needs no older one. Where
versions are daily snapshots, the rest of the source is not read at all.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from daedalus.pipelines.lookup_kernels import may_be_found, tied
from daedalus.pipelines.operator_sql import column_sql
from daedalus.pipelines.operators import TICK
from daedalus.pipelines.visibility import created_ticks
from daedalus.sql.identifiers import quote_ident
from daedalus.storage.embedding_kernels import compiled
from daedalus.storage.sources.base import TickRange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from daedalus.pipelines.day_relations import DayRelations
    from daedalus.pipelines.lookup_plan import Lookup

_BATCH_ROWS = 131_072
#: Fewer held versions are not worth sifting again.
_SIFTED = 500_000
#: With fewer versions per key, reading all of them at once is cheaper than reading twice.
_MANY = 8
#: How far before the day's first row the first reading goes.
_RECENT_US = 2 * 86_400_000_000
_CODE, _AVAILABLE, _RANK = "__code", "__available", "__rank"
_EARLIEST = np.iinfo(np.int64).min


class TooManyVersionsError(Exception):
    """The versions that a day can find do not fit into the memory that it may use."""


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


class VersionReader:
    """Reads the versions of one lookup.

    Args:
        lookup: what to look up.
        keys: the distinct keys of the rows, and their `code`.
        times: of the rows, in ticks.
        relations: the day's.
        memory: bytes that the versions may take.
    """

    def __init__(
        self, lookup: Lookup, keys: pa.Table, times: NDArray[np.int64], relations: DayRelations, memory: int
    ) -> None:
        self._lookup = lookup
        self._name = lookup.operator.name
        self._keys = keys
        self._relations = relations
        self._graph = relations.graph
        self._memory = memory
        self._low = int(times.min()) if len(times) else 0
        self._high = int(times.max()) if len(times) else 0
        self._reader = relations.scan_rows(lookup.scan)[1]
        self._newest: NDArray[np.int64] = np.full(keys.num_rows, _EARLIEST, np.int64)

    def read(self) -> Versions:
        """The versions.

        Raises:
            TooManyVersionsError: they take more memory than they may.
        """
        recent, older = self._parts()
        table = self._streamed(recent, self._keys)
        seen = self._newest != _EARLIEST
        if older is not None and not seen.all():
            others = self._keys.filter(pa.array(~seen)) if seen.any() else self._keys
            table = pa.concat_tables([table, self._streamed(older, others)])
        table = table.combine_chunks()
        codes, ticks = _numbers(table, _CODE), _numbers(table, TICK)
        order = np.lexsort((ticks, codes))
        among_equals = tied(codes[order], ticks[order])
        if among_equals.any():
            table = self._with_ranks(table, order[among_equals])
        return self._sorted(table)

    def _parts(self) -> tuple[TickRange, TickRange | None]:
        """The parts of the view's time to read, one after the other."""
        context, operator = self._relations.context, self._lookup.operator
        whole = context.time_range(self._lookup.scan) or TickRange()
        low_us = self._low * 1_000_000 // context.ticks_per_second
        cut = low_us - math.ceil(operator.delay_seconds * 1_000_000) - _RECENT_US
        if (whole.low_us is not None and whole.low_us >= cut) or not cut > _EARLIEST // 2:
            return whole, None
        if (whole.high_us is not None and whole.high_us <= cut) or self._at_once():
            return whole, None
        return replace(whole, low_us=cut), replace(whole, high_us=cut)

    def _at_once(self) -> bool:
        """Whether to read the view once: a database, or files with few versions for each key that is asked for."""
        if not self._reader.view.source.path:
            return (
                True  # each reading is a query of its own, and nobody knows beforehand how many rows it finds
            )
        sql = f"SELECT count(*) FROM {self._reader.relation_sql()}"
        count = int(self._graph.rows(sql, self._name)[0][0])
        return count < _MANY * int(self._keys.num_rows)

    def _sorted(self, table: pa.Table) -> Versions:
        codes, available = _numbers(table, _CODE), _numbers(table, _AVAILABLE)
        order = np.lexsort((available, codes))
        names = [name for name, _ in self._lookup.operator.columns if name in table.column_names]
        values = pa.concat_tables([table.select(names).take(pa.array(order)), self._missing(names)])
        ranks = _numbers(table, _RANK)[order] if _RANK in table.column_names else np.zeros_like(codes)
        return Versions(
            codes[order], _numbers(table, TICK)[order], available[order], ranks, values.combine_chunks()
        )

    # ------------------------------------------------------------------ SQL

    def _versions_sql(self, within: TickRange, keys: str, ranked: str = "") -> str:
        """A SELECT of code, times and values of the versions of the rows' keys, in any order.

        Args:
            within: the part of the view's time.
            keys: the registered keys.
            ranked: a registered relation of (code, time): only these, numbered in the view's total order.
        """
        operator = self._lookup.operator
        base = self._relations.scan_rows(self._lookup.scan, within)[0]
        tick = self._relations.context.tick
        available = f"{TICK} + {tick.of(operator.delay_seconds)}"
        known = [f"{TICK} IS NOT NULL"]
        if operator.created_column:
            created = self._created()
            available = f"greatest({available}, {created})"
            known.append(f"{created} IS NOT NULL")
        pairs = " AND ".join(
            f"b.{quote_ident(right)} = k.k{number}" for number, (_, right) in enumerate(operator.on)
        )
        rows = (
            f"SELECT k.code AS {_CODE}, b.* FROM ({base}) AS b "
            f"JOIN {quote_ident(keys)} AS k ON {pairs} WHERE {' AND '.join(known)}"
        )
        rank = ""
        if ranked:
            rank = f", row_number() OVER (ORDER BY {self._reader.order_sql()}) AS {_RANK}"
            pairs = f"v.{_CODE} = t.c AND v.{TICK} = t.t"
            rows = f"SELECT v.* FROM ({rows}) AS v SEMI JOIN {quote_ident(ranked)} AS t ON {pairs}"
        named = ", ".join(
            [_CODE, TICK, f"{available} AS {_AVAILABLE}{rank}"]
            + [f"{quote_ident(column)} AS {quote_ident(name)}" for name, column in operator.columns]
        )
        values = ", ".join([_CODE, TICK, _AVAILABLE, *([_RANK] if ranked else []), *self._values()])
        return f"SELECT {values} FROM (SELECT {named} FROM ({rows})) WHERE {_AVAILABLE} < {self._high}"

    def _created(self) -> str:
        operator, view = self._lookup.operator, self._reader.view
        dtype = self._reader.columns[operator.created_column].dtype
        per_second = self._relations.context.ticks_per_second
        return created_ticks(
            quote_ident(operator.created_column), dtype, view.source.timestamp_unit, per_second
        )

    def _values(self) -> list[str]:
        """The output's expressions over the looked-up columns, under the names that the join gives them."""
        pairs = dict(self._lookup.operator.columns)
        types = {name: self._reader.columns[column].dtype for name, column in pairs.items()}
        absent = frozenset(name for name, column in pairs.items() if self._reader.columns[column].absent)
        by_source = {column.sql: column for column in self._lookup.columns}
        found = []
        for name in types:
            column = by_source.get(quote_ident(name))
            if column is not None:
                found.append(f"{column_sql(column, types, absent, self._name)} AS {quote_ident(name)}")
        return found

    def _missing(self, names: list[str]) -> pa.Table:
        """One row: the values of a row without a version."""
        nulls = ", ".join(
            f"CAST(NULL AS {self._reader.columns[column].dtype}) AS {quote_ident(name)}"
            for name, column in self._lookup.operator.columns
        )
        values = self._values()
        if not values:
            return pa.table({name: pa.nulls(1) for name in names})
        return self._graph.fetch(f"SELECT {', '.join(values)} FROM (SELECT {nulls})", self._name)

    # ------------------------------------------------------------------ reading

    def _streamed(self, within: TickRange, keys: pa.Table) -> pa.Table:
        """What a row may find among the versions of these keys, in a part of the view's time."""
        limit = _SIFTED
        with self._registered("keys", keys) as registered:
            sql = self._versions_sql(within, registered)
            reader = self._graph.stream(sql, self._name, _BATCH_ROWS)
            held = reader.schema.empty_table()
            for batch in reader:
                part = self._sifted(pa.Table.from_batches([batch]))
                held = pa.concat_tables([held, part])
                if held.num_rows > limit:
                    held = self._sifted(held)
                    limit = max(_SIFTED, 2 * held.num_rows)
                    self._check(held)
        held = self._sifted(held)
        self._check(held)
        return held

    @contextlib.contextmanager
    def _registered(self, what: str, table: pa.Table) -> Iterator[str]:
        name = f"__{what}_of_{self._name}"
        self._graph.connection.register(name, table)
        try:
            yield name
        finally:
            self._graph.connection.unregister(name)

    def _sifted(self, table: pa.Table) -> pa.Table:
        """The versions that a row may find, as far as is known by now."""
        wanted = np.empty(table.num_rows, np.bool_)
        compiled(may_be_found)(
            _numbers(table, _CODE),
            _numbers(table, TICK),
            _numbers(table, _AVAILABLE),
            self._low,
            self._newest,
            wanted,
        )
        return table if wanted.all() else table.filter(pa.array(wanted))

    def _check(self, held: pa.Table) -> None:
        if held.nbytes > self._memory:
            raise TooManyVersionsError

    def _with_ranks(self, table: pa.Table, tied_at: NDArray[np.int64]) -> pa.Table:
        """The versions, those of one key and time numbered by the view's total order."""
        pairs = pa.table(
            {"c": _numbers(table, _CODE)[tied_at], "t": _numbers(table, TICK)[tied_at]}
        ).group_by(["c", "t"])
        whole = self._relations.context.time_range(self._lookup.scan) or TickRange()
        with (
            self._registered("keys", self._keys) as keys,
            self._registered("tied", pairs.aggregate([])) as ties,
        ):
            ranked = self._graph.fetch(self._versions_sql(whole, keys, ties), self._name)
        alone = np.ones(table.num_rows, np.bool_)
        alone[tied_at] = False
        others = table.filter(pa.array(alone))
        zeros = pa.array(np.zeros(others.num_rows, np.int64))
        others = others.append_column(_RANK, zeros).select(ranked.column_names)
        return pa.concat_tables([others, ranked]).combine_chunks()


def _numbers(table: pa.Table, name: str) -> NDArray[np.int64]:
    column = table[name]
    values: NDArray[np.int64] = column.to_numpy() if column.num_chunks != 1 else column.chunk(0).to_numpy()
    return values
