"""A DuckLake as a sink: one snapshot per day, with the run's id in its commit message.

The catalog is SQLite by default, or Postgres, or a DuckDB file; the rows are Parquet files under the data path.
The recipe is DuckLake 1.0's: extensions from their wheels, `ATTACH 'ducklake:...' (DATA_PATH ...)`, and no rows
inlined in the catalog, so that every day is in files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from daedalus.catalog.dtype_tree import ListType, MapType, StructType, parse_dtype, spell
from daedalus.catalog.dtypes import to_duckdb
from daedalus.errors import DefinitionError
from daedalus.secrets import expand_env, mask
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.storage.duckdb_extensions import load_extensions
from daedalus.storage.sinks.tables import Partition, TableSink
from daedalus.storage.sources.object_store import ObjectStoreFiles, is_object_store
from daedalus.storage.sources.postgres_place import place_of

if TYPE_CHECKING:
    import duckdb

    from daedalus.catalog.dtype_tree import Dtype
    from daedalus.storage.sources.postgres_place import PostgresPlace

_PREFIX = "ducklake:"
_CATALOG = re.compile(r"^(sqlite|postgres|duckdb):(?!//)", re.IGNORECASE)
_POSTGRES_URL = re.compile(r"^postgres(ql)?://", re.IGNORECASE)
_AUTHOR = "daedalus"


class DuckLakeSink(TableSink):
    """Writes a service's days into a DuckLake.

    Args:
        connection: as for every table sink.
        place: the catalog: a path (SQLite), `sqlite:PATH`, `duckdb:PATH`, `postgres:CONNINFO` or a `postgresql://`
            URL; with `ducklake:` before it, as DuckLake itself spells it, a bare path is a DuckDB file.
        data_path: where the Parquet files go: a folder or an object-store URL. Empty: beside a file catalog, in
            `CATALOG.files/`, or where an existing catalog says. An object store's keys come from `AWS_...` variables.
        schema: the service's name.
        table: the rows' table.
        wait_seconds: how long a locked catalog is waited for.
    """

    format: ClassVar[str] = "ducklake"

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        place: str,
        *,
        schema: str,
        table: str = "training",
        data_path: str = "",
        wait_seconds: float | None = None,
    ) -> None:
        super().__init__(connection, place, schema=schema, table=table, wait_seconds=wait_seconds)
        self._data_path = expand_env(data_path, where="sink.data_path")
        self.backend, self.catalog = split_catalog(self.resolved)

    def _open(self) -> None:
        import duckdb

        extension = {"sqlite": ("sqlite",), "postgres": ("postgres",)}.get(self.backend, ())
        # Only the catalog of an existing lake says where its files are, and DuckLake wants their reader beforehand.
        load_extensions(self.connection, *extension, "httpfs", "ducklake")
        self._allow_writing(self._data_path)
        exists = self.backend == "postgres" or Path(self.catalog).exists()
        data_path = self._data_path or ("" if exists else f"{self.catalog}.files/")
        if self.backend != "postgres":
            Path(self.catalog).parent.mkdir(parents=True, exist_ok=True)
        options = ["DATA_INLINING_ROW_LIMIT 0"]
        if data_path:
            options.append(f"DATA_PATH {quote_literal(data_path.rstrip('/') + '/')}")
        kind = "" if self.backend == "duckdb" else f"{self.backend}:"
        catalog = self.catalog
        if _POSTGRES_URL.match(catalog):
            # User and password go into a secret: what variables hold needs no percent-encoding there.
            secret = f"{self.alias}_catalog"
            catalog = self._database().create_secret(self.connection, secret, lock_seconds=self._wait)
            options.append(f"META_SECRET {quote_literal(secret)}")
        target = quote_literal(f"{_PREFIX}{kind}{catalog}")
        try:
            self.connection.execute(f"ATTACH {target} AS {quote_ident(self.alias)} ({', '.join(options)})")
        except duckdb.InvalidInputException as error:
            if "data_path is not set" not in str(error):
                raise
            raise DefinitionError(
                "a new lake with its catalog in a database needs a place for its files",
                where=f"{self.where}: sink.data_path",
                hint="Set sink: {format: ducklake, path: ..., data_path: FOLDER or s3://...}",
            ) from None
        if not self._data_path:
            found = self.connection.execute(
                "SELECT tags['data_path'] FROM duckdb_databases() WHERE database_name = ?", [self.alias]
            ).fetchone()
            self._allow_writing(str(found[0] or "") if found else "")

    def _database(self) -> PostgresPlace:
        """Where the catalog is, variables unresolved where they are parts of the URL."""
        written = self.place[len(_PREFIX) :] if self.place.lower().startswith(_PREFIX) else self.place
        url = written if _POSTGRES_URL.match(written) else self.catalog
        return place_of(url, {}, self.where, "path")

    def _allow_writing(self, data_path: str) -> None:
        """Keys come from the variables that AWS's own tools read; the secret holds for this path alone."""
        if is_object_store(data_path):
            ObjectStoreFiles(data_path, self.where, {}).setup(self.connection)

    def _column_type(self, dtype: str) -> str:
        return spell(_without_sizes(parse_dtype(to_duckdb(dtype))))

    def _create(self, partition: Partition, columns: str) -> None:
        super()._create(partition, columns)
        if partition.dtype == "DATE":
            self.connection.execute(
                f"ALTER TABLE {self.name(self.table)} SET PARTITIONED BY ({quote_ident(partition.column)})"
            )

    def _sealed(self, message: str, extra: str) -> None:
        self.connection.execute(
            f"CALL {quote_ident(self.alias)}.set_commit_message({quote_literal(_AUTHOR)}, "
            f"{quote_literal(message)}, extra_info => {quote_literal(extra)})"
        )

    def _snapshot(self) -> int | None:
        # The connection now and then knows of no commit of its own; then the lake's newest is the one just made.
        for source in ("last_committed_snapshot", "current_snapshot"):
            found = self.connection.execute(f"FROM {quote_ident(self.alias)}.{source}()").fetchone()
            if found is not None and found[0] is not None:
                return int(found[0])
        return None


def split_catalog(text: str) -> tuple[str, str]:
    """The catalog's backend, and where it is.

    >>> split_catalog("lake.sqlite"), split_catalog("ducklake:lake.ducklake")
    (('sqlite', 'lake.sqlite'), ('duckdb', 'lake.ducklake'))
    >>> split_catalog("postgresql://me@db/lake")
    ('postgres', 'postgresql://me@db/lake')
    """
    spelled_out = text.lower().startswith(_PREFIX)
    rest = text[len(_PREFIX) :] if spelled_out else text
    if _POSTGRES_URL.match(rest):
        return "postgres", rest
    named = _CATALOG.match(rest)
    if named:
        return named[1].lower(), rest[named.end() :]
    if re.match(r"^[a-zA-Z][a-zA-Z0-9+.-]+:", rest):
        raise DefinitionError(
            f"no DuckLake catalog is kept in {mask(rest)!r}",
            where="sink.path",
            hint="Write a path (SQLite), sqlite:PATH, duckdb:PATH or a postgresql:// URL",
        )
    return ("duckdb" if spelled_out else "sqlite"), rest


def _without_sizes(dtype: Dtype) -> Dtype:
    """A lake has lists, but no vectors of fixed length."""
    match dtype:
        case ListType():
            return ListType(element=_without_sizes(dtype.element), size=None)
        case StructType():
            return StructType(fields=tuple((name, _without_sizes(part)) for name, part in dtype.fields))
        case MapType():
            return MapType(key=_without_sizes(dtype.key), value=_without_sizes(dtype.value))
    return dtype
