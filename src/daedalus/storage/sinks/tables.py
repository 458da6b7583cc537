"""Rows in the tables of a database: a partition is replaced whole, in one transaction, from staged Parquet.

One writer, the run's own process, copies days that are complete under their final names. Each target has two
tables in a schema named after the service: the rows, and a ledger with one line per partition.

    "dssm_ranking"."training"       dt, __row, the contract's columns
    "dssm_ranking"."training_days"  dt, row_count, content_hash, columns, staged, run_id, written_at

`__row` is the row's place in its day: `ORDER BY __row` gives the order of the Parquet files.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

from daedalus.catalog.dtypes import canonical_dtype, from_arrow, to_duckdb
from daedalus.errors import DaedalusError, DefinitionError, ExecutionError
from daedalus.secrets import ENV_REFERENCE, MASK, expand_env, mask
from daedalus.sql.identifiers import qualified, quote_ident, quote_literal
from daedalus.storage.sinks.evolution import plan_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Self

    import duckdb

T = TypeVar("T")

ROW = "__row"
#: How long a locked file or catalog is waited for.
WAIT_SECONDS = 10.0
_PAUSE_SECONDS = 0.1
_BUSY = (
    "database is locked",
    "could not set lock",
    "unique file handle",
    "already attached",
    "transaction conflict",
    "could not serialize",
    "lock timeout",
    "failed to commit ducklake transaction",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One replaceable part of a table.

    Attributes:
        column: the column that tells the parts apart (`dt`, `as_of`).
        dtype: its DuckDB type.
        value: as DuckDB reads it from text.
    """

    column: str
    dtype: str
    value: str

    @property
    def sql(self) -> str:
        """The value as SQL."""
        return f"CAST({quote_literal(self.value)} AS {self.dtype})"


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedRows:
    """Complete Parquet files, in row order.

    Attributes:
        staged_id: changes when the files are written again.
    """

    files: tuple[Path, ...]
    row_count: int
    content_hash: str
    staged_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a sink did with one partition.

    Attributes:
        table: where the rows are, qualified inside the database.
        written: False when the table had these rows already.
        reason: why it was written, or why not.
        snapshot: the lake's snapshot of the commit; None where there are none.
    """

    table: str
    written: bool
    reason: str
    row_count: int
    snapshot: int | None = None


class TableSink(ABC):
    """Writes partitions of one service into one database.

    Args:
        connection: a DuckDB connection of its own; the database is attached to it while the sink is open.
        place: the database, as written: `${ENV}` is resolved here and never shown.
        schema: of its tables: the service's name.
        table: the rows' table.
        wait_seconds: how long a locked database is waited for; None is `WAIT_SECONDS`.
    """

    format: ClassVar[str]
    alias: ClassVar[str] = "__sink"

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        place: str,
        *,
        schema: str,
        table: str = "training",
        wait_seconds: float | None = None,
    ) -> None:
        self.connection = connection
        self.place = place
        self.schema = schema
        self.table = table
        self.resolved = expand_env(place, where=f"sink {mask(place)}")
        self._wait = WAIT_SECONDS if wait_seconds is None else wait_seconds

    def __enter__(self) -> Self:
        self._patiently(self._open)
        return self

    def __exit__(self, *_: object) -> None:
        import duckdb

        with contextlib.suppress(duckdb.Error):
            self.connection.execute(f"DETACH {quote_ident(self.alias)}")

    @property
    def where(self) -> str:
        """The table, for messages and records; without secrets."""
        return f"{self.format} {mask(self.place)}, table {self.schema}.{self.table}"

    @abstractmethod
    def _open(self) -> None:
        """Attach the database under `alias`; makes it when it does not exist."""

    def _column_type(self, dtype: str) -> str:
        """The type that the database stores a dtype as, canonical."""
        return canonical_dtype(to_duckdb(dtype))

    def _sealed(self, message: str, extra: str) -> None:
        """Say in the open transaction what it is, where the database keeps such a thing."""
        del message, extra  # the ledger has the run's id

    def _snapshot(self) -> int | None:
        """The snapshot that the last transaction made."""
        return None

    # ------------------------------------------------------------------ reading

    def name(self, table: str) -> str:
        """A table of this sink as SQL."""
        return qualified(self.alias, self.schema, table)

    def rows_sql(self, partition: Partition) -> str:
        """A SELECT of the partition's rows, in order, without the columns that place them."""
        left_out = f"{quote_ident(partition.column)}, {quote_ident(ROW)}"
        return (
            f"SELECT * EXCLUDE ({left_out}) FROM {self.name(self.table)} "
            f"WHERE {quote_ident(partition.column)} = {partition.sql} ORDER BY {quote_ident(ROW)}"
        )

    def partitions(self) -> list[str]:
        """The partitions that the table has, as text, ascending."""
        if not self._columns(self._ledger):
            return []
        key = quote_ident(next(iter(self._columns(self._ledger))))
        rows = self.connection.execute(
            f"SELECT CAST({key} AS VARCHAR) FROM {self.name(self._ledger)} ORDER BY {key}"
        ).fetchall()
        return [row[0] for row in rows]

    @property
    def _ledger(self) -> str:
        return f"{self.table}_days" if self.table == "training" else f"{self.table}_parts"

    # ------------------------------------------------------------------ writing

    def publish(
        self,
        partition: Partition,
        rows: StagedRows,
        *,
        run_id: str,
        message: str,
        report: Callable[[str], None] | None = None,
    ) -> Published:
        """Make the partition hold exactly these rows; killed at any moment, it has the old ones or the new.

        Raises:
            ExecutionError: the database is locked for longer than the wait, is full, or cannot take the schema.
        """
        tell = report or _ignore
        return self._patiently(lambda: self._publish(partition, rows, run_id, message, tell))

    def _publish(
        self, partition: Partition, rows: StagedRows, run_id: str, message: str, tell: Callable[[str], None]
    ) -> Published:
        dtypes = _dtypes_of(rows.files[0])
        self._refuse_names(partition, dtypes)
        reason = self._why(partition, rows)
        shown = f"{self.schema}.{self.table}"
        if not reason:
            return Published(
                table=shown, written=False, reason="the table has these rows", row_count=rows.row_count
            )
        with self._transaction():
            self._prepare(partition, dtypes)
            key = f"{quote_ident(partition.column)} = {partition.sql}"
            for table in (self.table, self._ledger):
                self.connection.execute(f"DELETE FROM {self.name(table)} WHERE {key}")
            self.connection.execute(self._insert_sql(partition, rows, dtypes))
            self._check_count(partition, rows)
            self.connection.execute(
                f"INSERT INTO {self.name(self._ledger)} VALUES ({partition.sql}, ?, ?, ?, ?, ?, "
                "CAST(now() AS TIMESTAMPTZ))",
                [rows.row_count, rows.content_hash, json.dumps(dtypes), rows.staged_id, run_id],
            )
            extra = {"run_id": run_id, partition.column: partition.value, "content_hash": rows.content_hash}
            self._sealed(message, json.dumps(extra))
            tell("inserted")
        tell("committed")
        return Published(
            table=shown, written=True, reason=reason, row_count=rows.row_count, snapshot=self._snapshot()
        )

    def _why(self, partition: Partition, rows: StagedRows) -> str:
        """Why the partition must be written; empty when it holds these rows."""
        if not self._columns(self._ledger):
            return "not there yet"
        key = f"{quote_ident(partition.column)} = {partition.sql}"
        found = self.connection.execute(
            f"SELECT staged, row_count FROM {self.name(self._ledger)} WHERE {key}"
        ).fetchall()
        if not found:
            return "not there yet"
        if found != [(rows.staged_id, rows.row_count)]:
            return "its rows were computed again"
        return "" if self._count(partition) == rows.row_count else "the table was changed by another hand"

    def _count(self, partition: Partition) -> int:
        key = f"{quote_ident(partition.column)} = {partition.sql}"
        found = self.connection.execute(
            f"SELECT count(*) FROM {self.name(self.table)} WHERE {key}"
        ).fetchone()
        return int(found[0]) if found else 0

    def _check_count(self, partition: Partition, rows: StagedRows) -> None:
        count = self._count(partition)
        if count != rows.row_count:
            raise ExecutionError(
                f"{count} rows arrived of {rows.row_count}; nothing was committed",
                where=self.where,
                hint="Run again; when it stays so, remove the staged day and let it be computed again",
            )

    def _insert_sql(self, partition: Partition, rows: StagedRows, dtypes: dict[str, str]) -> str:
        """Files are read side by side: each row's place is its file's first plus its place in the file."""
        import pyarrow.parquet as pq

        counts = [pq.read_metadata(path).num_rows for path in rows.files]
        firsts = [sum(counts[:index]) for index in range(len(counts))]
        files = ", ".join(quote_literal(str(path)) for path in rows.files)
        names = ", ".join(quote_ident(name) for name in (partition.column, ROW, *dtypes))
        values = ", ".join(
            f"CAST({quote_ident(name)} AS {to_duckdb(self._column_type(dtype))})"
            for name, dtype in dtypes.items()
        )
        place = f"CAST(list_extract({firsts}, CAST(file_index AS BIGINT) + 1) + file_row_number AS BIGINT)"
        return (
            f"INSERT INTO {self.name(self.table)} ({names}) "
            f"SELECT {partition.sql}, {place}, {values} FROM read_parquet([{files}], hive_partitioning = false)"
        )

    def _prepare(self, partition: Partition, dtypes: dict[str, str]) -> None:
        """The tables, with every column that the rows have."""
        key = f"{quote_ident(partition.column)} {partition.dtype}"
        wanted = {name: self._column_type(dtype) for name, dtype in dtypes.items()}
        self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {qualified(self.alias, self.schema)}")
        self.connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self.name(self._ledger)} ({key}, row_count BIGINT, "
            "content_hash VARCHAR, columns VARCHAR, staged VARCHAR, run_id VARCHAR, written_at TIMESTAMPTZ)"
        )
        existing = self._columns(self.table)
        if not existing:
            columns = ", ".join(f"{quote_ident(name)} {to_duckdb(dtype)}" for name, dtype in wanted.items())
            self._create(partition, f"({key}, {quote_ident(ROW)} BIGINT, {columns})")
            return
        self._check_declared(partition, dtypes)
        placing = {partition.column.lower(), ROW}
        held = {name: dtype for name, dtype in existing.items() if name.lower() not in placing}
        for change in plan_changes(held, wanted, where=self.where):
            column, dtype = quote_ident(change.column), to_duckdb(change.dtype)
            step = f"ADD COLUMN {column} {dtype}" if change.added else f"ALTER COLUMN {column} TYPE {dtype}"
            self.connection.execute(f"ALTER TABLE {self.name(self.table)} {step}")

    def _create(self, partition: Partition, columns: str) -> None:
        del partition
        self.connection.execute(f"CREATE TABLE {self.name(self.table)} {columns}")

    def _check_declared(self, partition: Partition, dtypes: dict[str, str]) -> None:
        """Compare with the dtypes of another partition: a lake's types do not say how long a vector is."""
        found = self.connection.execute(
            f"SELECT columns FROM {self.name(self._ledger)} WHERE {quote_ident(partition.column)} "
            f"<> {partition.sql} ORDER BY written_at DESC, {quote_ident(partition.column)} DESC LIMIT 1"
        ).fetchone()
        if found:
            declared: dict[str, str] = json.loads(found[0])
            both = {name: dtype for name, dtype in declared.items() if name in dtypes}
            plan_changes(both, {name: dtypes[name] for name in both}, where=self.where)

    def _columns(self, table: str) -> dict[str, str]:
        """A table's columns and canonical dtypes, in order; empty when there is no such table."""
        rows = self.connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = ? AND schema_name = ? "
            "AND table_name = ? ORDER BY column_index",
            [self.alias, self.schema, table],
        ).fetchall()
        return {name: canonical_dtype(dtype) for name, dtype in rows}

    def _refuse_names(self, partition: Partition, dtypes: dict[str, str]) -> None:
        taken = {partition.column.lower(): "the partition", ROW: "the row's place"}
        for name in dtypes:
            if name.lower() in taken:
                raise DefinitionError(
                    f"column {name!r} has the name of {taken[name.lower()]} in a {self.format} sink",
                    where=self.where,
                    hint="Rename the column in the contract, or write Parquet",
                )
            taken[name.lower()] = f"column {name!r}"

    # ------------------------------------------------------------------ transactions and errors

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        import duckdb

        self.connection.execute("BEGIN TRANSACTION")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            # A commit that failed has ended the transaction already.
            with contextlib.suppress(duckdb.Error):
                self.connection.execute("ROLLBACK")
            raise

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do it; while another process holds the database, try again until the wait is over."""
        import duckdb

        deadline = time.monotonic() + self._wait
        while True:
            try:
                return work()
            except DaedalusError:
                raise
            except duckdb.Error as error:
                busy = any(mark in str(error).lower() for mark in _BUSY)
                failure = self._as_error(error, busy=busy)
            if not busy or time.monotonic() >= deadline:
                # Raised out here, so that DuckDB's own words, which may hold a password, are not its context.
                raise failure
            time.sleep(_PAUSE_SECONDS)

    def _as_error(self, error: Exception, *, busy: bool) -> ExecutionError:
        text = self._without_secrets(" ".join(str(error).split()))
        if busy:
            return ExecutionError(
                f"another process holds it: {text}",
                where=self.where,
                hint=f"Waited {self._wait:g} s. Close the other connection and run again; the staged days are kept",
            )
        if "no space left" in text.lower():
            hint = "Free space and run again; the staged days are kept"
            return ExecutionError(f"the disk is full: {text}", where=self.where, hint=hint)
        return ExecutionError(text, where=self.where, hint="The staged days are kept: mend it and run again")

    def _without_secrets(self, text: str) -> str:
        """The text without what `${ENV}` references stand for."""
        for name in ENV_REFERENCE.findall(self.place):
            value = os.environ.get(name, "")
            text = text.replace(value, MASK) if value else text
        return mask(text)


def _dtypes_of(path: Path) -> dict[str, str]:
    """The columns of a staged file and their dtypes."""
    import pyarrow.parquet as pq

    return {field.name: from_arrow(field.type) for field in pq.read_schema(path)}


def _ignore(_message: str) -> None:
    """No one listens."""
