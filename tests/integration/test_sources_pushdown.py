"""A day's read asks the backend for that day and for the columns that are needed, and loses nothing at the edges."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from daedalus.storage.sources.base import TickRange
from support.backends import DuckLake, ObjectStore, Parquet, Postgres, open_view

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import PostgresServer, S3Server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sources")]

DAY_US = 86_400_000_000
START = dt.datetime.fromisoformat("2026-05-01")
START_US = 20_574 * DAY_US
DAY_2 = TickRange(low_us=START_US + DAY_US, high_us=START_US + 2 * DAY_US)
VIEW: dict[str, Any] = {
    "name": "events",
    "entity": "user",
    "source": {"timestamp_field": "ts"},
    "fields": [{"name": "event", "dtype": "TEXT"}, {"name": "wide", "dtype": "TEXT"}],
}


def day_table(day: int, rows: int = 20_000) -> pa.Table:
    first = START + dt.timedelta(days=day)
    return pa.table(
        {
            "ts": pa.array(
                [first + dt.timedelta(seconds=n % 86_400) for n in range(rows)], pa.timestamp("us")
            ),
            "user_id": pa.array(range(rows), pa.int64()),
            "event": pa.array(["like", "view"] * (rows // 2), pa.string()),
            "wide": pa.array([f"{n * 2_654_435_761 % 2**32:x}" * 6 for n in range(rows)], pa.string()),
        }
    )


def view_of(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    return VIEW | {"source": VIEW["source"] | source} | more


def sent(requests: list[Any]) -> dict[str, int]:
    """Bytes per object."""
    found: dict[str, int] = {}
    for request in requests:
        if request.method == "GET" and request.path.endswith(".parquet"):
            name = request.path.rpartition("/")[2]
            found[name] = found.get(name, 0) + request.sent
    return found


def test_s3_sends_one_days_object_and_one_columns_bytes(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(s3_server, monkeypatch)
    for day in range(3):
        source = store.put("events", day_table(day), f"dt={day}/day {day}.parquet", row_group_size=5_000)
    view = open_view(tmp_path, view_of(source))
    opened = view.open()
    opened.snapshot()  # two requests for each footer, once a run
    with s3_server.recorded() as requests:
        narrow = view_rows(view, opened, ["event"])
    with s3_server.recorded() as others:
        wide = view_rows(view, opened, ["event", "wide"])
    assert len(narrow) == len(wide) == 20_000
    # The schema is read from the first object's footer; the rows of no other day are.
    assert 2 * sent(requests)["day 1.parquet"] < sent(others)["day 1.parquet"]
    assert sum(size for name, size in sent(others).items() if name != "day 1.parquet") < 100_000
    assert all(request.range for request in requests if request.method == "GET" and "parquet" in request.path)


def view_rows(view: Any, source: Any, columns: list[str]) -> list[tuple[Any, ...]]:
    from daedalus.pipelines.duckdb_session import duckdb_session
    from daedalus.storage.view_reader import ViewReader

    with duckdb_session({}) as connection:
        source.setup(connection)
        reader = ViewReader(view.definition, source, connection, 1_000_000)
        return connection.execute(reader.select_sql(columns, DAY_2)).fetchall()


def test_a_lake_reads_one_days_file(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = DuckLake(tmp_path, "sqlite", store=ObjectStore(s3_server, monkeypatch))
    source = lake.put("events", day_table(0))
    with lake.connect() as connection:
        for day in (1, 2):
            connection.register("rows", day_table(day))
            connection.execute("INSERT INTO lake.events SELECT * FROM rows")
    view = open_view(tmp_path, view_of(source))
    opened = view.open()
    with s3_server.recorded() as requests:
        assert len(view_rows(view, opened, ["event"])) == 20_000
    assert len(sent(requests)) == 1
    assert sum(sent(requests).values()) < 300_000  # of 1.3 MB


@pytest.mark.parametrize("as_query", [False, True])
def test_postgres_is_asked_for_the_day_and_the_columns(
    as_query: bool, tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Postgres(postgres_server, monkeypatch, as_query)
    source = database.put("events", day_table(0, 100))
    view = open_view(tmp_path, view_of(source))
    with postgres_server.statements() as statements:
        assert (
            len(view.rows(["event"], TickRange(low_us=START_US + 10_000_000, high_us=START_US + DAY_US)))
            == 90
        )
    copies = [text for text in statements if text.startswith("COPY") and '"event"' in text]
    (copied,) = [text for text in copies if "pg_typeof" not in text]  # asked once, and of no row
    assert "2026-05-01 00:00:10" in copied
    assert "wide" not in copied
    assert not [text for text in statements if text.split()[0] in {"INSERT", "CREATE", "UPDATE", "DELETE"}]


EDGES = [-1, 0, 1, DAY_US - 1, DAY_US, DAY_US + 1]
KINDS: dict[str, tuple[pa.DataType, dict[str, Any]]] = {
    "TIMESTAMP": (pa.timestamp("us"), {}),
    "TIMESTAMPTZ": (pa.timestamp("us", tz="UTC"), {"fields": [{"name": "ts", "dtype": "TIMESTAMPTZ"}]}),
    "zone in the source only": (pa.timestamp("us", tz="UTC"), {}),
    "DATE": (pa.date32(), {}),
    "microseconds": (pa.int64(), {"unit": "us"}),
    "milliseconds": (pa.int64(), {"unit": "ms"}),
    "seconds": (pa.int32(), {"unit": "s"}),
}


def edge_values(arrow: pa.DataType, unit: str | None) -> list[Any]:
    instants = [START_US + DAY_US + edge for edge in EDGES]
    if unit is not None:
        return [instant // {"us": 1, "ms": 1_000, "s": 1_000_000}[unit] for instant in instants]
    moments = [START + dt.timedelta(microseconds=instant - START_US) for instant in instants]
    return [moment.date() for moment in moments] if arrow == pa.date32() else moments


def test_the_edges_of_a_day_are_those_of_local_parquet(
    tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {
        kind: pa.array([*edge_values(arrow, more.get("unit")), None], arrow)
        for kind, (arrow, more) in KINDS.items()
    }
    table = pa.table({"user_id": pa.array(range(len(EDGES) + 1), pa.int64()), **times})
    found: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for backend in (
        Parquet(tmp_path),
        Postgres(postgres_server, monkeypatch),
        Postgres(postgres_server, monkeypatch, as_query=True),
        DuckLake(tmp_path, "sqlite"),
    ):
        source = backend.put("events", table)
        for kind, (_, more) in KINDS.items():
            view = view_of(
                source | {"timestamp_unit": more.get("unit", "ms")},
                fields=more.get("fields", []),
                field_mapping={kind: "ts"},
            )
            found[kind].append(open_view(tmp_path, view).rows(["user_id", "ts"], DAY_2))
    for kind, (local, *others) in found.items():
        assert local, kind
        assert others == [local] * 3, kind


def test_a_numeric_without_bounds_comes_as_text(
    tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Postgres(postgres_server, monkeypatch)
    postgres_server.execute(
        "CREATE TABLE t (user_id bigint, n numeric, ns numeric[], ts timestamp);"
        "INSERT INTO t VALUES (1, 12345678901234567890.123456789, '{0.1,NULL}', '2026-05-02'), (2, NULL, NULL, NULL)",
        database.database,
    )
    view = {
        "name": "v",
        "entity": "user",
        "source": {"database_path": database.url, "table_name": "t", "timestamp_field": "ts"},
        "fields": [{"name": "n", "dtype": "DECIMAL(38,9)"}, {"name": "ns", "dtype": "TEXT[]"}],
    }
    opened = open_view(tmp_path, view)
    exact = decimal.Decimal("12345678901234567890.123456789")
    assert opened.rows(["user_id", "n", "ns"]) == [(1, exact, ["0.1", None]), (2, None, None)]
    assert opened.rows(["user_id", "n"], DAY_2) == [(1, exact)]
