"""The rows of a day's copies as plain Python values: only those that the rows in question could ask for."""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from daedalus.catalog.dtypes import to_arrow, to_duckdb
from daedalus.sql.fragments import parse_fragment
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.trust.copies import ROW_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import duckdb

    from daedalus.catalog.model import FeatureViewDef
    from daedalus.pipelines.compiling.columns import ContractColumns
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.trust.copies import DayCopies, ViewCopy

Row = dict[str, Any]
#: A row's time in nanoseconds since 1970, beside its columns; not a name that a column can have in DuckDB.
TIME = "\x00t"
NUMBER = "\x00n"
#: The position of a row in a table that DuckDB evaluates an expression over.
_NUMBER_COLUMN = "__number"
_UNIT_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_TYPE_NS = {"TIMESTAMP_S": 10**9, "TIMESTAMP_MS": 10**6, "TIMESTAMP_NS": 1, "DATE": 86_400 * 10**9}


def own_tick_ns(view: FeatureViewDef) -> int:
    """Nanoseconds per tick of a view's own time column."""
    dtype = view.field(view.timestamp_field).dtype
    if dtype.startswith("TIMESTAMP"):
        return _TYPE_NS.get(dtype, 1_000)
    return 1_000 if dtype == "DATE" else _UNIT_NS[view.source.timestamp_unit]


def span_ns(seconds: Fraction, view: FeatureViewDef) -> int:
    """A span in nanoseconds, rounded to the view's ticks."""
    return _rounded_ns(seconds, own_tick_ns(view))


@lru_cache(maxsize=1024)
def _rounded_ns(seconds: Fraction, tick: int) -> int:
    return math.floor(seconds * 10**9 / tick + Fraction(1, 2)) * tick


def instant_ns(value: Any, dtype: str, unit: str) -> int | None:
    """A time column's value in nanoseconds since 1970."""
    if value is None:
        return None
    if isinstance(value, int):
        return value * (_TYPE_NS.get(dtype, 1) if dtype.startswith("TIMESTAMP") else _UNIT_NS[unit])
    if isinstance(value, dt.datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
        return (aware - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1) * 1_000
    return int((value - dt.date(1970, 1, 1)).days) * 86_400 * 10**9


def rows_of(table: pa.Table) -> list[Row]:
    """An Arrow table as mappings; nanoseconds stay whole numbers, for Python's own times are coarser."""
    columns = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            column = column.cast(pa.int64())
        columns[name] = column.to_pylist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


class DayFacts:
    """Reads the copies for some spine rows.

    Args:
        connection: any DuckDB connection.
        copies: the day's.
        columns: the service's definitions.
        config: where the embeddings' ids are.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        copies: DayCopies,
        columns: ContractColumns,
        config: TrainingRunConfig,
    ) -> None:
        self._connection = connection
        self._copies = copies
        self._config = config
        self.columns = columns
        self.spine_view = columns.spine

    def copy(self, view: str) -> ViewCopy:
        """The copy of a view."""
        return self._copies.views[view]

    def spine_rows(self, where: str, limit: int | None = None) -> list[Row]:
        """Spine rows in order; `where` is SQL that was made here, over the view's columns and `ROW_ID`."""
        copy = self.copy(self._copies.spine)
        bound = "" if limit is None else f" LIMIT {limit}"
        return self._read(copy, f"WHERE {where} ORDER BY {ROW_ID}{bound}")

    def matching(self, view: str, keys: Sequence[str], wanted: Iterable[tuple[Any, ...]]) -> list[Row]:
        """A view's rows whose `keys` have one of the wanted values, in the view's total order."""
        copy = self.copy(view)
        values = sorted({one for one in wanted if None not in one}, key=repr)
        if not keys:
            return self._read(copy, f"ORDER BY {ROW_ID}")
        absent = [name for name in keys if name not in copy.columns]
        if not values or absent:
            return []
        fields = {name: to_arrow(copy.view.field(name).dtype) for name in keys}
        self._connection.register("__wanted", _table(fields, values))
        joined = " AND ".join(f"w.{quote_ident(name)} = v.{quote_ident(name)}" for name in keys)
        try:
            return self._read(copy, f"SEMI JOIN __wanted w ON {joined} ORDER BY {ROW_ID}")
        finally:
            self._connection.unregister("__wanted")

    def _read(self, copy: ViewCopy, rest: str) -> list[Row]:
        names = ", ".join(f"v.{quote_ident(name)}" for name in copy.columns)
        sql = f"SELECT {names}, v.{ROW_ID} FROM read_parquet({quote_literal(str(copy.file))}) v {rest}"
        rows = rows_of(self._connection.sql(sql).to_arrow_table())
        view, absent = copy.view, [field.name for field in copy.view.fields if field.name not in copy.columns]
        time = view.timestamp_field
        dtype = view.field(time).dtype if time else ""
        for row in rows:
            row[NUMBER] = row.pop(ROW_ID)
            row.update(dict.fromkeys(absent))
            row[TIME] = instant_ns(row[time], dtype, view.source.timestamp_unit) if time else None
        return rows

    # ------------------------------------------------------------------ expressions and coverage

    def holds(self, condition: str, rows: list[Row], types: Mapping[str, str], where: str) -> list[bool]:
        """Whether a spec's condition is TRUE for each row of a history."""
        fragment = parse_fragment(condition, columns=types, where=where, qualifier="hist")
        if not rows:
            return []
        sql = f"SELECT coalesce({fragment.render('hist')}, false) FROM __rows hist ORDER BY {_NUMBER_COLUMN}"
        found = self._evaluate(rows, {name: types[name] for name in fragment.columns}, sql)
        return [bool(row[0]) for row in found]

    def computed(self, sql: str, rows: list[Row], types: Mapping[str, str], where: str) -> list[Any]:
        """An expression over assembled columns, for each row."""
        fragment = parse_fragment(sql, columns=types, where=where)
        if not rows:
            return []
        names = {name: types[name] for name in fragment.columns}
        table = self._evaluate(
            rows, names, f"SELECT {fragment.render()} FROM __rows ORDER BY {_NUMBER_COLUMN}"
        )
        return [row[0] for row in table]

    def _evaluate(self, rows: list[Row], types: Mapping[str, str], sql: str) -> list[tuple[Any, ...]]:
        fields = {name: to_arrow(to_duckdb(dtype)) for name, dtype in types.items()}
        values = [(*(row[name] for name in types), index) for index, row in enumerate(rows)]
        self._connection.register("__rows", _table({**fields, _NUMBER_COLUMN: pa.int64()}, values))
        try:
            return self._connection.sql(sql).fetchall()
        finally:
            self._connection.unregister("__rows")

    @cached_property
    def _ids(self) -> Any:
        """The ids of the coverage filter as a FROM item."""
        coverage = self.columns.coverage
        kind, _, name = ("", "", "") if coverage is None else coverage.source_ref.partition(":")
        if kind == "ids":
            from daedalus.storage.sources.parquet import ParquetSource

            source = ParquetSource(
                self._config.project_path(name), where="embedding_coverage_filter.id_relation"
            )
            source.setup(self._connection)
            return source.relation_sql()
        from daedalus.pipelines.days.embedding_ids import store_definition
        from daedalus.storage.embedding_store import open_store

        self._connection.register("__ids", open_store(store_definition(self._config, name)).ids().read_all())
        return "__ids"

    def covered(self, rows: list[Row]) -> list[Row]:
        """The rows that the embedding coverage filter keeps."""
        coverage = self.columns.coverage
        if coverage is None or not rows:
            return rows
        watched = set(coverage.events)
        asked = [row for row in rows if row[coverage.event_column] in watched]
        wanted = sorted({row[coverage.id_column] for row in asked} - {None})
        if not asked:
            return rows
        kind = to_arrow(self.spine_view.field(coverage.id_column).dtype)
        self._connection.register("__asked", _table({"id": kind}, [(one,) for one in wanted]))
        name = quote_ident(coverage.store_column)
        sql = f"SELECT id FROM __asked SEMI JOIN {self._ids} AS ids ON ids.{name} = __asked.id"
        known = {one for (one,) in self._connection.sql(sql).fetchall()}
        self._connection.unregister("__asked")
        return [
            row
            for row in rows
            if row[coverage.event_column] not in watched or row[coverage.id_column] in known
        ]


def _table(fields: Mapping[str, pa.DataType], values: Sequence[tuple[Any, ...]]) -> pa.Table:
    columns = list(zip(*values, strict=True)) if values else [()] * len(fields)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, fields.values(), strict=True)]
    return pa.table(arrays, names=list(fields))


def by_key(rows: Iterable[Row], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    """The rows by the values of their keys, in order; a NULL key is nobody's."""
    found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        key = tuple(row[name] for name in keys)
        if None not in key:
            found[key].append(row)
    return found
