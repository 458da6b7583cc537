"""The relations of one day in one DuckDB connection: SQL that composes, and tables where it must be kept."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from daedalus.errors import DaedalusError, ExecutionError, SourceError
from daedalus.pipelines.operators import ROW
from daedalus.pipelines.profiling import NO_PROFILE, NoProfile
from daedalus.secrets import mask
from daedalus.sql.identifiers import quote_ident
from daedalus.storage.sources.faults import backend_fault, said
from daedalus.storage.view_reader import FLOATS, apart_from_source
from daedalus.storage.view_source import ERROR_MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import duckdb

#: Begins the names under which Arrow rows are registered.
_HELD = "__held_"
#: A filter on such a part is one that an Arrow table would judge by itself, where NaN is no number.
_NESTED_FLOAT = re.compile(r"(STRUCT|UNION|MAP).*(FLOAT|DOUBLE)")


@dataclass(frozen=True, slots=True)
class _Pending:
    """A SELECT that has not run yet, and the relations it reads."""

    sql: str
    reads: tuple[str, ...]


class RelationGraph:
    """Named relations: SELECTs that are still text, and tables that hold their rows.

    Text composes: asking for a relation gives one statement with everything pending below it as CTEs.

    Args:
        connection: where they are.
        profile: measures the statements.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, profile: NoProfile = NO_PROFILE) -> None:
        self.connection = connection
        self.profile = profile
        profile.watch(connection)
        self.statements: list[tuple[str, str]] = []
        self._pending: dict[str, _Pending] = {}
        self._known: set[str] = set()
        self._held: dict[str, pa.Table] = {}
        self._types: dict[str, dict[str, str]] = {}

    def define(self, name: str, sql: str, reads: Iterable[str]) -> None:
        """A relation as a SELECT over others."""
        self._pending[name] = _Pending(sql, tuple(reads))
        self._known.add(name)
        self._types.pop(name, None)

    def sql(self, name: str) -> str:
        """A SELECT of the relation's rows, everything pending included."""
        if name not in self._pending:
            return f"SELECT * FROM {quote_ident(name)}"
        chain: dict[str, str] = {}
        self._collect(name, chain)
        top = chain.pop(name)
        if not chain:
            return top
        ctes = ",\n".join(f"{quote_ident(one)} AS (\n{text}\n)" for one, text in chain.items())
        return f"WITH {ctes}\n{top}"

    def _collect(self, name: str, chain: dict[str, str]) -> None:
        pending = self._pending.get(name)
        if pending is None or name in chain:
            return
        for read in pending.reads:
            self._collect(read, chain)
        chain[name] = pending.sql

    def composed(self, name: str) -> tuple[str, ...]:
        """The relations that a statement over this one computes on the way, itself included."""
        chain: dict[str, str] = {}
        self._collect(name, chain)
        return tuple(chain)

    def types(self, name: str) -> dict[str, str]:
        """The relation's columns and DuckDB types, in order."""
        if name not in self._types:
            rows = self.rows(f"DESCRIBE {self.sql(name)}", name)
            self._types[name] = {row[0]: row[1] for row in rows}
        return self._types[name]

    def keep(self, name: str, *, ordered: bool = False) -> None:
        """Run the relation's statement and keep its rows as a table; `ordered` makes ranges of `__row` cheap."""
        if name not in self._pending:
            return
        order = f" ORDER BY {quote_ident(ROW)}" if ordered and ROW in self.types(name) else ""
        body = self.sql(name)
        statement = f"CREATE OR REPLACE TABLE {quote_ident(name)} AS SELECT * FROM (\n{body}\n){order}"
        self.statements.append((name, body))
        self.execute(statement, name)
        del self._pending[name]

    def hold(
        self, name: str, rows: int, most: int, finish: Callable[[pa.Table], pa.Table]
    ) -> pa.Table | None:
        """Run the relation's statement and hold its rows in Arrow instead of a table.

        Args:
            name: of the relation.
            rows: how many come at a time.
            most: bytes; None is returned, and the relation stays a statement, where the rows take more.
            finish: makes the rows of what the statement gives, in any order.
        """
        self.types(name)
        body = self.sql(name)
        with self.profile.statement(self.connection, name, lambda: self.composed(name)):
            reader = self.stream(body, name, rows)
            batches = []
            for batch in self.profile.waiting(self.batches(reader, name)):
                batches.append(batch)
                most -= batch.nbytes
                if most < 0:
                    reader.close()
                    return None
        table = finish(pa.Table.from_batches(batches, reader.schema))
        self.statements.append((name, body))
        self.give(name, table)
        return table

    def comes_back(self, name: str) -> bool:
        """Whether the relation's rows, once held in Arrow, are of the same types to DuckDB."""
        types = self.types(name)
        nulls = ", ".join(
            f"CAST(NULL AS {dtype}) AS {quote_ident(column)}" for column, dtype in types.items()
        )
        empty = self.fetch(f"SELECT {nulls} LIMIT 0", name)
        self.connection.register(_HELD + name, empty)
        described = self.rows(f"DESCRIBE SELECT * FROM {quote_ident(_HELD + name)}", name)
        self.connection.unregister(_HELD + name)
        nested_float = any(_NESTED_FLOAT.search(dtype) for dtype in types.values())
        return {row[0]: row[1] for row in described} == types and not nested_float

    def give(self, name: str, rows: pa.Table) -> None:
        """Let Arrow rows be the relation's, whatever columns and rows it had."""
        self.connection.register(_HELD + name, rows)
        select = self.select_registered(_HELD + name)
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {quote_ident(name)} AS {select}")
        self._held[name] = rows
        self._pending.pop(name, None)
        self._types.pop(name, None)
        self._known.add(name)

    def select_registered(self, name: str) -> str:
        """A SELECT of all that is registered under a name, as a source's rows are read."""
        described = self.connection.execute(f"DESCRIBE SELECT * FROM {quote_ident(name)}").fetchall()
        floats = [quote_ident(row[0]) for row in described if row[1] in FLOATS]
        replaced = ", ".join(f"{apart_from_source(column)} AS {column}" for column in floats)
        return f"SELECT *{f' REPLACE ({replaced})' if replaced else ''} FROM {quote_ident(name)}"

    def held(self, name: str) -> pa.Table | None:
        """The relation's rows in the order in which they were given; None where Arrow does not hold them."""
        return self._held.get(name)

    def rename(self, name: str, other: str) -> None:
        """Give a table another name: its own may then mean some of its rows."""
        if name in self._held:
            rows = self._held[name]
            self.drop(name)
            self.give(other, rows)
        else:
            self.execute(f"ALTER TABLE {quote_ident(name)} RENAME TO {quote_ident(other)}", name)

    def drop(self, name: str) -> None:
        """Forget a table's rows."""
        if name in self._held:
            del self._held[name]
            self.execute(f"DROP VIEW {quote_ident(name)}", name)
            self.connection.unregister(_HELD + name)
        elif name not in self._pending:
            self.execute(f"DROP TABLE IF EXISTS {quote_ident(name)}", name)

    def knows(self, name: str) -> bool:
        """Whether the relation was defined."""
        return name in self._known

    def is_kept(self, name: str) -> bool:
        """Whether the relation is a table by now."""
        return name not in self._pending

    def execute(self, sql: str, relation: str) -> duckdb.DuckDBPyConnection:
        """Run a statement; what DuckDB refuses becomes an error of ours that names the operator."""
        import duckdb

        try:
            with self.profile.statement(self.connection, relation, lambda: self.composed(relation)):
                return self.connection.execute(sql)
        except duckdb.Error as error:
            # Not `from error`: a backend's own words may hold a secret.
            raise as_execution_error(error, relation) from None

    def rows(self, sql: str, relation: str) -> list[tuple[Any, ...]]:
        """The few rows of a statement."""
        import duckdb

        try:
            with self.profile.statement(self.connection, relation, lambda: self.composed(relation)):
                return self.connection.execute(sql).fetchall()
        except duckdb.Error as error:
            # Not `from error`: a backend's own words may hold a secret.
            raise as_execution_error(error, relation) from None

    def fetch(self, sql: str, relation: str) -> pa.Table:
        """A statement's rows; what goes wrong while they are read names the operator, too."""
        import duckdb

        try:
            with self.profile.statement(self.connection, relation, lambda: self.composed(relation)):
                return self.connection.execute(sql).to_arrow_table()
        except duckdb.Error as error:
            # Not `from error`: a backend's own words may hold a secret.
            raise as_execution_error(error, relation) from None

    def fetch_at_most(self, sql: str, relation: str, rows: int, most: int) -> pa.Table:
        """A statement's rows, read `rows` at a time.

        Raises:
            MemoryError: they take more than `most` bytes.
        """
        batches = []
        with self.profile.statement(self.connection, relation, lambda: self.composed(relation)):
            reader = self.stream(sql, relation, rows)
            for batch in self.profile.waiting(self.batches(reader, relation)):
                batches.append(batch)
                most -= batch.nbytes
                if most < 0:
                    reader.close()
                    raise MemoryError
        return pa.Table.from_batches(batches, reader.schema)

    def stream(self, sql: str, relation: str, rows: int) -> pa.RecordBatchReader:
        """A statement's rows as they come, `rows` at a time; whoever reads them measures it."""
        import duckdb

        try:
            return self.connection.execute(sql).to_arrow_reader(rows)
        except duckdb.Error as error:
            # Not `from error`: a backend's own words may hold a secret.
            raise as_execution_error(error, relation) from None

    @staticmethod
    def batches(reader: pa.RecordBatchReader, relation: str) -> Iterator[pa.RecordBatch]:
        """A stream's batches; what DuckDB refuses on the way is told as `execute` tells it."""
        try:
            yield from reader
        except OSError as error:
            if error.errno is not None:
                raise
            raise as_execution_error(error, relation) from None

    @contextlib.contextmanager
    def in_order(self, wanted: bool = True) -> Iterator[None]:
        """Rows of files come in the files' order while this is open."""
        if not wanted:
            yield
            return
        before = self.connection.execute("SELECT current_setting('preserve_insertion_order')").fetchall()[0][
            0
        ]
        self.connection.execute("SET preserve_insertion_order = true")
        try:
            yield
        finally:
            self.connection.execute(f"SET preserve_insertion_order = {before}")

    def arrow(self, name: str, columns: Iterable[str], where: str = "") -> pa.Table:
        """Rows of a kept table, in order of `__row`, as one Arrow table."""
        items = ", ".join(quote_ident(column) for column in columns)
        sql = f"SELECT {items} FROM {quote_ident(name)} {where} ORDER BY {ROW}"
        return self.fetch(sql, name)


#: Decompressors and the decoder of headers throw what has no such name.
_DUCKDB_ERROR = re.compile(r"[A-Z]\w*(?: \w+)* Error: ")
_CORRUPT = ("corrupt", "failed to read file", "decompress")
#: In the output root, and not where rows are spilled.
_UNDER_OUTPUT = ("/.cache/", "/materialized/")


def as_execution_error(error: Exception, operator: str) -> DaedalusError:
    """DuckDB's exception as one of ours: a checked value that did not fit, full disk, little memory, or its text."""
    text = str(error)
    if ERROR_MARK in text:
        message = text.split(ERROR_MARK, 1)[1].splitlines()[0]
        return SourceError(message, operator=operator)
    fault = backend_fault(text)
    if fault is not None:
        return SourceError(f"{fault[0]}: {said(text)}", operator=operator, hint=fault[1])
    first = mask(text.splitlines()[0]) if text else type(error).__name__
    lowered = text.lower()
    if "no space left" in lowered and any(place in lowered for place in _UNDER_OUTPUT):
        return ExecutionError(
            f"the disk is full: {first}",
            operator=operator,
            hint="Free space under output_root, then run again",
        )
    if "no space left" in lowered or "max_temp_directory_size" in lowered:
        return ExecutionError(
            f"the spill disk is full: {first}",
            operator=operator,
            hint="Free space under compute.duckdb_config.temp_directory, or point it at a larger disk",
        )
    if "out of memory" in lowered:
        return ExecutionError(
            f"memory_limit is too small: {first}",
            operator=operator,
            hint="Raise compute.duckdb_config.memory_limit, lower threads, or give it a temp_directory to spill to",
        )
    return ExecutionError(first, operator=operator)


def may_be_corrupt(error: ExecutionError) -> bool:
    """Whether an error may come from bytes that make no sense, which readers often do not say."""
    if error.where or error.hint:
        return False
    named = _DUCKDB_ERROR.match(error.what)
    return named is None or any(mark in error.what.lower() for mark in _CORRUPT)
