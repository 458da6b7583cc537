"""Names that need quoting and odd paths, globs, Hive keys and prefixes, at each backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from daedalus.catalog.model import DataSourceDef
from daedalus.errors import DefinitionError, SourceError
from daedalus.storage.duckdb_extensions import extension_status
from daedalus.storage.sources.dispatch import Backend, backend_of
from daedalus.storage.sources.postgres_place import place_of
from support.backends import DuckLake, ObjectStore, Postgres, open_view, write_table

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import PostgresServer, S3Server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sources")]

ODD = ["it's", "a b", "größe 🎨", 'say "hi"', "100%", "a+b&c=d", "st*r", "br[1]", "#;,"]
COLUMN = 'odd "col, u\'mn"'


def table(*values: int) -> pa.Table:
    return pa.table({"user_id": pa.array(values, pa.int64()), COLUMN: pa.array(values, pa.int64())})


def view(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    fields = [{"name": "value", "dtype": "BIGINT"}]
    mapping = {COLUMN: "value"}
    return {
        "name": "v",
        "entity": "user",
        "source": source,
        "fields": fields,
        "field_mapping": mapping,
    } | more


@pytest.mark.parametrize("scheme", ["s3", "r2"])
def test_odd_keys_of_an_object_store(
    scheme: str, tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(s3_server, monkeypatch, scheme)
    for number, name in enumerate(ODD):
        source = store.put("data", table(number), f"{name}/{name}.parquet")
    store.put("data", table(99), "star/star.parquet")  # what the patterns st*r and br[1] would match, too
    store.put("data", table(98), "br1/br1.parquet")
    store.put("data", table(97), "_hidden/x.parquet")
    store.put("data2", table(96))  # begins alike, and is another prefix
    s3_server.client().put_object(Bucket=store.bucket, Key="data/notes.txt", Body=b"no rows")
    opened = open_view(tmp_path, view(source))
    assert [row[0] for row in opened.rows(["value"])] == [*range(len(ODD)), 98, 99]
    for number, name in enumerate(ODD):
        one = source | {"path": f"{scheme}://{store.bucket}/data/{name}/{name}.parquet"}
        assert open_view(tmp_path, view(one)).rows(["user_id", "value"]) == [(number, number)]


def test_globs_hive_keys_and_prefixes(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(s3_server, monkeypatch)
    for month in ("01", "02"):
        source = store.put("data", table(int(month)), f"month={month}/x y.parquet")
    url = source["path"]
    found = open_view(tmp_path, view(source | {"path": f"{url}/month=0?/*.parquet"})).rows(["value"])
    assert found == [(1,), (2,)]
    assert open_view(tmp_path, view(source | {"path": f"{url}/**/x*.parquet"})).rows(["value"]) == [
        (1,),
        (2,),
    ]
    assert open_view(tmp_path, view(source | {"path": f"{url}/*[2]/*"})).rows(["value"]) == [(2,)]
    keyed = view(source, fields=[{"name": "month", "dtype": "TEXT"}], field_mapping={})
    assert open_view(tmp_path, keyed).rows(["user_id", "month"]) == [(1, "01"), (2, "02")]
    with pytest.raises(SourceError, match=r"nothing/\*\.parquet holds no \.parquet object"):
        open_view(tmp_path, view(source | {"path": f"{url}/nothing/*.parquet"})).rows(["value"])


def test_an_object_whose_name_has_a_question_mark_or_no_footer_is_refused(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(s3_server, monkeypatch)
    source = store.put("data", table(1), "what?.parquet")
    with pytest.raises(SourceError, match=r"what\?\.parquet cannot be read.*without \?"):
        open_view(tmp_path, view(source)).rows(["value"])
    for body in (b"", b"PAR1", b"x" * 100):
        s3_server.client().put_object(Bucket=store.bucket, Key="broken/a.parquet", Body=body)
        with pytest.raises(SourceError, match=r"broken/a\.parquet cannot be read as Parquet"):
            open_view(tmp_path, view(source | {"path": f"s3://{store.bucket}/broken"})).rows(["value"])


def test_keys_come_from_the_environment_of_aws_tools(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(s3_server, monkeypatch)
    source = store.put("data", table(1))
    s3_server.key_ids = {s3_server.key_id}
    for name, value in s3_server.environ().items():
        monkeypatch.setenv(name, value)
    assert open_view(tmp_path, view({"path": source["path"]})).rows(["value"]) == [(1,)]
    # A view's own key never goes with the environment's secret.
    own = {"path": source["path"], "credentials": {"key_id": "${STORE_KEY}", "endpoint": "${STORE_URL}"}}
    with pytest.raises(SourceError, match="access"):
        open_view(tmp_path, view(own)).rows(["value"])


@pytest.mark.parametrize("name", ['we.ird "table"', "it's größe", "SELECT"])
def test_odd_tables_of_databases(
    name: str, tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    database = Postgres(postgres_server, monkeypatch)
    postgres_server.execute(f"CREATE SCHEMA {quoted}", database.database)
    postgres_server.execute(
        f"CREATE TABLE {quoted}.{quoted} AS SELECT 7::bigint AS user_id, 7::bigint AS "
        f'"{COLUMN.replace(chr(34), chr(34) * 2)}"',
        database.database,
    )
    place = {"database_path": database.url, "table_name": f"{quoted}.{quoted}"}
    assert open_view(tmp_path, view(place)).rows(["user_id", "value"]) == [(7, 7)]
    lake = DuckLake(tmp_path, "sqlite", name=f"l'ake {name.replace('/', '')}")
    with lake.connect() as connection:
        connection.execute(f"CREATE SCHEMA lake.{quoted}")
        write_table(connection, f"lake.{quoted}.{quoted}", table(8))
    source = lake.source("x", table_name=f"{quoted}.{quoted}")
    assert open_view(tmp_path, view(source)).rows(["user_id", "value"]) == [(8, 8)]


def test_queries_over_a_lake_read_its_tables_only(tmp_path: Path) -> None:
    lake = DuckLake(tmp_path, "sqlite")
    lake.put("t", table(1, 2, 3))
    query = "WITH t2 AS (SELECT * FROM t WHERE user_id > 1) SELECT a.* FROM t2 AS a JOIN main.t AS b USING (user_id)"

    def rows(text: str) -> list[Any]:
        source = lake.source("t", query=text)
        del source["table_name"]
        return open_view(tmp_path, view(source)).rows(["value"])

    assert rows(query) == [(2,), (3,)]
    for text, what in (
        ("SELECT * FROM read_csv('/etc/passwd')", "table function"),
        ("SELECT * FROM '/etc/passwd'", "no such table"),
        ("SELECT * FROM system.main.t", "another database: system"),
        ("DELETE FROM t", "not one SELECT"),
        ("SELECT * FROM t; SELECT 1", "not one SELECT"),
    ):
        with pytest.raises((DefinitionError, SourceError), match=what):
            rows(text)


def test_a_postgres_query_cannot_write(
    tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Postgres(postgres_server, monkeypatch)
    postgres_server.execute(
        "CREATE TABLE t AS SELECT 1::bigint AS user_id, 1::bigint AS value", database.database
    )
    query = "WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone"
    source = {"database_path": database.url, "query": query}
    with pytest.raises(SourceError, match="v "):
        open_view(tmp_path, view(source, field_mapping={})).rows(["value"])
    assert postgres_server.execute("SELECT count(*) FROM t", database.database) == [["1"]]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://me:p%40ss-word@db.example:5433/shop?sslmode=require",
            {"user": "me", "password": "p@ss-word", "host": "db.example", "port": "5433"}
            | {"database": "shop", "sslmode": "require"},
        ),
        (
            "postgres://${WHO}:${PW}@h/${DB}",
            {"user": "w h o", "password": "p@/:%41#", "host": "h", "database": "d'b"},
        ),
        ("${WHOLE}", {"user": "u", "password": "p@ss-word", "host": "h", "database": "d"}),
        ("postgresql:///d?host=/var/run/pg&user=u", {"host": "/var/run/pg", "user": "u", "database": "d"}),
        ("${RAW}", {"user": "u", "password": "12/a:b@c", "host": "h", "port": "5432", "database": "d"}),
        (
            "postgresql://u@[::1]:5433/d?sslmode=disable",
            {"host": "::1", "port": "5433", "user": "u", "database": "d", "sslmode": "disable"},
        ),
        (
            "postgresql://a:5433,b:${PORT}/d?user=x@y",
            {"host": "a,b", "port": "5433,5434", "user": "x@y", "database": "d"},
        ),
    ],
)
def test_postgres_urls(url: str, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "WHO": "w h o",
        "PW": "p@/:%41#",
        "DB": "d'b",
        "WHOLE": "postgres://u:p%40ss-word@h/d",
        "RAW": "postgres://u:12/a:b@c@h:5432/d",
        "PORT": "5434",
    }.items():
        monkeypatch.setenv(name, value)
    assert place_of(url, {}, "view v").parameters() == expected


@pytest.mark.parametrize(
    "value",
    [
        "postgres://u:hid?den@h/d",
        "postgres://u:hid#den:x/y",
        "hidden",
        "postgres://u:hid?den=1@h/d&",
    ],
)
def test_a_whole_url_that_is_none_is_not_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHOLE", value)
    with pytest.raises(DefinitionError, match=r"v\.database_path: .*percent-encoded") as caught:
        place_of("${WHOLE}", {}, "view v").parameters()
    assert "hid" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "backend"),
    [
        ({"path": "x", "database_path": "postgresql://h/d"}, Backend.PARQUET),
        ({"database_path": "postgres://h/d"}, Backend.POSTGRES),
        ({"database_path": "PostgreSQL://h/d"}, Backend.POSTGRES),
        ({"database_path": "ducklake:sqlite:x"}, Backend.DUCKLAKE),
        ({"database_path": "snowflake://acc"}, Backend.SNOWFLAKE),
        ({"database_path": "${PLACE}"}, Backend.POSTGRES),
    ],
)
def test_dispatch(fields: dict[str, str], backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "postgres://u:hidden-pw@h/d")
    assert backend_of(DataSourceDef(**fields), where="view v") is backend


@pytest.mark.parametrize("path", ["gs://bucket/x", "file:///x", "https://h/x.parquet", "s3a://bucket/x"])
def test_another_scheme_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(
        DefinitionError, match=r"view v .*source\.path: no Parquet is read from \w+://.*s3://"
    ):
        open_view(tmp_path, view({"path": path})).open()


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({}, "view v: the source names no place. Set source.path"),
        ({"database_path": "oracle://x"}, "no backend reads"),
    ],
)
def test_no_backend(fields: dict[str, str], what: str) -> None:
    with pytest.raises(DefinitionError, match=what):
        backend_of(DataSourceDef(**fields), where="view v")


def test_every_extension_is_usable_from_its_wheel() -> None:
    for status in extension_status():
        assert status.usable, status.problem
        assert status.install.startswith('pip install "duckdb-extension-')
