"""Snowflake: a table or a query, read by statements that name the columns and the time range.

What a statement gives is streamed, batch by batch, into a Parquet file beside DuckDB's spill files, and DuckDB reads
that; it lives as long as the connection it was fetched for. Tables are read AT one instant of the whole run.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import re
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError, SourceError
from daedalus.secrets import mask
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.storage.sources._snowflake_client import SnowflakeClient
from daedalus.storage.sources._snowflake_rows import SnowflakeColumn, columns_of, spool
from daedalus.storage.sources.base import ticks_of
from daedalus.storage.sources.relations import query_hash
from daedalus.storage.view_source import UNIT_US, source_name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import duckdb

    from daedalus.catalog.model import FeatureViewDef
    from daedalus.storage.sources.base import TickRange

_NAME_PART = re.compile(r'"((?:[^"]|"")+)"|([A-Za-z_][A-Za-z0-9_$]*)')
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnowflakeSnapshot:
    """What a run reads.

    Attributes:
        place: `snowflake://account/DATABASE/SCHEMA/TABLE`, or the query's hash in place of the table.
        query_id: Snowflake's id of the statement that began the run's reading.
        as_of: the instant that every statement of the run reads at; empty where there is no time travel, so that
            each statement reads the newest rows.
        all_columns: what the relation has.
    """

    place: str
    query_id: str
    as_of: str
    all_columns: tuple[SnowflakeColumn, ...]

    @property
    def columns(self) -> frozenset[str]:
        """The names of the columns, in lower case."""
        return frozenset(column.name.lower() for column in self.all_columns)

    def identity(self, time_range: TickRange | None = None) -> list[Any]:
        """The place: a day that was read is read again only when it is asked for."""
        return [["snowflake", self.place]]

    def exact(self, time_range: TickRange | None = None) -> list[Any] | None:
        """Unknown: nothing says cheaply that a range's rows are what they were."""
        return None

    def record(self) -> dict[str, Any]:
        """The place, the query's id, and the instant that all statements read at."""
        return {
            "backend": "snowflake",
            "place": self.place,
            "query_id": self.query_id,
            "as_of": self.as_of,
            "one_state": bool(self.as_of),
        }


class SnowflakeSource:
    """Rows of a Snowflake table or query.

    Args:
        view: its source says account, table or query, and credentials as `${ENV}` references.
        where: how messages name the source.
        pin: the `record()` of an earlier run, whose instant is read again.
    """

    def __init__(self, view: FeatureViewDef, *, where: str, pin: Mapping[str, Any] | None = None) -> None:
        self._source = view.source
        self._pinned = str((pin or {}).get("as_of", ""))
        self._where = where
        self._time_column = source_name_of(view, view.timestamp_field) if view.timestamp_field else ""
        self._unit_us = UNIT_US[view.source.timestamp_unit]
        self._declared = {source_name_of(view, field.name).lower(): field.dtype for field in view.fields}
        self._snapshot: SnowflakeSnapshot | None = None
        self._client: SnowflakeClient | None = None
        self._spools = _Spools()

    def __getstate__(self) -> dict[str, Any]:
        # A worker connects by itself, with its own environment; only the snapshot goes along.
        self.snapshot()
        return self.__dict__ | {"_client": None, "_spools": _Spools()}

    # ------------------------------------------------------------------ the relation

    def _connected(self) -> SnowflakeClient:
        if self._client is None:
            self._client = SnowflakeClient(self._source, self._where)
        return self._client

    def _relation(self, as_of: str = "") -> str:
        if self._source.query:
            return f"({self._source.query.strip().rstrip(';')}\n) AS q"
        at = f" AT(TIMESTAMP => {quote_literal(as_of)}::TIMESTAMP_TZ)" if as_of else ""
        return ".".join(quote_ident(part) for part in self._table_parts()) + at

    def _table_parts(self) -> list[str]:
        """The table's name in parts; unquoted ones in capitals, as Snowflake reads them."""
        text = self._source.table_name
        parts: list[str] = []
        at = 0
        while match := _NAME_PART.match(text, at):
            parts.append(match[1].replace('""', '"') if match[1] else match[2].upper())
            at = match.end()
            if at == len(text):
                return parts
            if text[at] != ".":
                break
            at += 1
        raise DefinitionError(
            f"{text!r} is no table name",
            where=f"{self._where}.table_name",
            hint="""Write table, schema.table or database.schema.table; quote what is no plain name: '"my table"'""",
        )

    def snapshot(self) -> SnowflakeSnapshot:
        """The relation's columns, and the instant that the run reads at; asked for once."""
        if self._snapshot is None:
            self._snapshot = self._describe()
        return self._snapshot

    def _describe(self) -> SnowflakeSnapshot:
        client = self._connected()
        cursor = client.execute(f"SELECT * FROM {self._relation(self._pinned)} LIMIT 0")
        return SnowflakeSnapshot(
            place=self._place(client),
            query_id=str(cursor.sfqid),
            as_of=self._instant(client),
            all_columns=columns_of(cursor.description, self._declared, self._where),
        )

    def _place(self, client: SnowflakeClient) -> str:
        if self._source.query:
            parts = ["query", query_hash(self._source.query)]
        else:
            named = self._table_parts()
            parts = [*[client.database, client.schema][: 3 - len(named)], *named]
        account = self._source.database_path.partition("://")[2].split("/")[0]
        return "/".join([f"snowflake://{account}", *parts])

    def _instant(self, client: SnowflakeClient) -> str:
        """The server's time, when the table can be read at it."""
        if self._source.query:
            return ""
        if self._pinned:
            return self._pinned
        now = client.execute("SELECT CURRENT_TIMESTAMP()").fetchone()[0]
        text = str(now.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f +00:00"))
        # Not every relation has a history: views of shares, external tables, a retention of no days.
        with contextlib.suppress(SourceError):
            client.execute(f"SELECT 1 FROM {self._relation(text)} LIMIT 0")
            return text
        return ""

    # ------------------------------------------------------------------ reading

    def setup(self, connection: duckdb.DuckDBPyConnection) -> None:
        """What is fetched from now on lives as long as this connection."""
        self._spools.follow(connection)

    def schema(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """The relation's columns as DuckDB types."""
        return {column.name: column.dtype for column in self.snapshot().all_columns}

    def _wanted(self, columns: Sequence[str] | None) -> list[SnowflakeColumn]:
        everything = self.snapshot().all_columns
        # By their exact names: a table may have two that differ in case, which DuckDB cannot tell apart.
        names = None if columns is None else set(columns)
        return [one for one in everything if names is None or one.name in names] or list(everything[:1])

    def statement(self, time_range: TickRange | None = None, columns: Sequence[str] | None = None) -> str:
        """The statement that Snowflake is sent for a range and columns."""
        items = ", ".join(quote_ident(column.name) for column in self._wanted(columns))
        bounds = self._bounds(time_range)
        where = f" WHERE {' AND '.join(bounds)}" if bounds else ""
        return f"SELECT {items} FROM {self._relation(self.snapshot().as_of)}{where}"

    def relation_sql(self, time_range: TickRange | None = None, columns: Sequence[str] | None = None) -> str:
        """Fetches the rows, once per connection, and reads the file that holds them."""
        wanted = self._wanted(columns)
        sql = self.statement(time_range, columns)
        path = self._spools.path(sql)
        if not path.exists():
            part = path.with_suffix(".part")
            client = self._connected()
            cursor = client.execute(sql)
            try:
                spool(client.batches(cursor), wanted, part, self._where)
            except OSError as error:
                raise SourceError(
                    f"the rows cannot be kept: {error.strerror or error}",
                    where=self._where,
                    hint="Free space under compute.duckdb_config.temp_directory, or point it at a larger disk",
                ) from None
            part.replace(path)
        return f"(SELECT {_from_file(wanted)} FROM read_parquet({quote_literal(str(path))}))"

    def shape_sql(self, time_range: TickRange | None = None, columns: Sequence[str] | None = None) -> str:
        """The same columns without rows, and the statement that would fetch them as a comment."""
        text = mask(self.statement(time_range, columns)).replace("*/", "* /").replace("/*", "/ *")
        nulls = ", ".join(
            f"CAST(NULL AS {column.dtype}) AS {quote_ident(column.name)}" for column in self._wanted(columns)
        )
        return f"(SELECT {nulls} WHERE false /* Snowflake: {text} */)"

    def _bounds(self, time_range: TickRange | None) -> list[str]:
        """The range as conditions on the time column, where its type allows; DuckDB cuts exactly afterwards."""
        found = [one for one in self.snapshot().all_columns if one.name.lower() == self._time_column.lower()]
        if time_range is None or not found:
            return []
        bounds = []
        for sign, instant in ((">=", time_range.low_us), ("<", time_range.high_us)):
            literal = "" if instant is None else self._literal(found[0], instant, sign)
            if literal:
                bounds.append(f"{quote_ident(found[0].name)} {'<=' if sign == '<' else sign} {literal}")
        return bounds

    def _literal(self, column: SnowflakeColumn, instant_us: int, sign: str) -> str:
        """The instant in the column's own terms, rounded outwards; empty when it has none."""
        if column.kind == "FIXED":
            return str(ticks_of(instant_us, self._unit_us, up=sign == "<"))
        try:
            moment = (_EPOCH + dt.timedelta(microseconds=instant_us)).replace(tzinfo=None)
        except OverflowError:
            return ""
        text = moment.isoformat(sep=" ", timespec="microseconds")
        match column.kind:
            case "TIMESTAMP_NTZ":
                return f"TO_TIMESTAMP_NTZ('{text}')"
            case "TIMESTAMP_LTZ" | "TIMESTAMP_TZ":
                return f"TO_TIMESTAMP_TZ('{text} +00:00')"
            case "DATE":
                return f"TO_DATE('{moment.date().isoformat()}')"
        return ""

    def verify_unchanged(self) -> None:
        """Nothing to compare: a table is read at one instant, and nothing tells whether a query's rows changed."""

    def close(self) -> None:
        """End the session, and remove what was fetched."""
        self._spools.remove()
        if self._client is not None:
            self._client.close()
            self._client = None


def _from_file(columns: Sequence[SnowflakeColumn]) -> str:
    names = [(quote_ident(column.name), column.dtype) for column in columns]
    return ", ".join(f"CAST({name} AS JSON) AS {name}" if dtype == "JSON" else name for name, dtype in names)


class _Spools:
    """Folders for fetched rows, one per DuckDB connection; gone when their connection is, at the latest at exit."""

    def __init__(self) -> None:
        self._folders: list[tuple[duckdb.DuckDBPyConnection, Path]] = []

    def follow(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Fetch for this connection from now on."""
        for entry in [entry for entry in self._folders if _is_closed(entry[0])]:
            shutil.rmtree(entry[1], ignore_errors=True)
            self._folders.remove(entry)
        mine = next((entry for entry in self._folders if entry[0] is connection), None)
        if mine is None:
            mine = (connection, self._new_folder(connection))
        else:
            self._folders.remove(mine)
        self._folders.append(mine)

    def path(self, statement: str) -> Path:
        """The file that holds, or will hold, what a statement gives."""
        name = hashlib.sha256(statement.encode()).hexdigest()[:24]
        return self._folders[-1][1] / f"{name}.parquet"

    def remove(self) -> None:
        """Remove everything that was fetched."""
        for _, folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        self._folders.clear()

    def _new_folder(self, connection: duckdb.DuckDBPyConnection) -> Path:
        # On a cursor of its own: the connection may be in the middle of a result.
        with connection.cursor() as cursor:
            row = cursor.execute("SELECT current_setting('temp_directory')").fetchone()
        base = Path(str(row[0])) if row and row[0] else None
        # DuckDB names a folder even when none was set; only one that exists was made for this connection.
        folder = Path(tempfile.mkdtemp(prefix="snowflake-", dir=base if base and base.is_dir() else None))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder


def _is_closed(connection: duckdb.DuckDBPyConnection) -> bool:
    import duckdb

    try:
        connection.cursor().close()
    except duckdb.Error:
        return True
    return False
