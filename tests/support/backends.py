"""The same tables at each backend that a view's source can name, on the servers of `support.servers`."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.storage.duckdb_extensions import bare_connection, load_extensions

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb
    import pytest

    from support.servers import PostgresServer, S3Server

Source = dict[str, Any]


def write_table(connection: duckdb.DuckDBPyConnection, target: str, table: pa.Table) -> None:
    """Make `target` (qualified SQL) hold the table's rows."""
    connection.register("__rows", table)
    connection.execute(f"CREATE TABLE {target} AS SELECT * FROM __rows LIMIT 0")
    connection.execute(f"INSERT INTO {target} SELECT * FROM __rows")
    connection.unregister("__rows")


@dataclass
class Parquet:
    """Files under the project's data folder."""

    root: Path

    def put(self, name: str, table: pa.Table, **_: Any) -> Source:
        path = self.root / "data" / name / "part-0.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        return {"path": name}


@dataclass
class ObjectStore:
    """Objects in a bucket of its own; keys by reference to the environment."""

    server: S3Server
    monkeypatch: pytest.MonkeyPatch
    scheme: str = "s3"
    bucket: str = ""

    def __post_init__(self) -> None:
        self.bucket = self.server.bucket()
        self.monkeypatch.setenv("STORE_KEY", self.server.key_id)
        self.monkeypatch.setenv("STORE_SECRET", self.server.secret)
        self.monkeypatch.setenv("STORE_URL", self.server.url)

    @property
    def settings(self) -> Source:
        return {"key_id": "${STORE_KEY}", "secret": "${STORE_SECRET}", "endpoint": "${STORE_URL}"}

    def put(self, name: str, table: pa.Table, file: str = "part-0.parquet", **options: Any) -> Source:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **options)
        body = sink.getvalue().to_pybytes()
        self.server.client().put_object(Bucket=self.bucket, Key=f"{name}/{file}", Body=body)
        return {"path": f"{self.scheme}://{self.bucket}/{name}", "credentials": self.settings}


@dataclass
class Postgres:
    """Tables of a database of its own, with a user and password by reference to the environment."""

    server: PostgresServer
    monkeypatch: pytest.MonkeyPatch
    as_query: bool = False
    database: str = ""

    def __post_init__(self) -> None:
        self.database = self.server.database()
        self.monkeypatch.setenv("PG_USER", self.server.user)
        self.monkeypatch.setenv("PG_PASSWORD", self.server.password)
        self.monkeypatch.setenv("PG_PORT", str(self.server.port))

    @property
    def url(self) -> str:
        return f"postgresql://${{PG_USER}}:${{PG_PASSWORD}}@127.0.0.1:${{PG_PORT}}/{self.database}"

    def put(self, name: str, table: pa.Table, **_: Any) -> Source:
        with bare_connection() as connection:
            load_extensions(connection, "postgres")
            connection.execute(
                f"ATTACH {quote_literal(self.server.url(self.database))} AS pg (TYPE postgres)"
            )
            write_table(connection, f"pg.public.{quote_ident(name)}", table)
        if self.as_query:
            return {"database_path": self.url, "query": f"SELECT * FROM {quote_ident(name)};"}
        return {"database_path": self.url, "table_name": quote_ident(name)}


@dataclass
class DuckLake:
    """A lake with its catalog in SQLite, a DuckDB file or Postgres, and its files in a folder or a bucket."""

    root: Path
    catalog: str
    store: ObjectStore | None = None
    database: Postgres | None = None
    name: str = field(default_factory=lambda: f"lake {secrets.token_hex(3)}")

    @property
    def place(self) -> str:
        """`database_path`."""
        if self.database is not None:
            return f"ducklake:{self.database.url}"
        prefix = "" if self.catalog == "duckdb" else f"{self.catalog}:"
        return f"ducklake:{prefix}{self.name}.db"

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A connection that may write to the lake, attached as `lake`."""
        connection = bare_connection()
        load_extensions(connection, "httpfs", "postgres", "sqlite", "ducklake")
        data = self.root / "data"
        data.mkdir(parents=True, exist_ok=True)
        path = f"{data}/{self.name}.files/"
        if self.store is not None:
            path = f"s3://{self.store.bucket}/{self.name}/"
            connection.execute(
                f"CREATE SECRET (TYPE s3, KEY_ID '{self.store.server.key_id}', SECRET '{self.store.server.secret}', "
                f"ENDPOINT '{self.store.server.endpoint}', USE_SSL false, URL_STYLE 'path', REGION 'us-east-1')"
            )
        if self.database is not None:
            target = f"ducklake:postgres:{self.database.server.url(self.database.database)}"
        else:
            prefix = "" if self.catalog == "duckdb" else f"{self.catalog}:"
            target = f"ducklake:{prefix}{data}/{self.name}.db"
        connection.execute(
            f"ATTACH {quote_literal(target)} AS lake (DATA_PATH {quote_literal(path)}, DATA_INLINING_ROW_LIMIT 0)"
        )
        return connection

    def source(self, name: str, **more: Any) -> Source:
        """The `source` of a table."""
        settings = {"credentials": self.store.settings} if self.store is not None else {}
        return {"database_path": self.place, "table_name": quote_ident(name), **settings, **more}

    def put(self, name: str, table: pa.Table, **_: Any) -> Source:
        with self.connect() as connection:
            write_table(connection, f"lake.main.{quote_ident(name)}", table)
        return self.source(name)


def open_view(folder: Path, view: dict[str, Any]) -> OpenView:
    """The view's source, opened as a run opens it."""
    import yaml

    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.storage.sources.dispatch import open_source

    views = folder / f"views-{secrets.token_hex(3)}"
    views.mkdir(parents=True)
    (views / "view.yaml").write_text(yaml.safe_dump(view, allow_unicode=True))
    catalog = FeatureCatalog.from_yaml_dir(views)
    definition = catalog.view(view["name"])
    shared: dict[str, Any] = {}
    return OpenView(
        definition, lambda **more: open_source(definition, source_root=str(folder / "data"), **more), shared
    )


@dataclass
class OpenView:
    """A view and what opens its source."""

    definition: Any
    open: Any
    shared: dict[str, Any]

    def rows(self, columns: list[str], time_range: Any = None, **more: Any) -> list[tuple[Any, ...]]:
        """The view's rows of a range, in its order, through a source that is opened and closed for it."""
        from daedalus.pipelines.duckdb_session import duckdb_session
        from daedalus.storage.view_reader import ViewReader

        source = self.open(shared=self.shared, **more)
        try:
            with duckdb_session({"threads": "2"}) as connection:
                source.setup(connection)
                reader = ViewReader(self.definition, source, connection, 1_000_000)
                items = ", ".join(quote_ident(name) for name in columns) or "1"
                sql = reader.select_sql(columns, time_range)
                return connection.execute(f"SELECT {items} FROM ({sql}) ORDER BY ALL").fetchall()
        finally:
            source.close()
