"""What goes wrong at a backend: a clear error in bounded time, earlier output intact, and no secret anywhere."""

from __future__ import annotations

import copy
import logging
import pickle
import re
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from daedalus.errors import DaedalusError, DefinitionError, SourceError
from daedalus.pipelines.explain import explain_pipeline
from daedalus.platform import describe
from daedalus.storage.sources import ducklake as ducklake_module
from daedalus.storage.sources import postgres as postgres_module
from daedalus.storage.sources import postgres_place
from integration.test_sources_snapshots import USER_ROWS, all_events
from pipelines.tiny import DAYS, EVENTS, SERVICE, USERS, users
from support.backends import DuckLake, ObjectStore, Postgres, open_view
from support.project import Project, write_project
from support.servers import CuttingProxy

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from support.servers import PostgresServer, S3Server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sources")]
BOUND_SECONDS = 150.0
WRONG = "wr0ng-p$ss"


def project_over(root: Path, backend: Any, people: pa.Table = USER_ROWS) -> Project:
    views = copy.deepcopy([EVENTS, USERS])
    for view, table in zip(views, (all_events(), people), strict=True):
        del view["source"]["path"]
        view["source"] |= backend.put(view["name"], table)
    return write_project(root, views=views, services=[SERVICE], data={})


@dataclass
class Check:
    """Runs that must fail well.

    Attributes:
        secrets: the values that no text may hold.
    """

    project: Project
    caplog: pytest.LogCaptureFixture
    secrets: tuple[str, ...] = ()
    finished: dict[Path, bytes] = field(default_factory=dict)

    def finish(self) -> None:
        """A run that goes well: what must be left of it."""
        self.project.run("s", DAYS[:1])
        out = self.project.root / "out" / "s" / "skeleton"
        self.finished = {path: path.read_bytes() for path in out.glob("dt=*/*")}
        assert self.finished

    def fails(self, what: str, *, views: str = "view (events|users)", **options: Any) -> DaedalusError:
        """A run ends in a SourceError that says `what`, names a view and a mend, and holds no secret."""
        self.caplog.set_level(logging.DEBUG)
        for loud in ("botocore", "urllib3"):  # the test's own clients
            self.caplog.set_level(logging.INFO, logger=loud)
        started = time.monotonic()
        with pytest.raises(SourceError, match=what) as caught:
            self.project.run("s", DAYS[:1], refresh=True, **options)
        assert time.monotonic() - started < BOUND_SECONDS
        error = caught.value
        assert re.search(views, error.where), error.where
        assert error.hint
        self.hides(
            error, error.to_dict(), pickle.dumps(error), caught.getrepr(style="long"), self.caplog.text
        )
        assert {path: path.read_bytes() for path in self.finished} == self.finished
        assert not list((self.project.root / "out").rglob(".new-*"))
        return error

    def hides(self, *texts: object) -> None:
        for text in texts:
            for secret in self.secrets:
                assert secret not in str(text)


@pytest.fixture
def postgres(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    return Postgres(postgres_server, monkeypatch)


@pytest.fixture
def store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    return ObjectStore(s3_server, monkeypatch)


# ------------------------------------------------------------------ Postgres


def test_postgres_refuses(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server, database = postgres.server, postgres.database
    check = Check(project_over(tmp_path, postgres), caplog, (server.password, WRONG))
    check.finish()
    with monkeypatch.context() as patch:
        patch.setenv("PG_PASSWORD", WRONG)
        check.fails("the database refuses the login: password authentication failed")
    with monkeypatch.context() as patch:
        patch.setenv("PG_PORT", "1")
        check.fails("the database does not answer")
    server.execute("CREATE ROLE guest LOGIN PASSWORD 'guest-pass'")
    with monkeypatch.context() as patch:
        patch.setenv("PG_USER", "guest")
        patch.setenv("PG_PASSWORD", "guest-pass")
        check.fails("the database user may not read this: permission denied for table events")
    server.execute("ALTER TABLE users RENAME COLUMN tier TO level", database)
    check.fails("has no column 'tier'", views="view users")
    server.execute("ALTER TABLE users RENAME TO people", database)
    check.fails('there is no such table: relation "public.users" does not exist', views="view users")


def test_postgres_breaks_off(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = postgres.server
    people = users(*((n, "2026-04-30 00:00", f"tier {n} " * 10) for n in range(20_000)))
    check = Check(project_over(tmp_path, postgres, people), caplog, (server.password,))
    check.finish()
    proxy = CuttingProxy(server.port, b'"tier"', 200_000)
    try:
        with monkeypatch.context() as patch:
            patch.setenv("PG_PORT", str(proxy.port))
            server.execute("UPDATE events SET event = event", postgres.database)
            check.fails("the connection to the database was cut", views="view users")
            assert proxy.cuts == 1
    finally:
        proxy.close()

    def lose_the_snapshot(progress: Any) -> None:
        if progress.message == "starting":
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE datname = '{postgres.database}' AND pid <> pg_backend_pid()"
            )

    check.fails("the snapshot that the run reads is gone", progress=lose_the_snapshot)


def test_postgres_keeps_silent(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = postgres.server
    check = Check(project_over(tmp_path, postgres), caplog, (server.password,))
    monkeypatch.setitem(postgres_place._PATIENCE, "connect_timeout", "2")
    monkeypatch.setattr(postgres_module, "_LOCK_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as deaf, monkeypatch.context() as patch:
        patch.setenv("PG_PORT", str(deaf.getsockname()[1]))
        check.fails("the database does not answer")
    locker = Locker(server, postgres.database)
    try:
        check.fails("another session holds a lock on the table", views="view events")
    finally:
        locker.close()
    check.finish()


class Locker:
    """Holds the lock of an ALTER TABLE that does not end."""

    def __init__(self, server: PostgresServer, database: str, table: str = "events") -> None:
        from daedalus.storage.duckdb_extensions import bare_connection, load_extensions

        self.connection = bare_connection()
        load_extensions(self.connection, "postgres")
        self.connection.execute(f"ATTACH '{server.url(database)}' AS pg (TYPE postgres)")
        self.connection.execute("BEGIN")
        lock = f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
        self.connection.execute("CALL postgres_execute('pg', ?)", [lock])

    def close(self) -> None:
        self.connection.rollback()
        self.connection.close()


# ------------------------------------------------------------------ object stores


def test_object_stores_refuse(
    tmp_path: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server, client = store.server, store.server.client()
    check = Check(project_over(tmp_path, store), caplog, (server.secret, WRONG))
    check.finish()
    server.key_ids = {server.key_id}
    with monkeypatch.context() as patch:
        patch.setenv("STORE_KEY", "AKIAWRONGKEY00000000")
        patch.setenv("STORE_SECRET", WRONG)
        check.fails(r"the access key is refused|access is denied")

    def forget_the_key(progress: Any) -> None:
        if progress.message == "starting":
            server.key_ids = {"another"}

    check.project.root.joinpath("feature_views/users.yaml").touch()
    store.put("users", users((1, "2026-04-30 00:00", "x")))
    check.fails("the object store refuses the keys", progress=forget_the_key)
    server.key_ids = set()

    def remove(progress: Any) -> None:
        if progress.message == "starting":
            client.delete_object(Bucket=store.bucket, Key="users/part-0.parquet")

    check.fails("an object that the run wants to read is gone", progress=remove)
    check.fails("holds no .parquet object", views="view users")
    for name in ("events", "users"):
        client.delete_object(Bucket=store.bucket, Key=f"{name}/part-0.parquet")
    client.delete_bucket(Bucket=store.bucket)
    check.fails("the bucket does not exist")


@pytest.mark.parametrize(("status", "what"), [(0, "stopped answering"), (503, "stopped answering")])
def test_an_object_store_breaks_off(
    status: int, what: str, tmp_path: Path, store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    check = Check(project_over(tmp_path, store), caplog, (store.server.secret,))
    check.finish()
    store.put("users", users((1, "2026-04-30 00:00", "x")))

    def fall_silent(progress: Any) -> None:
        if progress.message == "starting":
            store.server.fault = lambda request: status if "users" in request.path else None

    check.fails(what, views="view users|view events", progress=fall_silent)


# ------------------------------------------------------------------ lakes


def test_lakes_refuse(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lake = DuckLake(tmp_path, "duckdb")
    check = Check(project_over(tmp_path, lake), caplog)
    check.finish()
    with lake.connect() as writer:
        check.fails("the lake's catalog is locked by a writer")
        writer.execute("ALTER TABLE lake.users RENAME COLUMN tier TO level")
    check.fails("has no column 'tier'", views="view users")
    with lake.connect() as writer:
        writer.execute("DROP TABLE lake.users")
    check.fails("there is no such table", views="view users")
    (tmp_path / "data" / f"{lake.name}.db").rename(tmp_path / "elsewhere")
    check.fails("there is no DuckLake catalog")


def test_a_lakes_database_and_store_refuse(
    tmp_path: Path,
    postgres: Postgres,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lake = DuckLake(tmp_path, "postgres", store=store, database=postgres)
    check = Check(
        project_over(tmp_path, lake), caplog, (postgres.server.password, store.server.secret, WRONG)
    )
    check.finish()
    with monkeypatch.context() as patch:
        patch.setenv("PG_PASSWORD", WRONG)
        check.fails("the database refuses the login")
    monkeypatch.setenv("LAKE", postgres.server.url(postgres.database))
    for place in ("ducklake:${LAKE}", "ducklake:postgres:${LAKE}"):
        view = EVENTS | {"source": lake.source("events", database_path=place), "fields": EVENTS["fields"][:2]}
        assert len(open_view(tmp_path, view).rows(["event"])) == len(all_events())
    view["source"]["database_path"] = "ducklake:sqlite:${LAKE}"
    with pytest.raises(SourceError, match=r"there is no DuckLake catalog ducklake:sqlite:\$\{LAKE\}"):
        open_view(tmp_path, view).rows(["event"])
    monkeypatch.setattr(ducklake_module, "LOCK_SECONDS", 0.5)
    locker = Locker(postgres.server, postgres.database, "ducklake_snapshot")
    try:
        check.fails("another session holds a lock on the table")
    finally:
        locker.close()
    lake.put("more", USER_ROWS)  # another snapshot: the days are computed again
    store.server.key_ids = {"another"}
    check.fails("the object store refuses the keys")


# ------------------------------------------------------------------ secrets


def test_no_secret_is_shown_where_runs_are_explained(
    tmp_path: Path, postgres: Postgres, store: ObjectStore
) -> None:
    lake = DuckLake(tmp_path, "sqlite", store=store)
    views = copy.deepcopy([EVENTS, USERS])
    for view, backend, table in zip(views, (postgres, lake), (all_events(), USER_ROWS), strict=True):
        del view["source"]["path"]
        view["source"] |= backend.put(view["name"], table)
    project = write_project(tmp_path, views=views, services=[SERVICE], data={})
    check = Check(project, None, (postgres.server.password, store.server.secret))  # type: ignore[arg-type]
    run = project.run("s", [DAYS[0]])
    request = project.request("s", [DAYS[0]])
    explained = explain_pipeline(
        request.pipeline, catalog=request.catalog, config=request.run_config, day=request.target_dates[0]
    )
    assert "__postgres_" in explained.to_text()
    assert "__ducklake_" in explained.to_text()
    check.hides(explained.to_text(), explained.to_dict(), request.run_config.to_dict())
    check.hides(*map(describe, request.catalog.views.values()), describe(run.result))
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "out" in path.parts]
    assert files
    for path in files:
        for secret in check.secrets:
            assert secret.encode() not in path.read_bytes(), path


def test_an_unset_variable_is_named_with_its_field(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_over(tmp_path, postgres)
    monkeypatch.delenv("PG_PASSWORD")
    with pytest.raises(DefinitionError, match=r"view events .*database_path: .*PG_PASSWORD is not set"):
        project.run("s")


def test_two_keys_for_one_path_are_refused(
    tmp_path: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "AKIAOTHERKEY00000000")
    source = store.put("both", all_events())
    views = copy.deepcopy([EVENTS, USERS])
    for view, key in zip(views, ("STORE_KEY", "OTHER_KEY"), strict=True):
        credentials = source["credentials"] | {"key_id": f"${{{key}}}"}
        view["source"] |= source | {"credentials": credentials}
    views[1] |= {"field_mapping": {"ts": "updated_at", "event": "tier"}}
    project = write_project(tmp_path, views=views, services=[SERVICE], data={})
    with pytest.raises(DefinitionError, match=r"view users .*two views read s3://.* with different keys"):
        project.run("s")
