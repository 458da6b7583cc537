"""The days of a run share one DuckDB, and none finds what another left; memory that is freed is kept for the next."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest

from daedalus.errors import DefinitionError
from daedalus.pipelines.days.resources import DUCKDB_SHARE, bytes_of, day_session
from daedalus.pipelines.days.workers import workers_for_day
from daedalus.pipelines.duckdb_session import ReusedDuckDB, connection_beside, fewer_threads
from daedalus.pipelines.run_sources import RunSources
from daedalus.pipelines.skeleton_run import day_context
from pipelines.tiny import DAYS, tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daedalus.pipelines.days.context import DayContext

_THERE = (
    "SELECT (SELECT count(*) FROM duckdb_tables()), (SELECT count(*) FROM duckdb_views() WHERE NOT internal), "
    "(SELECT count(*) FROM duckdb_secrets()), (SELECT count(*) FROM duckdb_databases() WHERE NOT internal)"
)
EMPTY = (0, 0, 0, 1)


@pytest.fixture
def database() -> Iterator[ReusedDuckDB]:
    with contextlib.closing(ReusedDuckDB()) as opened:
        yield opened


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The settings of every DuckDB that is opened."""
    real, seen = duckdb.connect, []

    def connect(*arguments: Any, **named: Any) -> duckdb.DuckDBPyConnection:
        seen.append(dict(named.get("config", {})))
        return real(*arguments, **named)

    monkeypatch.setattr(duckdb, "connect", connect)
    return seen


def _threads(connection: duckdb.DuckDBPyConnection) -> int:
    return int(connection.execute("SELECT current_setting('threads')").fetchall()[0][0])


def _table(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    connection.execute("""CREATE TABLE "a ""b" AS SELECT 1 AS n""")
    connection.execute("CREATE TABLE other (n INTEGER PRIMARY KEY)")


def _registered(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    connection.register("rows", pa.table({"n": [1]}))
    connection.execute("CREATE TEMP VIEW seen AS SELECT * FROM rows")
    connection.execute("CREATE TEMP TABLE kept AS SELECT * FROM rows")


def _of_another_connection(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    with connection_beside(connection) as beside:
        beside.execute("CREATE TABLE beside AS SELECT 1 AS n")


def _transaction(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE unfinished AS SELECT 1 AS n")


def _unread(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    connection.execute("CREATE TABLE long AS SELECT range AS n FROM range(200_000)")
    connection.execute("SELECT * FROM long").to_arrow_reader(1_000).read_next_batch()


def _attached(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    connection.execute(f"ATTACH '{folder / 'other.duckdb'}' AS other")


def _secret(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    connection.execute("CREATE SECRET mine (TYPE http, BEARER_TOKEN 'x')")


def _view(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    connection.execute("CREATE VIEW one AS SELECT 1 AS n")


@pytest.mark.parametrize(
    ("leaves", "databases"),
    [
        (_table, 1),
        (_registered, 1),
        (_of_another_connection, 1),
        (_transaction, 1),
        (_unread, 1),
        (_attached, 2),
        (_secret, 2),
        (_view, 2),
    ],
)
def test_a_session_finds_nothing_of_the_one_before(
    leaves: Callable[[duckdb.DuckDBPyConnection, Path], None],
    databases: int,
    database: ReusedDuckDB,
    opened: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    with database.session({"threads": "2"}) as connection:
        leaves(connection, tmp_path)
    with database.session({"threads": "2"}) as connection:
        assert connection.execute(_THERE).fetchall() == [EMPTY]
        with pytest.raises(duckdb.CatalogException):
            connection.execute("SELECT * FROM rows")
        assert connection.execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]
    assert len(opened) == databases


def test_other_settings_begin_anew(database: ReusedDuckDB, opened: list[dict[str, Any]]) -> None:
    for limit, threads in (("500MB", 2), ("500MB", 2), ("700MB", 1)):
        with database.session({"memory_limit": limit, "threads": str(threads)}) as connection:
            assert _threads(connection) == threads
    assert [one["memory_limit"] for one in opened] == ["500MB", "700MB"]


def _fail(database: ReusedDuckDB) -> None:
    with database.session({}) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
        raise ValueError("mine")


def test_after_an_error_duckdb_begins_anew(database: ReusedDuckDB, opened: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="mine"):
        _fail(database)
    with database.session({}) as connection:
        assert connection.execute(_THERE).fetchall() == [EMPTY]
    assert len(opened) == 2


def test_settings_that_duckdb_refuses_are_told_and_good_ones_may_follow(database: ReusedDuckDB) -> None:
    with pytest.raises(DefinitionError, match="refuses its configuration"), database.session({"thread": "2"}):
        pass
    with database.session({"threads": "2"}) as connection:
        assert _threads(connection) == 2


def test_the_spill_folder_lives_as_long_as_its_duckdb(database: ReusedDuckDB, tmp_path: Path) -> None:
    settings = {"temp_directory": str(tmp_path)}
    for _ in range(2):
        with database.session(settings):
            assert len(list(tmp_path.iterdir())) == 1
    database.close()
    assert list(tmp_path.iterdir()) == []


def test_rows_of_one_session_leave_the_memory_to_the_next(database: ReusedDuckDB, tmp_path: Path) -> None:
    # Each table takes more than half of the limit, and nothing may be spilled.
    settings = {"memory_limit": "200MB", "temp_directory": "", "threads": "2"}
    for _ in range(4):
        with database.session(settings) as connection:
            connection.execute("CREATE TABLE t AS SELECT hash(range) AS n FROM range(16_000_000)")
            assert connection.execute("SELECT count(*) FROM t").fetchall() == [(16_000_000,)]


def test_fewer_threads_are_told_only_where_there_are_more(database: ReusedDuckDB) -> None:
    with database.session({"threads": "2"}) as connection:
        for most, meanwhile in ((1, 1), (0, 1), (2, 2), (8, 2)):
            with fewer_threads(connection, most):
                assert _threads(connection) == meanwhile
            assert _threads(connection) == 2


# ---------------------------------------------------------------------- days


def test_a_run_opens_one_duckdb_for_its_days(tmp_path: Path, opened: list[dict[str, Any]]) -> None:
    project = tiny(tmp_path)
    assert set(project.run("s", DAYS).states.values()) == {"written"}
    limits = [one["memory_limit"] for one in opened if "memory_limit" in one]
    assert sum(limit.endswith("B") and limit[:-1].isdigit() for limit in limits) == 1


@contextlib.contextmanager
def _day(folder: Path, **duckdb_config: str) -> Iterator[DayContext]:
    project = tiny(folder)
    config = project.config(compute={"duckdb_config": duckdb_config})
    pipeline, catalog = project.pipeline("s"), project.catalog(config)
    with contextlib.closing(RunSources(catalog, config)) as sources:
        yield day_context(pipeline, catalog, config, sources, dt.date.fromisoformat(DAYS[0]))


def test_a_day_opens_duckdb_with_its_share_of_memory_and_the_threads_it_needs(tmp_path: Path) -> None:
    settings = {"memory_limit": "1GiB", "threads": "6"}
    with _day(tmp_path, **settings) as context, day_session(context) as (connection, resources):
        assert bytes_of(connection, "memory_limit") == pytest.approx(DUCKDB_SHARE * 2**30, rel=0.01)
        assert _threads(connection) == 1  # few rows, whose lookups are set beside them
        assert workers_for_day(context, 8) == 1
        assert resources.memory == pytest.approx(0.2 * 2**30, rel=0.01)
        assert dict(resources.duckdb_config) == context.config.duckdb_settings()


def test_without_a_limit_the_share_is_one_of_what_duckdb_would_take(
    database: ReusedDuckDB, tmp_path: Path
) -> None:
    with database.session({}) as connection:
        most = bytes_of(connection, "memory_limit")
    with _day(tmp_path, threads="2") as context, day_session(context, database.session) as (connection, _):
        assert bytes_of(connection, "memory_limit") == pytest.approx(DUCKDB_SHARE * most, rel=0.02)


# ---------------------------------------------------------------------- memory

_KEPT = """
import os, sys
from daedalus.pipelines.days.memory import give_back_memory, keep_freed_memory
import pyarrow as pa
before = pa.default_memory_pool().backend_name
keep_freed_memory()
table = pa.table({"n": pa.array(range(1000))})
give_back_memory()
print(before, pa.default_memory_pool().backend_name, table.num_rows)
"""


@pytest.mark.parametrize("chosen", ["", "mimalloc", "system"])
def test_arrow_takes_the_memory_that_the_c_library_keeps(chosen: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ARROW_")}
    if chosen:
        environment["ARROW_DEFAULT_MEMORY_POOL"] = chosen
    command = [sys.executable, "-c", _KEPT]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    before, after, rows = said.stdout.split()
    assert (after, rows) == (chosen or ("system" if sys.platform == "linux" else before), "1000")
