"""Snowflake as a source of record: Snowflake's own client against fakesnow on loopback."""

from __future__ import annotations

import datetime as dt
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daedalus.catalog.model import DataSourceDef, Entity, FeatureViewDef, FieldDef
from daedalus.errors import DefinitionError, ExecutionError, MissingExtraError, SourceError
from daedalus.pipelines.explain import explain_pipeline
from daedalus.storage.sources import _snowflake_client
from daedalus.storage.sources._snowflake_rows import SnowflakeColumn
from daedalus.storage.sources.base import TickRange
from daedalus.storage.sources.snowflake import SnowflakeSnapshot, SnowflakeSource
from pipelines.materializing import materialize
from pipelines.tiny import DAYS, EVENTS, ROWS, USERS, events, tiny, users

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.project import Project
    from support.snowflake_server import SnowflakeServer

pytestmark = pytest.mark.xdist_group("snowflake")

ALL_EVENTS = pa.concat_tables([events(rows) for rows in ROWS.values()])
ALL_USERS = users((1, "2026-04-01", "free"), (1, "2026-05-02 08:30", "pro"))


def us(text: str) -> int:
    return round(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp() * 1_000_000)


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        opened.execute("SET TimeZone = 'UTC'")
        yield opened


def view_of(
    server: SnowflakeServer, table: str = "", fields: dict[str, str] | None = None, **source: Any
) -> FeatureViewDef:
    """A view over a table, as the loader makes it."""
    raw = server.source(table, **source)
    credentials = tuple(sorted(raw.pop("credentials").items()))
    made = {"id": "BIGINT", **(fields or {})}
    return FeatureViewDef(
        name="v",
        file="v.yaml",
        entities=(Entity(name="e", keys=(("id", "BIGINT"),)),),
        fields=tuple(FieldDef(name=name, dtype=dtype) for name, dtype in made.items()),
        source=DataSourceDef(**raw, credentials=credentials),
    )


def on_snowflake(root: Path, server: SnowflakeServer, **more: Any) -> Project:
    """The tiny project with both views on Snowflake."""
    both = {
        name: {"source": view["source"] | server.source(server.table(data)) | {"path": ""}}
        for name, view, data in (("events_view", EVENTS, ALL_EVENTS), ("users_view", USERS, ALL_USERS))
    }
    for view in both.values():
        del view["source"]["path"]
    return tiny(root, **(both | more))


# ------------------------------------------------------------------ of record


@pytest.mark.slow
def test_a_service_over_snowflake_gives_the_bytes_that_parquet_gives(
    tmp_path: Path, snowflake_server: SnowflakeServer
) -> None:
    here, there = tiny(tmp_path / "local"), on_snowflake(tmp_path / "remote", snowflake_server)
    local, remote = here.run("s"), there.run("s")
    assert remote.hashes == local.hashes
    assert {day: remote.files(day) for day in DAYS} == {day: local.files(day) for day in DAYS}
    instants = [materialize(project, "s", "2026-05-03T00:00") for project in (here, there)]
    assert len({one.content_hash for one in instants}) == 1
    assert instants[0].row_count == 4


def test_backends_mix_in_one_service(tmp_path: Path, snowflake_server: SnowflakeServer) -> None:
    source = USERS["source"] | snowflake_server.source(snowflake_server.table(ALL_USERS))
    del source["path"]
    mixed = tiny(tmp_path / "mixed", users_view={"source": source}).run("s")
    assert mixed.hashes == tiny(tmp_path / "local").run("s").hashes


def test_a_run_reads_the_state_that_it_began_with(tmp_path: Path, snowflake_server: SnowflakeServer) -> None:
    project = on_snowflake(tmp_path / "remote", snowflake_server)
    changed: list[str] = []

    def change(kind: str, text: str) -> None:
        # After the run's first look at the source, before any day reads it.
        if kind == "query" and "AT(TIMESTAMP" in text and "LIMIT 0" not in text and not changed:
            changed.append(text)
            table = text.partition(" AT(")[0].rsplit(" ", 1)[-1].strip('"')
            snowflake_server.change(table, f'UPDATE "{table}" SET "event" = \'rewritten\'')

    snowflake_server.fault = change
    result = project.run("s")
    assert changed
    assert result.hashes == tiny(tmp_path / "local").run("s").hashes
    snowflake_server.fault = None
    assert result.result.days[0].state == "written"


def test_a_day_workers_copy_reads_the_parents_state(
    snowflake_server: SnowflakeServer, connection: duckdb.DuckDBPyConnection
) -> None:
    table = snowflake_server.table(pa.table({"id": [1]}))
    source = SnowflakeSource(view_of(snowflake_server, table), where="view v")
    source.snapshot()
    copy = pickle.loads(pickle.dumps(source))
    snowflake_server.change(table, f'INSERT INTO "{table}" VALUES (2)')
    copy.setup(connection)
    assert connection.execute(f"FROM {copy.relation_sql()}").fetchall() == [(1,)]
    later = SnowflakeSource(view_of(snowflake_server, table), where="view v")
    later.setup(connection)
    assert connection.execute(f"FROM {later.relation_sql()} ORDER BY 1").fetchall() == [(1,), (2,)]
    for one in (source, copy, later):
        one.close()


def test_a_query_is_a_source_too(tmp_path: Path, snowflake_server: SnowflakeServer) -> None:
    table = snowflake_server.table(ALL_USERS)
    query = f'SELECT "user_id", "updated_at", UPPER("tier") AS "tier" FROM "{table}";'
    source = USERS["source"] | snowflake_server.source(query=query)
    del source["path"]
    project = tiny(tmp_path / "q", users_view={"source": source})
    rows = project.run("s", [DAYS[1]]).rows(DAYS[1])
    assert {row["tier"] for row in rows} == {"FREE", "PRO"}
    pushed = [text for text in snowflake_server.statements if "UPPER" in text and "LIMIT 0" not in text]
    assert pushed
    assert all("TO_TIMESTAMP_NTZ('2026-05-03 00:00:00" in text for text in pushed)


# ------------------------------------------------------------------ pushdown, batches, spool


def test_columns_and_days_reach_snowflake(tmp_path: Path, snowflake_server: SnowflakeServer) -> None:
    on_snowflake(tmp_path, snowflake_server).run("s", [DAYS[1]])
    reads = [
        text
        for text in snowflake_server.statements
        if '"artwork_id"' in text and "LIMIT" not in text and "CREATE" not in text
    ]
    assert reads
    for text in reads:
        assert '"session"' in text
        assert '"score"' not in text
        assert "\"ts\" <= TO_TIMESTAMP_NTZ('2026-05-03 00:00:00.000000')" in text
        assert '"ts" >= TO_TIMESTAMP_NTZ(\'' in text


def test_explain_shows_the_remote_query_and_fetches_nothing(
    tmp_path: Path, snowflake_server: SnowflakeServer
) -> None:
    project = on_snowflake(tmp_path, snowflake_server)
    config = project.config()
    pipeline = project.pipeline("s")
    snowflake_server.statements.clear()
    explained = explain_pipeline(
        pipeline, catalog=project.catalog(config), config=config, day=dt.date.fromisoformat(DAYS[0])
    ).to_text()
    assert "Snowflake: SELECT " in explained
    assert "TO_TIMESTAMP_NTZ('2026-05-02 00:00:00.000000')" in explained
    for text in snowflake_server.statements:
        assert "LIMIT 0" in text or "CURRENT_TIMESTAMP" in text


def test_a_result_is_fetched_in_parts_and_never_held_whole(
    snowflake_server: SnowflakeServer, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 50_000
    table = snowflake_server.table(pa.table({"id": range(count), "x": [f"{n:020d}" for n in range(count)]}))
    snowflake_server.chunk_rows = 1_000
    batches: list[int] = []
    written = pq.ParquetWriter.write_table

    def watched(self: Any, batch: pa.Table, *rest: Any, **more: Any) -> None:
        batches.append(batch.num_rows)
        # At most the parts that are fetched ahead are there: the result was not collected first.
        assert len(snowflake_server.chunks) <= len(batches) + 4
        written(self, batch, *rest, **more)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", watched)
    source = SnowflakeSource(view_of(snowflake_server, table, {"x": "VARCHAR"}), where="view v")
    source.setup(connection)
    sql = source.relation_sql()
    assert connection.execute(f"SELECT count(*), sum(id), max(x) FROM {sql}").fetchone() == (
        count,
        count * (count - 1) // 2,
        f"{count - 1:020d}",
    )
    assert batches == [1_000] * 50
    assert source.relation_sql() == sql, "the same relation is fetched once"
    assert len(batches) == 50
    source.close()


def test_what_was_fetched_goes_with_its_connection(snowflake_server: SnowflakeServer) -> None:
    table = snowflake_server.table(pa.table({"id": [1, 2]}))
    source = SnowflakeSource(view_of(snowflake_server, table), where="view v")
    with duckdb.connect() as first:
        source.setup(first)
        folder = source._spools.path("x").parent
        source.relation_sql()
        assert list(folder.iterdir())
    with duckdb.connect() as second:
        source.setup(second)
        assert not folder.exists()
        last = source._spools.path("x").parent
    source.close()
    assert not last.exists()


def test_the_snapshot_is_recorded_and_travels_to_workers_without_secrets(
    snowflake_server: SnowflakeServer,
) -> None:
    table = snowflake_server.table(pa.table({"id": [1]}))
    source = SnowflakeSource(view_of(snowflake_server, table), where="view v")
    record = source.snapshot().record()
    assert record["place"] == f"snowflake://TESTACCOUNT/LAKE/EVENTS/{table}"
    assert record["one_state"]
    assert len(record["query_id"]) > 20
    pickled = pickle.dumps(source)
    assert snowflake_server.passphrase.encode() not in pickled
    assert b"PRIVATE KEY" not in pickled
    copy = pickle.loads(pickled)
    assert copy.snapshot() == source.snapshot()
    source.close()


def test_without_time_travel_each_statement_reads_the_newest_rows_and_the_record_says_so(
    snowflake_server: SnowflakeServer, connection: duckdb.DuckDBPyConnection
) -> None:
    table = snowflake_server.table(pa.table({"id": [1]}))
    snowflake_server.time_travel = False
    source = SnowflakeSource(view_of(snowflake_server, table), where="view v")
    assert source.snapshot().record() | {"query_id": "", "place": ""} == {
        "backend": "snowflake",
        "place": "",
        "query_id": "",
        "as_of": "",
        "one_state": False,
    }
    source.setup(connection)
    assert connection.execute(f"FROM {source.relation_sql()}").fetchall() == [(1,)]
    source.close()


def test_an_earlier_runs_state_can_be_read_again(
    snowflake_server: SnowflakeServer, connection: duckdb.DuckDBPyConnection
) -> None:
    table = snowflake_server.table(pa.table({"id": [1]}))
    view = view_of(snowflake_server, table)
    first = SnowflakeSource(view, where="view v")
    record = first.snapshot().record()
    snowflake_server.change(table, f'INSERT INTO "{table}" VALUES (2)')
    again = SnowflakeSource(view, where="view v", pin=record)
    again.setup(connection)
    assert connection.execute(f"FROM {again.relation_sql()}").fetchall() == [(1,)]
    assert again.snapshot().as_of == record["as_of"]
    snowflake_server.time_travel = False
    with pytest.raises(SourceError, match="time travel"):
        SnowflakeSource(view, where="view v", pin=record).snapshot()
    for one in (first, again):
        one.close()


def test_without_the_extra_the_error_is_the_install_line(
    snowflake_server: SnowflakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "snowflake.connector", None)
    with pytest.raises(MissingExtraError) as caught:
        SnowflakeSource(view_of(snowflake_server, "T"), where="view v").snapshot()
    assert caught.value.hint == 'pip install "daedalus[snowflake]"'


def test_only_a_snowflake_view_imports_the_connector(tmp_path: Path) -> None:
    code = (
        "import sys, daedalus.pipelines.executor, daedalus.storage.sources.snowflake;"
        "sys.exit('snowflake.connector' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path).returncode == 0


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    "name", ["feed_events", '"we ird"', '"quo""te"', '"ünï"', "events.feed2", "Lake.Events.Feed3"]
)
def test_table_names_as_snowflake_reads_them(
    snowflake_server: SnowflakeServer, connection: duckdb.DuckDBPyConnection, name: str
) -> None:
    last = name.rsplit(".", maxsplit=1)[-1]
    exact = last[1:-1].replace('""', '"') if last.startswith('"') else last.upper()
    snowflake_server.table(
        pa.table({"ID": [7], 'sp "ace é': [8]}), '"'.join(exact.split('"')).replace('"', '""')
    )
    source = SnowflakeSource(view_of(snowflake_server, name, {'sp "ace é': "BIGINT"}), where="view v")
    source.setup(connection)
    assert connection.execute(f"FROM {source.relation_sql()}").fetchall() == [(7, 8)]
    source.close()


def test_a_name_that_is_none_is_refused(snowflake_server: SnowflakeServer) -> None:
    source = SnowflakeSource(view_of(snowflake_server, "t; DROP TABLE x"), where="view v")
    with pytest.raises(DefinitionError, match="is no table name"):
        source.snapshot()


# ------------------------------------------------------------------ faults


def refused(server: SnowflakeServer, view: FeatureViewDef) -> SourceError:
    with pytest.raises(SourceError) as caught:
        SnowflakeSource(view, where="view v (v.yaml), source").snapshot()
    error = caught.value
    assert error.where.startswith("view v (v.yaml), source")
    assert error.__cause__ is None
    for secret in (server.passphrase, "PRIVATE KEY", "eyJ"):
        assert secret not in str(error)
    return error


def test_another_key_is_refused(snowflake_server: SnowflakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    monkeypatch.setenv("SNOWFLAKE_PRIVATE_KEY", snowflake_server.pem(other))
    monkeypatch.setenv("SNOWFLAKE_PASSPHRASE", "")
    error = refused(snowflake_server, view_of(snowflake_server, "T"))
    assert "JWT token is invalid" in error.what
    assert "RSA_PUBLIC_KEY" in error.hint


@pytest.mark.parametrize("broken", ["passphrase", "key", "file"])
def test_a_key_that_cannot_be_read(
    snowflake_server: SnowflakeServer, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    view = view_of(snowflake_server, "T")
    if broken == "passphrase":
        monkeypatch.setenv("SNOWFLAKE_PASSPHRASE", "wrong-" + snowflake_server.passphrase[::-1])
    elif broken == "key":
        monkeypatch.setenv("SNOWFLAKE_PRIVATE_KEY", "no key at all")
    else:
        credentials = (("private_key_path", "nowhere/key.p8"), ("user", "${SNOWFLAKE_USER}"))
        view = view_of(snowflake_server, "T", credentials=dict(credentials))
    assert "private key" in refused(snowflake_server, view).what


@pytest.mark.parametrize("form", ["pem", "one line", "base64", "file"])
def test_a_key_is_pem_text_or_base64_or_a_file(
    snowflake_server: SnowflakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str
) -> None:
    table = snowflake_server.table(pa.table({"id": [1]}))
    plain = snowflake_server.pem()
    text = {
        "pem": plain,
        "one line": plain.replace("\n", "\\n"),
        "base64": "".join(plain.splitlines()[1:-1]),
        "file": plain,
    }[form]
    monkeypatch.setenv("SNOWFLAKE_PRIVATE_KEY", text)
    credentials = {
        "user": "${SNOWFLAKE_USER}",
        "private_key": "${SNOWFLAKE_PRIVATE_KEY}",
        "endpoint": "${SNOWFLAKE_ENDPOINT}",
    }
    if form == "file":
        (tmp_path / "key.p8").write_text(text)
        monkeypatch.setenv("KEY_FILE", str(tmp_path / "key.p8"))
        del credentials["private_key"]
        credentials["private_key_path"] = "${KEY_FILE}"
    source = SnowflakeSource(view_of(snowflake_server, table, credentials=credentials), where="view v")
    assert source.snapshot().columns == {"id"}
    source.close()


def test_another_role_table_or_column(snowflake_server: SnowflakeServer) -> None:
    table = snowflake_server.table(pa.table({"id": [1]}))
    view = view_of(snowflake_server, table)
    other = dict(view.source.credentials) | {"role": "NOBODY"}
    assert "Role" in refused(snowflake_server, view_of(snowflake_server, table, credentials=other)).what
    missing = refused(snowflake_server, view_of(snowflake_server, "NO_SUCH_TABLE"))
    assert "NO_SUCH_TABLE" in missing.what
    assert "table_name" in missing.hint
    assert (
        "nope"
        in refused(
            snowflake_server, view_of(snowflake_server, query=f'SELECT nope FROM "{table}"')
        ).what.lower()
    )


def test_a_variable_that_is_not_set_is_named(
    snowflake_server: SnowflakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SNOWFLAKE_PRIVATE_KEY")
    source = SnowflakeSource(view_of(snowflake_server, "T"), where="view v (v.yaml), source")
    with pytest.raises(DefinitionError) as caught:
        source.snapshot()
    assert caught.value.where == "view v (v.yaml), source.private_key"
    assert "SNOWFLAKE_PRIVATE_KEY is not set" in caught.value.what


def test_a_password_is_no_way_in(snowflake_server: SnowflakeServer) -> None:
    view = view_of(snowflake_server, "T", credentials={"user": "${SNOWFLAKE_USER}", "password": "${PW}"})
    with pytest.raises(DefinitionError, match="key pair"):
        SnowflakeSource(view, where="view v").snapshot()


def test_a_column_renamed_at_the_source(tmp_path: Path, snowflake_server: SnowflakeServer) -> None:
    renamed = ALL_USERS.rename_columns(["user_id", "updated_at", "level"])
    source = USERS["source"] | snowflake_server.source(snowflake_server.table(renamed))
    del source["path"]
    with pytest.raises(ExecutionError, match="has no column 'tier'"):
        tiny(tmp_path, users_view={"source": source}).run("s")


@pytest.mark.parametrize("moment", ["chunk", "query"])
def test_a_connection_dropped_in_mid_result_leaves_the_days_before_as_they_were(
    tmp_path: Path, snowflake_server: SnowflakeServer, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(_snowflake_client, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(_snowflake_client, "REQUEST_SECONDS", 1)
    project = on_snowflake(tmp_path, snowflake_server)
    first = project.run("s", [DAYS[0]])
    before = first.files(DAYS[0])
    snowflake_server.chunk_rows = 1

    def drop(kind: str, text: str) -> None:
        if kind == moment and (kind == "chunk" or "LIMIT 0" not in text):
            raise ConnectionError

    snowflake_server.fault = drop
    with pytest.raises(SourceError) as caught:
        project.run("s", [DAYS[1]])
    assert "view events" in str(caught.value) or "view users" in str(caught.value)
    assert "finished days are kept" in caught.value.hint
    assert first.files(DAYS[0]) == before
    assert not first.folder(DAYS[1]).exists()
    snowflake_server.fault = None
    assert project.run("s", [DAYS[1]]).states == {DAYS[1]: "written"}


def test_a_server_that_is_gone(snowflake_server: SnowflakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from support.servers import free_port

    monkeypatch.setattr(_snowflake_client, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(_snowflake_client, "LOGIN_SECONDS", 1)
    monkeypatch.setenv("SNOWFLAKE_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    refused(snowflake_server, view_of(snowflake_server, "T"))


def test_a_range_on_each_kind_of_time_column(
    snowflake_server: SnowflakeServer, connection: duckdb.DuckDBPyConnection
) -> None:
    times = [dt.datetime.fromisoformat(f"2026-05-0{day} 12:00") for day in (1, 2, 3)]
    table = snowflake_server.table(
        pa.table(
            {
                "id": [1, 2, 3],
                "ntz": pa.array(times, pa.timestamp("us")),
                "tz": pa.array(times, pa.timestamp("us", "UTC")),
                "day": pa.array([one.date() for one in times], pa.date32()),
                "ms": [us(str(one)) // 1000 for one in times],
                "text": [str(one) for one in times],
            }
        )
    )
    import dataclasses

    base = view_of(
        snowflake_server, table, {"ntz": "TIMESTAMP", "tz": "TIMESTAMPTZ", "day": "DATE", "ms": "BIGINT"}
    )
    for column, found in (("ntz", [2]), ("tz", [2]), ("day", [2, 3]), ("ms", [2]), ("text", [1, 2, 3])):
        fields = (*base.fields, FieldDef(name="text", dtype="VARCHAR"))
        view = dataclasses.replace(
            base, fields=fields, source=dataclasses.replace(base.source, timestamp_field=column)
        )
        source = SnowflakeSource(view, where="view v")
        source.setup(connection)
        range_ = TickRange(low_us=us("2026-05-02 00:00"), high_us=us("2026-05-03 00:00"))
        rows = connection.execute(f"SELECT id FROM {source.relation_sql(range_)} ORDER BY id").fetchall()
        assert [row[0] for row in rows] == found, column
        source.close()


def test_the_bounds_of_a_range_are_exact_in_nanoseconds(
    snowflake_server: SnowflakeServer, connection: duckdb.DuckDBPyConnection
) -> None:
    # As a double, this instant in nanoseconds is 24 too many.
    low = us("2026-05-02 00:00") + 1
    at = [low * 1000 - 1, low * 1000, low * 1000 + 999, low * 1000 + 1001]
    table = snowflake_server.table(pa.table({"id": [1, 2, 3, 4], "ns": at}))
    view = view_of(snowflake_server, table, {"ns": "BIGINT"}, timestamp_field="ns", timestamp_unit="ns")
    source = SnowflakeSource(view, where="view v")
    source.setup(connection)
    relation = source.relation_sql(TickRange(low_us=low, high_us=low + 1))
    assert connection.execute(f"SELECT id FROM {relation} ORDER BY id").fetchall() == [(2,), (3,)]
    source.close()


def test_of_two_columns_that_differ_in_case_one_is_asked_for(snowflake_server: SnowflakeServer) -> None:
    source = SnowflakeSource(view_of(snowflake_server, "T"), where="view v")
    # DuckDB, which the server keeps its tables in, has no such table.
    columns = tuple(
        SnowflakeColumn(name=name, kind="FIXED", dtype="BIGINT", arrow=pa.int64(), shown="NUMBER(18,0)")
        for name in ("ID", "id")
    )
    source._snapshot = SnowflakeSnapshot(place="snowflake://a/T", query_id="1", as_of="", all_columns=columns)
    assert source.statement(columns=["id"]) == 'SELECT "id" FROM "T"'
