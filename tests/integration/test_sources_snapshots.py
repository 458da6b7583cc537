"""A run reads one state of each source, says which, and a lake's can be read again."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daedalus.errors import SourceError
from daedalus.pipelines.days.relation_graph import as_execution_error
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.pipelines.executor import run_pipeline
from daedalus.pipelines.records import lake_pins, source_items
from daedalus.pipelines.run_sources import RunSources
from daedalus.platform import PlatformRegistry
from daedalus.platform.materialization import materialize
from daedalus.platform.records import list_runs
from daedalus.platform.reproduction import reproduce_run
from pipelines.tiny import DAYS, EVENTS, ROWS, SERVICE, USERS, events, users
from support.backends import DuckLake, ObjectStore, Postgres, open_view
from support.project import Project, Run, write_project

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import PostgresServer, S3Server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sources")]

LATE = (8, "2026-05-01 10:00", 1, 99, "like", "b")
USER_ROWS = users((1, "2026-04-30 00:00", "gold"), (2, "2026-05-01 08:30", "iron"))


def all_events(*more: tuple[Any, ...]) -> pa.Table:
    return pa.concat_tables([*(events(ROWS[day]) for day in DAYS), *([events(list(more))] if more else [])])


def project_over(root: Path, backend: Any, **source: Any) -> Project:
    """The tiny project with events and users at the backend."""
    views = copy.deepcopy([EVENTS, USERS])
    for view, table in zip(views, (all_events(), USER_ROWS), strict=True):
        del view["source"]["path"]
        view["source"] |= backend.put(view["name"], table) | source
    return write_project(root, views=views, services=[SERVICE], data={})


def manifest(run: Run, day: str) -> dict[str, Any]:
    return json.loads((run.folder(day) / "_manifest.json").read_text())


def add_late(server: PostgresServer, database: str) -> None:
    server.execute(
        "INSERT INTO events VALUES (8, '2026-05-01 10:00', 1, 99, 'like', 'b'); UPDATE users SET tier = 'lead'",
        database,
    )


def test_all_workers_of_a_run_read_one_postgres_snapshot(
    tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Postgres(postgres_server, monkeypatch)
    project = project_over(tmp_path, database)
    before = project.run("s", DAYS[:2])
    changed = []

    def change(progress: Any) -> None:
        if not changed:  # the days are known, none is computed
            changed.append(progress)
            add_late(postgres_server, database.database)

    (tmp_path / "out").rename(tmp_path / "first")
    with postgres_server.statements() as statements:
        during = project.run("s", DAYS[:2], progress=change, day_workers=2)
    assert changed
    assert during.hashes == before.hashes
    assert sum("pg_export_snapshot" in text for text in statements) == 1
    imported = {text.split("'")[1] for text in statements if "SET TRANSACTION SNAPSHOT" in text}
    record = manifest(during, DAYS[0])["fingerprint"]["snapshots"]["events"]["record"]
    assert imported == {record["snapshot"]}
    assert record | {"read_at": ""} == {
        "backend": "postgres",
        "place": database.url,
        "relation": "public.events",
        "snapshot": record["snapshot"],
        "visible": record["visible"],
        "lsn": record["lsn"],
        "read_at": "",
    }
    assert record["lsn"].count("/") == 1
    assert postgres_server.password not in json.dumps(manifest(during, DAYS[0]))

    again = project.run("s", DAYS[:2])
    assert set(again.states.values()) == {"up to date"}
    assert set(again.reasons.values()) == {
        "same definitions and files; databases are read again with --refresh"
    }
    refreshed = project.run("s", DAYS[:2], refresh=True)
    assert set(refreshed.reasons.values()) == {"the database of view events is read again"}
    assert refreshed.rows(DAYS[0])[-1]["artwork_id"] == 99
    # The second day's window reaches the late row: nothing of the old state was kept for it.
    assert 99 in refreshed.rows(DAYS[1])[0]["liked"]
    assert refreshed.rows(DAYS[1])[0]["tier"] == "lead"
    quiet = project.run("s", DAYS[:2], refresh=True)
    assert set(quiet.states.values()) == {"up to date"}


def test_a_servers_timeouts_do_not_end_a_run_that_computes_for_long(
    tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Postgres(postgres_server, monkeypatch)
    source = database.put("users", USER_ROWS)
    names = ("idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout")
    for name in names:
        postgres_server.execute(f"ALTER DATABASE {database.database} SET {name} = '1h'")
    postgres_server.execute(f"ALTER DATABASE {database.database} SET statement_timeout = '200ms'")
    slow = source | {"query": "SELECT *, pg_sleep(20)::text AS slow FROM users"}
    del slow["table_name"]
    asked = ", ".join(f"current_setting('{name}') AS {name}" for name in names)
    shared: dict[str, Any] = {}
    opened = open_view(tmp_path, USERS | {"source": source}).open(shared=shared)
    try:
        opened.snapshot()
        (keeper,) = shared.values()
        assert keeper.rows(f"SELECT {asked}") == [("0", "0", "0")]
        with duckdb_session({}) as connection:
            opened.setup(connection)
            alias = connection.execute(
                "SELECT database_name FROM duckdb_databases() WHERE type = 'postgres'"
            ).fetchall()[0][0]
            rows = connection.execute("FROM postgres_query(?, ?)", [alias, f"SELECT {asked}"]).fetchall()
            assert rows == [("0", "0", "0")]
    finally:
        opened.close()
    view = open_view(tmp_path, USERS | {"source": slow, "fields": [{"name": "slow", "dtype": "TEXT"}]})
    with pytest.raises(duckdb.Error) as caught:
        view.rows(["slow"])
    assert "longer than its statement_timeout" in str(as_execution_error(caught.value, "scan"))


def test_a_lake_run_is_repeated_at_its_snapshot(tmp_path: Path) -> None:
    lake = DuckLake(tmp_path, "sqlite")
    project = project_over(tmp_path, lake)
    first = project.run("s", DAYS[:1])
    record = manifest(first, DAYS[0])["fingerprint"]["snapshots"]["events"]["record"]
    with lake.connect() as connection:
        connection.register("late", events([LATE]))
        connection.execute("INSERT INTO lake.events SELECT * FROM late")
        connection.execute("ALTER TABLE lake.events ADD COLUMN score INTEGER DEFAULT 7")
        (newest,) = connection.execute("SELECT * FROM lake.current_snapshot()").fetchone()
    assert record["snapshot"] < newest
    sources = source_items([manifest(first, DAYS[0])["fingerprint"]], [])
    pins = lake_pins(json.loads(json.dumps(sources)))
    assert set(pins) == {"events", "users"}

    newer = project.run("s", DAYS[:1], refresh=True)
    assert newer.rows(DAYS[0])[-1]["artwork_id"] == 99
    assert newer.rows(DAYS[0])[0]["score"] == 7
    repeated = project.run("s", DAYS[:1], pins=pins, refresh=True)
    assert repeated.hashes == first.hashes

    for pinned in ({"version": record["snapshot"]}, {"as_of": record["committed_at"]}):
        root = tmp_path / next(iter(pinned))
        other = project_over_lake(root, lake, pinned)
        assert other.run("s", [DAYS[0]]).hashes == first.hashes


def test_a_materialization_of_a_lake_is_made_again_at_its_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = DuckLake(tmp_path, "sqlite")
    project = project_over(tmp_path, lake)
    monkeypatch.chdir(project.root)
    registry = PlatformRegistry.open()
    materialize(registry, "s", as_of="2026-05-13")
    with lake.connect() as connection:
        connection.register("late", events([LATE]))
        connection.execute("INSERT INTO lake.events SELECT * FROM late")
    newer = materialize(registry, "s", as_of="2026-05-13", output="newer")
    assert 99 in pq.read_table(f"{newer.path}/part-0-0.parquet", partitioning=None)["artwork_id"].to_pylist()
    first, second = list_runs(registry)[::-1]
    for run in (first, second):
        found = reproduce_run(registry, run["run_id"])
        assert (found.same, found.causes) == (True, ())


def project_over_lake(root: Path, lake: DuckLake, snapshot: dict[str, Any]) -> Project:
    views = copy.deepcopy([EVENTS, USERS])
    for view in views:
        view["source"] |= lake.source(view["name"], snapshot=snapshot)
        del view["source"]["path"]
    project = write_project(root, views=views, services=[SERVICE], data={})
    (root / "data").symlink_to(lake.root / "data")
    return project


@pytest.mark.parametrize("snapshot", [{"version": 999}, {"as_of": "2001-01-01"}])
def test_a_snapshot_that_a_lake_does_not_have_is_an_error(snapshot: dict[str, Any], tmp_path: Path) -> None:
    lake = DuckLake(tmp_path / "lake", "sqlite")
    lake.put("events", all_events())
    lake.put("users", USER_ROWS)
    project = project_over_lake(tmp_path, lake, snapshot)
    with pytest.raises(SourceError, match=r"view events .*the lake has no such snapshot.*source\.snapshot"):
        project.run("s", DAYS[:1])


def test_s3_objects_are_recorded_and_compared(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(s3_server, monkeypatch)
    project = project_over(tmp_path, store)
    first = project.run("s", DAYS[:1])
    (item,) = manifest(first, DAYS[0])["fingerprint"]["sources"]["users"]
    head = s3_server.client().head_object(Bucket=store.bucket, Key="users/part-0.parquet")
    assert item[0] == f"s3://{store.bucket}/users/part-0.parquet"
    assert (item[1], item[3]) == (head["ContentLength"], head["ETag"].strip('"'))
    config = project.config()
    sources = RunSources(project.catalog(config), config)
    sources.source("users")
    assert sources.records() == {
        "users": {
            "backend": "parquet",
            "files": [{"path": item[0], "bytes": item[1], "footer": item[2], "etag": item[3]}],
        }
    }
    assert set(project.run("s", DAYS[:1]).states.values()) == {"up to date"}
    store.put("users", users((1, "2026-04-30 00:00", "lead")))
    changed = project.run("s", DAYS[:1])
    assert changed.states == {DAYS[0]: "written"}
    assert changed.rows(DAYS[0])[0]["tier"] == "lead"


def test_an_object_that_changes_while_it_is_read_fails_the_day(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(s3_server, monkeypatch)
    project = project_over(tmp_path, store)

    def change(progress: Any) -> None:
        if progress.message == "aggregating and writing":
            store.put("users", users((1, "2026-04-30 00:00", "a longer name")))

    with pytest.raises(SourceError, match=r"users/part-0\.parquet was changed while the run was reading it"):
        run_pipeline(project.request("s", [DAYS[0]], progress=change))
    assert not list((tmp_path / "out" / "s" / "skeleton").glob("dt=*"))
