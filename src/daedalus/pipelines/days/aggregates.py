"""The columns of one aggregating operator for a whole day, handed out for any of its rows.

Histories are read once per condition, already filtered. When rows and histories fit into the day's share of
memory they are searched as a whole, and lists are gathered as they are asked for. Otherwise both are dealt out
to buckets by a hash of their keys; each bucket is finished by itself and its columns wait on disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from daedalus.compute.aggregate import Aggregation
from daedalus.compute.windows import ends_of_another
from daedalus.pipelines.days.memory import give_back_memory
from daedalus.pipelines.days.one_behind import OneBehind
from daedalus.pipelines.days.rolling_tiers import blamed_on, history_inputs, relation_specs, spine_columns
from daedalus.pipelines.days.spilled_rows import BUCKET, JoinedBuckets, SpillWriter, deal_out, read_rows
from daedalus.pipelines.operators import ROW
from daedalus.sql.fragments import parse_fragment, require_boolean
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.pipelines.days.history_selections import HistorySelections
    from daedalus.pipelines.days.relation_graph import RelationGraph
    from daedalus.pipelines.days.rolling_tiers import TimeUnit
    from daedalus.pipelines.days.spilled_rows import SpillFolder
    from daedalus.pipelines.operators import PointInTimeJoin, RollingAggregate

_BATCH_ROWS = 262_144
#: Rows of a bucket whose lists are made at a time.
_GATHERED_ROWS = 32_768
#: Rows of finished buckets that are held at a time, over all buckets.
_JOINED_ROWS = 32_768
_MOST_BUCKETS = 256
#: Bytes that a search takes per history row, per row, and per row and spec, beside the columns themselves.
_PER_HISTORY_ROW, _PER_ROW, _PER_VALUE = 40, 60, 8
_FIXED_WIDTH, _OTHER_WIDTH = 8, 64
#: So many times the memory, at most, all rows of the histories may take where conditions pick few enough of them.
_MOST_PICKED = 8


@dataclass(slots=True, kw_only=True)
class Resources:
    """What the aggregation of a day may use.

    Attributes:
        memory: bytes, for aggregation.
        taken: of these, what is held until the day's end.
        streaming: bytes, for finished rows on their way to the files.
        spill: where buckets wait.
        duckdb_config: of the engines that are DuckDB, and how many threads there are.
        buckets: 0 decides by what fits into memory.
    """

    memory: int
    streaming: int
    spill: SpillFolder
    duckdb_config: Mapping[str, str]
    buckets: int = 0
    taken: int = 0

    @property
    def left(self) -> int:
        """Bytes that one more aggregation may take."""
        return max(self.memory - self.taken, self.memory // 4, 1)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows to read: a SELECT, the columns that are its keys, and whether they come in order without sorting.

    Attributes:
        items: what it selects of `hist`.
        where: its WHERE clause over `hist`, or empty.
    """

    sql: str
    keys: tuple[str, ...]
    relation: str
    sorted: bool = True
    items: str = ""
    where: str = ""


@dataclass(slots=True)
class _Keyed:
    """The specs of one operator that share their keys, each history filtered by its condition.

    Attributes:
        places: where the specs stand in the operator.
        wanted: per history the columns to read.
    """

    keys: tuple[str, ...]
    specs: list[AggregationSpec] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    source: dict[str, AggregationSpec] = field(default_factory=dict)
    wanted: dict[str, set[str]] = field(default_factory=dict)


def _by_keys(specs: Sequence[AggregationSpec]) -> list[_Keyed]:
    """The specs by their keys; each reads a history of its own condition, which it no longer has itself."""
    found: dict[tuple[str, ...], _Keyed] = {}
    names: dict[tuple[object, ...], str] = {}
    for place, spec in enumerate(specs):
        keyed = found.setdefault(spec.group_by, _Keyed(spec.group_by))
        same = (spec.history_view, spec.condition, spec.history_keys, spec.history_time, spec.group_by)
        name = names.setdefault(same, f"history {len(names)}")
        keyed.source.setdefault(name, spec)
        keyed.wanted.setdefault(name, set()).update(
            {spec.history_time, *spec.history_keys}, {spec.value_column} if spec.value_column else ()
        )
        keyed.places.append(place)
        keyed.specs.append(
            dataclasses.replace(
                spec,
                condition=None,
                history_view=name,
                history_group_by=spec.history_keys,
                history_timestamp_column=spec.history_time,
            )
        )
    return list(found.values())


class DayAggregate:
    """One operator's columns, for any of the day's rows by their positions. Use as a context manager.

    Args:
        operator: on the Arrow tier.
        rows: the relation, kept as a table, that has the rows' keys, times and values.
        graph: reads the rows and histories, now.
        in_files: relations that are read from files in order, and these files.
        unit: of the windows.
        resources: memory, disk and threads.
    """

    def __init__(
        self,
        operator: RollingAggregate | PointInTimeJoin,
        *,
        rows: str,
        graph: RelationGraph,
        in_files: Mapping[str, HistorySelections],
        unit: TimeUnit,
        resources: Resources,
    ) -> None:
        self._operator = operator
        self._rows = rows
        self._graph = graph
        self._in_files = in_files
        self._resources = resources
        self._open = contextlib.ExitStack()
        self._size = len(operator.specs)
        self._parts: list[tuple[list[int], _Whole | JoinedBuckets]] = []
        try:
            with blamed_on(operator):
                for keyed in _by_keys(relation_specs(operator.specs, unit)):
                    part = self._prepared(keyed)
                    self._open.callback(part.close)
                    self._parts.append((keyed.places, part))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> DayAggregate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything."""
        self._open.close()
        self._parts = []

    def columns(self, rows: NDArray[np.int64]) -> list[pa.Array]:
        """One array per spec of the operator, for these positions, which rise from call to call."""
        columns: list[pa.Array] = [None] * self._size
        with blamed_on(self._operator):
            for places, part in self._parts:
                for place, column in zip(places, part.columns(rows), strict=True):
                    columns[place] = column
        return columns

    # ------------------------------------------------------------------ reading

    def _prepared(self, keyed: _Keyed) -> _Whole | JoinedBuckets:
        rows = self._spine(keyed)
        histories = {name: self._history(keyed, name) for name in keyed.source}
        need = self._need(keyed, rows, histories)
        buckets = self._resources.buckets or min(_MOST_BUCKETS, -(-need // self._resources.left)) or 1
        if buckets == 1:
            self._resources.taken += need
            tables: dict[str | None, pa.Table] = {
                name: self._read(history) for name, history in histories.items()
            }
            return _Whole(self._read(rows), tables, keyed, self._engine, self._resources)
        dealt = {name: self._deal_out(history, rows, buckets) for name, history in histories.items()}
        joined = self._in_buckets(keyed, self._deal_out(rows, rows, buckets), dealt)
        give_back_memory()
        return joined

    @property
    def _engine(self) -> str:
        return self._operator.rolling_engine

    def _spine(self, keyed: _Keyed) -> _Rows:
        columns = [*spine_columns(keyed.specs, self._graph.types(self._rows)), ROW]
        names = ", ".join(quote_ident(name) for name in columns)
        sql = f"SELECT {names} FROM {quote_ident(self._rows)}"
        return _Rows(sql, keyed.keys, self._rows, sorted=self._graph.held(self._rows) is not None)

    def _history(self, keyed: _Keyed, name: str) -> _Rows:
        spec, wanted = keyed.source[name], {column.lower() for column in keyed.wanted[name]}
        relation = history_inputs(self._operator)[spec.history_view]
        types = self._graph.types(relation)
        in_files = relation in self._in_files
        # SQL names are the same in any case.
        columns = [column for column in types if column.lower() in wanted or (column == ROW and not in_files)]
        names = ", ".join(f"hist.{quote_ident(column)}" for column in columns)
        where = ""
        if spec.condition is not None:
            place = f"{spec.where}: condition"
            fragment = parse_fragment(spec.condition, columns=types, where=place, qualifier="hist")
            require_boolean(fragment, types, place)
            # Never a filter on a column: files may be pruned by it, where NaN is larger than nothing.
            where = f" WHERE CASE WHEN {fragment.render('hist')} THEN true ELSE false END"
        sql = f"SELECT {names} FROM ({self._graph.sql(relation)}) AS hist{where}"
        return _Rows(sql, spec.history_keys, relation, in_files, names, where)

    def _ordered(self, rows: _Rows, columns: str = "*") -> str:
        order = "" if rows.sorted else f" ORDER BY {ROW}"
        return f"SELECT {columns} FROM ({rows.sql}){order}"

    def _read(self, rows: _Rows) -> pa.Table:
        picked = self._picked(rows)
        if picked is not None:
            return picked
        with self._graph.in_order(rows.sorted):
            return self._graph.fetch(self._ordered(rows), rows.relation)

    def _picked(self, rows: _Rows) -> pa.Table | None:
        """The rows where they lie picked beside the files."""
        if rows.relation not in self._in_files:
            return None
        return self._in_files[rows.relation].read(rows.items, rows.where, rows.relation)

    def _deal_out(self, rows: _Rows, spine: _Rows, buckets: int) -> list[Path]:
        """The rows in one file per bucket; equal keys are in equal buckets."""
        types, other = self._types(spine), self._types(rows)
        pairs = list(zip(rows.keys, spine.keys, strict=True))
        same = all(other[key.lower()] == types[name.lower()] for key, name in pairs)
        hashed = ", ".join(
            quote_ident(key) if same else f"CAST({quote_ident(key)} AS VARCHAR)" for key, _ in pairs
        )
        sql = self._ordered(rows, f"*, CAST(hash({hashed}) % {buckets} AS USMALLINT) AS {BUCKET}")
        with self._graph.in_order(rows.sorted):
            reader = self._graph.stream(sql, rows.relation, _BATCH_ROWS)
            return deal_out(self._resources.spill, reader, buckets)

    def _types(self, rows: _Rows) -> dict[str, str]:
        return {name.lower(): dtype for name, dtype in self._graph.types(rows.relation).items()}

    def _need(self, keyed: _Keyed, rows: _Rows, histories: Mapping[str, _Rows]) -> int:
        """Bytes that it takes in one piece, about."""
        own = self._count(rows) * (self._width(rows) + _PER_ROW + _PER_VALUE * len(keyed.specs))
        most = sum(self._count_all(one) * self._weight(one) for one in histories.values())
        if own + most <= self._resources.left:
            return own + most
        # Of much larger days even what conditions pick does not fit: it is not picked for its number alone.
        picked = own + most <= _MOST_PICKED * self._resources.left
        return own + sum(self._count(one, picked) * self._weight(one) for one in histories.values())

    def _weight(self, history: _Rows) -> int:
        return self._width(history) + _PER_HISTORY_ROW

    def _count(self, rows: _Rows, picked: bool = False) -> int:
        found = self._picked(rows) if picked else None
        if found is not None:
            return int(found.num_rows)
        return int(self._graph.rows(f"SELECT count(*) FROM ({rows.sql})", rows.relation)[0][0])

    def _count_all(self, rows: _Rows) -> int:
        sql = f"SELECT count(*) FROM ({self._graph.sql(rows.relation)})"
        return int(self._graph.rows(sql, rows.relation)[0][0])

    def _width(self, rows: _Rows) -> int:
        described = self._graph.rows(f"DESCRIBE {rows.sql}", rows.relation)
        return sum(
            _OTHER_WIDTH if row[1] in ("VARCHAR", "BLOB") or row[1].endswith(("]", ")")) else _FIXED_WIDTH
            for row in described
        )

    # ------------------------------------------------------------------ buckets

    def _in_buckets(
        self, keyed: _Keyed, rows: list[Path], histories: Mapping[str, list[Path]]
    ) -> JoinedBuckets:
        """Finish every bucket, one after the other."""
        batch = max(256, _JOINED_ROWS // len(rows))
        finished: list[Path] = []
        schema = pa.schema([])
        for number, path in enumerate(rows):
            tables: dict[str | None, pa.Table] = {
                name: read_rows(paths[number]) for name, paths in histories.items()
            }
            whole = _Whole(read_rows(path), tables, keyed, self._engine, self._resources)
            with contextlib.closing(whole), OneBehind() as behind:
                writer: SpillWriter | None = None
                for start in range(0, max(len(whole.rows), 1), _GATHERED_ROWS):
                    part = whole.rows[start : start + _GATHERED_ROWS]
                    columns = [pa.array(part), *whole.spilled(part)]
                    names = [ROW, *(spec.name for spec in keyed.specs)]
                    table = pa.Table.from_arrays(columns, names)
                    if writer is None:
                        schema = table.schema
                        writer = self._resources.spill.writer(schema)
                    if len(part):
                        behind.do(partial(writer.write, table, batch))
                behind.wait()
                if writer is not None:
                    writer.close()
                    finished.append(writer.path)
            del tables, whole
        return JoinedBuckets(finished, schema, ends_of_another(keyed.specs))


class _Whole:
    """Rows and histories in memory, searched once."""

    def __init__(
        self,
        rows: pa.Table,
        histories: Mapping[str | None, pa.Table],
        keyed: _Keyed,
        engine: str,
        resources: Resources,
    ) -> None:
        self.rows: NDArray[np.int64] = rows[ROW].to_numpy()
        self._aggregation = Aggregation(
            rows.drop_columns([ROW]),
            keyed.specs,
            histories=histories,
            engine=engine,
            duckdb_config=resources.duckdb_config,
        )

    def close(self) -> None:
        """Close the aggregation's DuckDB session."""
        self._aggregation.close()

    def columns(self, rows: NDArray[np.int64]) -> list[pa.Array]:
        """One array per spec, for these positions."""
        return self._aggregation.columns(_places(self.rows, rows))

    def spilled(self, rows: NDArray[np.int64]) -> list[pa.Array]:
        """As `columns`, with lengths for lists that are the ends of others."""
        return self._aggregation.spilled(_places(self.rows, rows))


def _places(among: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where rising values stand among rising ones; they are near one another."""
    if not len(rows):
        return np.zeros(0, np.int64)
    first, last = (int(place) for place in np.searchsorted(among, rows[[0, -1]]))
    if last - first + 1 == len(rows):
        return np.arange(first, last + 1)
    near: NDArray[np.int64] = np.searchsorted(among[first : last + 1], rows)
    return first + near
