"""Each backend is a source of record: the same service over it gives the same bytes as over local Parquet."""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import itertools
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from pipelines.materializing import materialize
from support.backends import DuckLake, ObjectStore, Parquet, Postgres
from support.project import Project, write_project

if TYPE_CHECKING:
    from pathlib import Path

    from daedalus.pipelines.instants.materialize_run import MaterializationResult
    from support.project import Run
    from support.servers import PostgresServer, S3Server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sources")]

DAYS = ["2026-05-01", "2026-05-02"]
INSTANT = "2026-05-02T12:00"
START = dt.datetime.fromisoformat("2026-05-01")

VIEWS: list[dict[str, Any]] = [
    {
        "name": "events",
        "entity": ["user", "artwork"],
        "source": {"timestamp_field": "ts", "sequence_field": "seq"},
        "fields": [
            {"name": "seq", "dtype": "BIGINT"},
            {"name": "event", "dtype": "TEXT"},
            {"name": "price", "dtype": "DECIMAL(12,4)"},
            {"name": "ratio", "dtype": "DOUBLE"},
            {"name": "small", "dtype": "FLOAT"},
            {"name": "day", "dtype": "DATE"},
            {"name": "ok", "dtype": "BOOLEAN"},
            {"name": "tags", "dtype": "TEXT[]"},
            {"name": "only_null", "dtype": "INTEGER"},
        ],
    },
    {
        "name": "users",
        "entity": "user",
        "source": {"timestamp_field": "updated_at"},
        "field_mapping": {'the "user"': "user_id"},
        "fields": [
            {"name": "updated_at", "dtype": "TIMESTAMPTZ"},
            {"name": "größe, cm", "dtype": "INTEGER"},
        ],
    },
    {
        "name": "artworks",
        "entity": "artwork",
        "source": {},
        "fields": [{"name": "author", "dtype": "BIGINT"}],
    },
]
SERVICE: dict[str, Any] = {
    "name": "s",
    "version": "2026-05-01",
    "spine": "events",
    "views": [{"view": "users", "join": "asof"}, "artworks"],
    "aggregation_specs": [
        {
            "name": "liked",
            "group_by": ["user_id"],
            "timestamp_column": "ts",
            "value_column": "artwork_id",
            "operation": "list",
            "window_days": 2,
            "condition": "hist.event = 'like' AND hist.ratio > 0.1",
        }
    ],
    "columns": [
        "events:user_id",
        "events:artwork_id",
        *(f"events:{field['name']}" for field in VIEWS[0]["fields"]),
        "events:ts",
        "users:größe, cm",
        "users:updated_at",
        "artworks:author",
        "rolling:liked",
    ],
}


def tables() -> dict[str, pa.Table]:
    """Events of four days, two days before the first target's end, with every awkward value that all backends have."""
    count = 240
    numbers = range(count)
    ratios = itertools.cycle([0.1, float("nan"), float("inf"), -0.0, 1 / 3, 2.5, None])
    texts = itertools.cycle(["like", "view", "it's", "", "Äß 🎨", None])
    stamps = [START + dt.timedelta(minutes=24 * n - 1440, microseconds=n) for n in numbers]
    events = pa.table(
        {
            "seq": pa.array(numbers, pa.int64()),
            "ts": pa.array(stamps, pa.timestamp("us")),
            "user_id": pa.array([n % 7 for n in numbers], pa.int64()),
            "artwork_id": pa.array([n % 11 for n in numbers], pa.int64()),
            "event": pa.array([next(texts) for _ in numbers], pa.string()),
            "price": pa.array([decimal.Decimal(n) / 16 for n in numbers], pa.decimal128(12, 4)),
            "ratio": pa.array([next(ratios) for _ in numbers], pa.float64()),
            "small": pa.array([n / 3 for n in numbers], pa.float32()),
            "day": pa.array([stamp.date() for stamp in stamps], pa.date32()),
            "ok": pa.array([None if n % 5 == 0 else n % 2 == 0 for n in numbers], pa.bool_()),
            "tags": pa.array(
                [None if n % 6 == 0 else [f"t{n}", None] for n in numbers], pa.list_(pa.string())
            ),
            "only_null": pa.array([None] * count, pa.int32()),
        }
    )
    users = pa.table(
        {
            'the "user"': pa.array([n % 7 for n in range(30)], pa.int64()),
            "updated_at": pa.array(
                [START + dt.timedelta(hours=3 * n) for n in range(30)], pa.timestamp("us", tz="UTC")
            ),
            "größe, cm": pa.array([150 + n for n in range(30)], pa.int32()),
        }
    )
    artworks = pa.table(
        {"artwork_id": pa.array(range(9), pa.int64()), "author": pa.array(range(100, 109), pa.int64())}
    )
    return {"events": events, "users": users, "artworks": artworks}


def project_over(root: Path, backends: dict[str, Any]) -> Project:
    """The project with each view's rows at its backend."""
    views = copy.deepcopy(VIEWS)
    for view in views:
        view["source"] |= backends[view["name"]].put(view["name"], tables()[view["name"]])
    return write_project(root, views=views, services=[SERVICE], data={})


@pytest.fixture(scope="module")
def local_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project over local Parquet."""
    root = tmp_path_factory.mktemp("local")
    return project_over(root, dict.fromkeys(tables(), Parquet(root)))


@pytest.fixture(scope="module")
def local(local_project: Project) -> Run:
    """Its run."""
    return local_project.run("s", DAYS)


@pytest.fixture(scope="module")
def local_instant(local_project: Project) -> MaterializationResult:
    """Its materialization."""
    return materialize(local_project, "s", INSTANT)


def test_the_local_run_has_rows_to_compare(local: Run) -> None:
    rows = [row for day in DAYS for row in local.rows(day)]
    assert len(rows) == 120
    assert any(len(row["liked"]) > 1 for row in rows)
    assert any(row["größe, cm"] is not None for row in rows)
    assert {row["event"] for row in rows} == {"like", "view", "it's", "", "Äß 🎨", None}


BACKENDS = [
    "s3",
    "postgres",
    "postgres query",
    "lake duckdb",
    "lake postgres",
    "lake sqlite s3",
    "mixed",
    "mixed databases",
]


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_gives_the_same_bytes(
    name: str,
    local: Run,
    local_instant: MaterializationResult,
    tmp_path: Path,
    s3_server: S3Server,
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def store(scheme: str = "s3") -> ObjectStore:
        return ObjectStore(s3_server, monkeypatch, scheme)

    def postgres(*, as_query: bool = False) -> Postgres:
        return Postgres(postgres_server, monkeypatch, as_query)

    made: dict[str, Any] = {
        "s3": store,
        "postgres": postgres,
        "postgres query": lambda: postgres(as_query=True),
        "lake duckdb": lambda: DuckLake(tmp_path, "duckdb"),
        "lake postgres": lambda: DuckLake(tmp_path, "postgres", database=postgres()),
        "lake sqlite s3": lambda: DuckLake(tmp_path, "sqlite", store=store()),
    }
    if name == "mixed":
        backends = {
            "events": postgres(),
            "users": DuckLake(tmp_path, "sqlite", store=store()),
            "artworks": store("r2"),
        }
    elif name == "mixed databases":
        lake = DuckLake(tmp_path, "postgres", store=store(), database=postgres())
        backends = {"events": postgres(), "users": lake, "artworks": postgres()}
    else:
        backends = dict.fromkeys(tables(), made[name]())
    project = project_over(tmp_path, backends)
    run = project.run("s", DAYS)
    assert run.hashes == local.hashes
    assert [run.files(day) for day in DAYS] == [local.files(day) for day in DAYS]
    instant = materialize(project, "s", INSTANT)
    assert (instant.row_count, instant.content_hash) == (
        local_instant.row_count,
        local_instant.content_hash,
    )
    assert instant.row_count == 77


def test_relative_paths_under_a_bucket_give_the_same_bytes(
    local: Run, tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(s3_server, monkeypatch)
    for name, value in s3_server.environ().items():
        monkeypatch.setenv(name, value)
    views = copy.deepcopy(VIEWS)
    for view in views:
        store.put(f"the root's ünicode/{view['name']}", tables()[view["name"]])
        view["source"]["path"] = view["name"]
    runtime = {"data_root": f"s3://{store.bucket}/the root's ünicode/"}
    run = write_project(tmp_path, views=views, services=[SERVICE], data={}, runtime=runtime).run("s", DAYS)
    assert run.hashes == local.hashes
