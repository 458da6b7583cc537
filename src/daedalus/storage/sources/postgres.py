"""Postgres in place: a table or a query, read through a read-only attach, at one snapshot for the whole run.

A keeper in the run's first process holds the transaction that exported the snapshot; every DuckDB session of the
run begins its own transaction at that snapshot, so that all views and all day workers see the same rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.storage.duckdb_extensions import bare_connection, load_extensions
from daedalus.storage.sources.faults import plain_faults
from daedalus.storage.sources.postgres_place import PostgresPlace, place_of
from daedalus.storage.sources.postgres_types import PostgresColumn, postgres_columns
from daedalus.storage.sources.relations import chosen, range_conditions, relation_label, split_table_name
from daedalus.storage.view_source import ERROR_MARK, UNIT_US, source_name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from daedalus.catalog.model import FeatureViewDef
    from daedalus.storage.sources.base import TickRange

_LOCK_SECONDS = 30
_ALIAS = "__postgres_"
#: The first time that Postgres has, and the last year that DuckDB has all of.
_FIRST_TIME, _LAST_TIME = "'4714-11-24 (BC) 00:00:00'", "'294246-12-31 23:59:59'"
#: A run may compute for long between two reads, and its transactions live as long as it does. Not every server has
#: every one of these. Only for the transaction: a pooler may hand the connection on.
_NO_TIMEOUTS_SQL = (
    "SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN "
    "('idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout')"
)
_STATE_SQL = """
SELECT pg_export_snapshot() AS snapshot,
       pg_current_snapshot()::text AS visible,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text AS lsn,
       (now() AT TIME ZONE 'UTC')::text AS read_at,
       pg_postmaster_start_time()::text || '/' ||
           (SELECT oid FROM pg_database WHERE datname = current_database())::text AS server
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresState:
    """One state of a database, which every transaction of the run sees.

    Attributes:
        snapshot: the exported snapshot's id; valid while the keeper lives.
        visible: which transactions' rows are seen (`pg_current_snapshot`): equal text, equal rows.
        lsn: the write-ahead log's position.
        server: which server, since when, and which database of it.
    """

    snapshot: str
    visible: str
    lsn: str
    read_at: str
    server: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSnapshot:
    """What a run reads of one table or query.

    Attributes:
        relation: `schema.table`, or the query's hash.
        all_columns: what the relation has, in order.
        direct: whether it is a table that DuckDB may read through its catalog.
    """

    place: str
    relation: str
    state: PostgresState
    all_columns: tuple[PostgresColumn, ...]
    direct: bool

    @property
    def columns(self) -> frozenset[str]:
        """The names of the columns, in lower case."""
        return frozenset(column.name.lower() for column in self.all_columns)

    def identity(self, time_range: TickRange | None = None) -> list[Any]:
        """The place: a day that was read is read again only when it is asked for."""
        del time_range
        return [["postgres", self.place, self.relation]]

    def exact(self, time_range: TickRange | None = None) -> list[Any]:
        """The transactions that are seen: any commit to the database changes it."""
        return [*self.identity(time_range), [self.state.server, self.state.visible]]

    def record(self) -> dict[str, Any]:
        """The place, the exported snapshot, what it sees, and the log's position."""
        return {
            "backend": "postgres",
            "place": self.place,
            "relation": self.relation,
            "snapshot": self.state.snapshot,
            "visible": self.state.visible,
            "lsn": self.state.lsn,
            "read_at": self.state.read_at,
        }


class PostgresKeeper:
    """Holds the transaction that exported the snapshot, until it is closed."""

    def __init__(self, place: PostgresPlace) -> None:
        self._connection = bare_connection()
        self._alias = "__keeper"
        self._finalizer = weakref.finalize(self, _let_go, self._connection)
        try:
            attach(self._connection, place, self._alias)
            self._connection.execute("BEGIN")
            self._run(_NO_TIMEOUTS_SQL)
            self._run(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
            (row,) = self.rows(_STATE_SQL)
        except BaseException:
            self.close()
            raise
        names = ("snapshot", "visible", "lsn", "read_at", "server")
        self.state = PostgresState(**dict(zip(names, map(str, row), strict=True)))

    def _run(self, sql: str) -> None:
        self._connection.execute(f"CALL postgres_execute({quote_literal(self._alias)}, {quote_literal(sql)})")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a Postgres query in the keeper's transaction."""
        return self._connection.execute(f"FROM {self._query(sql)}").fetchall()

    def types(self, sql: str) -> dict[str, str]:
        """The columns of a Postgres query as DuckDB sees them.

        Preparing it takes the lock that a read takes, and keeps it: a table that the run has yet to read can
        neither be truncated nor altered, which no snapshot would survive.
        """
        described = self._connection.execute(f"DESCRIBE FROM {self._query(sql)}").fetchall()
        return {row[0]: row[1] for row in described}

    def _query(self, sql: str) -> str:
        return f"postgres_query({quote_literal(self._alias)}, {quote_literal(sql)})"

    def close(self) -> None:
        """End the transaction; a server that is gone is no error."""
        self._finalizer()


def _let_go(connection: duckdb.DuckDBPyConnection) -> None:
    import duckdb

    # Closing a connection whose transaction cannot be ended any more would end the process.
    with contextlib.suppress(duckdb.Error):
        connection.rollback()
    connection.close()


def attach(connection: duckdb.DuckDBPyConnection, place: PostgresPlace, alias: str, schema: str = "") -> None:
    """Attach the database, read-only; a schema keeps DuckDB from listing all others."""
    load_extensions(connection, "postgres")
    secret = f"{alias}_{place.key}"
    conninfo = place.create_secret(connection, secret)
    only = f", SCHEMA {quote_literal(schema)}" if schema else ""
    connection.execute(
        f"ATTACH {quote_literal(conninfo)} AS {quote_ident(alias)} "
        f"(TYPE postgres, READ_ONLY, SECRET {quote_ident(secret)}{only})"
    )


class PostgresSource:
    """Rows of a Postgres table or query.

    Args:
        view: its source says which database, table or query.
        where: how messages name the source.
        shared: what the sources of one run share; the keepers are among it.
    """

    def __init__(self, view: FeatureViewDef, *, where: str, shared: dict[str, Any] | None = None) -> None:
        source = view.source
        settings = dict(source.credentials)
        default_schema = settings.get("schema", "public")
        self._where = where
        self._place = place_of(source.database_path, settings, where)
        self._table = (
            split_table_name(source.table_name, default_schema=default_schema, where=f"{where}.table_name")
            if source.table_name
            else None
        )
        self._query = source.query.strip().rstrip(";")
        self._time_column = source_name_of(view, view.timestamp_field) if view.timestamp_field else ""
        self._unit_us = UNIT_US[source.timestamp_unit]
        self._declared = {source_name_of(view, field.name).lower(): field.dtype for field in view.fields}
        self._snapshot: PostgresSnapshot | None = None
        self._shared: dict[str, Any] | None = {} if shared is None else shared

    def __getstate__(self) -> dict[str, Any]:
        # The keeper stays where it is; a worker reads at the snapshot that it holds.
        self.snapshot()
        return self.__dict__ | {"_shared": None}

    def __repr__(self) -> str:
        return f"PostgresSource({self._where})"

    @property
    def _alias(self) -> str:
        schema = self._table[0] if self._table else ""
        named = hashlib.sha256(f"{self._place.key}/{schema}".encode()).hexdigest()[:8]
        return f"{_ALIAS}{named}"

    @property
    def _relation(self) -> str:
        """The table or query as a Postgres FROM item."""
        if self._table is not None:
            return f"{quote_ident(self._table[0])}.{quote_ident(self._table[1])}"
        return f"(\n{self._query}\n) AS q"

    # ------------------------------------------------------------------ snapshot

    def snapshot(self) -> PostgresSnapshot:
        """The database as it is now; one state for all of the run's views of it."""
        if self._snapshot is None:
            with plain_faults(self._where):
                self._snapshot = self._take_snapshot()
        return self._snapshot

    def _take_snapshot(self) -> PostgresSnapshot:
        keeper = self._keeper()
        types = keeper.types(f"SELECT * FROM {self._relation}")
        columns = postgres_columns(
            types, self._declared, self._relation, is_table=self._table is not None, rows=keeper.rows
        )
        return PostgresSnapshot(
            place=self._place.label,
            relation=relation_label(self._table, self._query),
            state=keeper.state,
            all_columns=columns,
            direct=self._table is not None
            and all(column.direct for column in columns if column.name.lower() in self._declared),
        )

    def _keeper(self) -> PostgresKeeper:
        key = f"postgres:{self._place.key}"
        if self._shared is None:  # a worker's copy has its snapshot already
            raise AssertionError("a worker takes no snapshot")
        if key not in self._shared:
            self._shared[key] = PostgresKeeper(self._place)
        keeper: PostgresKeeper = self._shared[key]
        return keeper

    # ------------------------------------------------------------------ reading

    def setup(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Attach the database and begin a transaction at the run's snapshot."""
        with plain_faults(self._where):
            self._set_up(connection)

    def _set_up(self, connection: duckdb.DuckDBPyConnection) -> None:
        snapshot = self.snapshot().state.snapshot
        attached = connection.execute(
            "SELECT 1 FROM duckdb_databases() WHERE database_name = ?", [self._alias]
        ).fetchall()
        if attached:
            return
        # On a cursor: another source may have begun the connection's transaction, and nothing is attached within one.
        with connection.cursor() as cursor:
            attach(cursor, self._place, self._alias, self._table[0] if self._table else "")
        others = connection.execute(
            "SELECT 1 FROM duckdb_databases() WHERE starts_with(database_name, ?) AND database_name <> ?",
            [_ALIAS, self._alias],
        ).fetchall()
        if not others:  # they are read in the one transaction; a second BEGIN would abort it
            connection.execute("BEGIN")
        for sql in (f"SET TRANSACTION SNAPSHOT {quote_literal(snapshot)}", _NO_TIMEOUTS_SQL):
            connection.execute(f"CALL postgres_execute({quote_literal(self._alias)}, {quote_literal(sql)})")

    def schema(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """The columns and their DuckDB types, as of the snapshot."""
        del connection
        return {column.name: column.dtype for column in self.snapshot().all_columns}

    def relation_sql(self, time_range: TickRange | None = None, columns: Sequence[str] | None = None) -> str:
        """A SELECT of the columns and the range, which the server runs.

        A table whose columns allow it is read through the attached catalog, so that DuckDB hands on its other
        filters, too, and reads its pages side by side; any other, and a query, by a statement.
        """
        everything = {column.name: column for column in self.snapshot().all_columns}
        types = {name: column.dtype for name, column in everything.items()}
        wanted = [everything[name] for name in chosen(types, columns)]
        if self.snapshot().direct:
            items = ", ".join(map(_local_item, wanted)) or "1 AS __one"
            place = f"{quote_ident(self._alias)}.{self._relation}"
            return f"(SELECT {items} FROM {place}{self._where_sql(types, time_range, postgres=False)})"
        flags = [f"({column.is_nan}) AS {_flag(at)}" for at, column in enumerate(wanted) if column.is_nan]
        items = ", ".join([*map(_remote_item, wanted), *flags]) or "1 AS __one"
        remote = f"SELECT {items} FROM {self._relation}{self._where_sql(types, time_range, postgres=True)}"
        statement = f"postgres_query({quote_literal(self._alias)}, {quote_literal(remote)})"
        if not any(column.is_nan or column.is_json for column in wanted):
            return statement
        return f"(SELECT {', '.join(map(self._checked_item, range(len(wanted)), wanted))} FROM {statement})"

    def _checked_item(self, at: int, column: PostgresColumn) -> str:
        name = quote_ident(column.name)
        if not column.is_nan:
            return _local_item(column)
        text = (
            f"{ERROR_MARK}{self._where}: column {column.name} holds NaN, which a {column.dtype} does not have. "
            "Declare the field DOUBLE, or leave NaN out in source.query"
        )
        return f"CASE WHEN {_flag(at)} THEN error({quote_literal(text)}) ELSE {name} END AS {name}"

    def sound_sql(self, value: str, dtype: str) -> str:
        """What is true of every time that DuckDB has: beyond its range, a value of Postgres' comes as another one."""
        if dtype in ("TIMESTAMP", "TIMESTAMPTZ"):
            return f"{value} BETWEEN CAST({_FIRST_TIME} AS {dtype}) AND CAST({_LAST_TIME} AS {dtype})"
        return f"isfinite({value})" if dtype == "DATE" else ""

    def _where_sql(self, types: dict[str, str], time_range: TickRange | None, *, postgres: bool) -> str:
        found = [name for name in types if name.lower() == self._time_column.lower()]
        if not found:
            return ""
        bounds = range_conditions(time_range, found[0], types[found[0]], self._unit_us, postgres=postgres)
        return f" WHERE {' AND '.join(bounds)}" if bounds else ""

    def verify_unchanged(self) -> None:
        """Nothing to compare: all of the run reads at one snapshot."""

    def close(self) -> None:
        """Let the database forget the snapshot."""
        for key in [key for key in self._shared or () if key.startswith("postgres:")]:
            (self._shared or {}).pop(key).close()


def _local_item(column: PostgresColumn) -> str:
    name = quote_ident(column.name)
    return f"CAST({name} AS JSON) AS {name}" if column.is_json else name


def _remote_item(column: PostgresColumn) -> str:
    name = quote_ident(column.name)
    return f"{column.remote} AS {name}" if column.remote else name


def _flag(at: int) -> str:
    return quote_ident(f"__is_nan_{at}")
