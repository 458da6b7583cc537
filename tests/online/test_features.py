"""What is online equals what the skeleton would write at that instant."""

from __future__ import annotations

import datetime as dt
import io
import json
import secrets
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daedalus.catalog.dtypes import to_arrow
from daedalus.cli.main import main
from daedalus.errors import DefinitionError
from daedalus.online import EVENT_TIME, OnlineStoreConfig, ReadRequest, RedisOnlineStore, table_of_view
from daedalus.online.json_values import typed
from daedalus.online.pushing import read_rows
from daedalus.platform import PlatformRegistry
from daedalus.platform.materialization import materialize_view
from daedalus.platform.online import get_online, online_service, online_store, push_online, rolling_plan
from daedalus.platform.online_loading import materialize_online
from pipelines.tiny import DAYS, EVENTS, ROWS, SERVICE, USERS, at, column, events, tiny, users
from support.oracle import rolling_oracle

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import RedisServer

pytestmark = pytest.mark.xdist_group("redis")
#: Not an instant of an event: there `asof` joins see what is before it, and online reads what is up to it.
INSTANT = "2026-05-02T08:31:00"
SPECS: list[dict[str, Any]] = [
    {"name": "liked", "value_column": "artwork_id", "operation": "list", "window_days": 3,
     "condition": "hist.event = 'like'"},
    {"name": "others", "value_column": "artwork_id", "operation": "list", "window_days": 2, "max_items": 2,
     "exclude_self": True},
    {"name": "seen", "operation": "count", "window_days": 3, "delay_seconds": 3600},
    {"name": "now", "operation": "count", "window_days": 1, "include_current": True},
    {"name": "kinds", "value_column": "event", "operation": "count_distinct", "window_days": 1},
    {"name": "total", "value_column": "score", "operation": "sum", "window_days": 0.05},
    {"name": "first", "value_column": "seq", "operation": "first", "window_days": 3},
    {"name": "since", "value_column": "seq", "operation": "seconds_since_last", "window_days": 3},
    {"name": "fans", "group_by": ["artwork_id"], "value_column": "user_id", "operation": "last", "window_days": 1},
    {"name": "pair", "group_by": ["user_id", "artwork_id"], "operation": "count"},
]  # fmt: skip
SPECS = [{"group_by": ["user_id"], "timestamp_column": "ts"} | one for one in SPECS]
ONLINE: dict[str, Any] = {
    "serving_allowed": True,
    "aggregation_specs": SPECS,
    "columns": [
        *(one for one in SERVICE["columns"] if not str(one).startswith("rolling:")),
        *(f"rolling:{one['name']}" for one in SPECS),
    ],
}


STATIC_SPECS: list[dict[str, Any]] = [
    {"name": "tiers", "value_column": "tier", "operation": "list", "window_days": 3},
    {"name": "free", "operation": "count", "window_days": 3, "condition": "hist.tier = 'free'"},
    {"name": "kinds_seen", "value_column": "kind", "operation": "list", "window_days": 3, "exclude_self": True},
    {"name": "tagged", "value_column": "tags", "operation": "flatten_distinct", "window_days": 3},
    {"name": "ever", "value_column": "kind", "operation": "count_distinct"},
]  # fmt: skip
STATIC_SPECS = [{"group_by": ["user_id"], "timestamp_column": "ts"} | one for one in STATIC_SPECS]
ITEMS: dict[str, Any] = {
    "name": "items",
    "entity": "artwork",
    "online": True,
    "source": {"path": "items", "timestamp_field": "made"},
    "fields": [{"name": "kind", "dtype": "TEXT"}, {"name": "tags", "dtype": "BIGINT[]"}],
}


def project(root: Path, server: RedisServer, rolling: str, **more: Any) -> PlatformRegistry:
    url = {"url": server.url, "namespace": f"t{secrets.token_hex(4)}"}
    service = ONLINE | {"online": {"rolling": rolling}} | more.pop("service", {})
    made = tiny(root, service=service, users_view={"online": True}, runtime={"online_store": url}, **more)
    return PlatformRegistry.open(made.root)


@pytest.mark.parametrize("rolling", ["events", "materialized"])
def test_what_is_read_is_what_is_materialized(
    tmp_path: Path, redis_server: RedisServer, rolling: str
) -> None:
    registry = project(tmp_path, redis_server, rolling)
    result, load = materialize_online(registry, "s", as_of=INSTANT)
    assert [one.rows for one in load.tables] == [1, 4]
    table = pq.ParquetFile(f"{result.path}/part-0-0.parquet").read()
    entities = table.select(["user_id", "artwork_id"]).to_pylist()
    found = get_online(registry, "s", entities, as_of=INSTANT)
    assert found.values.schema.equals(table.schema.remove_metadata())
    assert found.values.to_pylist() == table.to_pylist()
    assert found.origins["liked"] == ("events" if rolling == "events" else "service")
    assert found.origins["tier"] == "view users"
    assert found.version == SERVICE["version"]
    # A filter that keeps nothing leaves columns of no chunk.
    with online_service(registry, "s") as online:
        asked = online.request_table(entities)
        none = online.get(asked.filter(pa.array([False] * 4)))
        assert none.values.equals(found.values.slice(0, 0))
    # Done again, nothing is stored twice, and nothing is older.
    _, again = materialize_online(registry, "s", as_of=INSTANT)
    assert [(one.written, one.older) for one in again.tables] == [(1, 0), (4, 0)]
    assert set(again.events.values()) <= {0}


def test_a_spine_of_dates_is_read_at_the_instant_that_is_materialized(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    registry = project(
        tmp_path,
        redis_server,
        "events",
        events_view={"fields": [*EVENTS["fields"], {"name": "ts", "dtype": "DATE"}]},
        data={
            f"events/{day}.parquet": column("ts", [at(day)] * len(ROWS[day]), pa.date32(), day)
            for day in DAYS
        },
    )
    # Half a second past three midnights after the first events: out of the window, by less than a second.
    instant = "2026-05-04T00:00:00.500000"
    result, _ = materialize_online(registry, "s", as_of=instant)
    table = pq.ParquetFile(f"{result.path}/part-0-0.parquet").read()
    found = get_online(registry, "s", table.select(["user_id", "artwork_id"]).to_pylist(), as_of=instant)
    assert found.values.select(["liked", "seen"]).to_pylist() == table.select(["liked", "seen"]).to_pylist()


def test_a_window_that_is_rounded_up_keeps_its_oldest_event(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    start = int(dt.datetime(2026, 5, 2, 8, tzinfo=dt.UTC).timestamp())
    rows = events([(1, "2026-05-02", 1, 10, "view", "a"), (2, "2026-05-02", 1, 11, "view", "a")])
    registry = project(
        tmp_path,
        redis_server,
        "events",
        events_view={
            "source": EVENTS["source"] | {"timestamp_unit": "s"},
            "fields": [*EVENTS["fields"], {"name": "ts", "dtype": "BIGINT"}],
        },
        service={
            # 3602.88 s, which a column of seconds makes 3603
            "aggregation_specs": [
                {"name": "seen", "group_by": ["user_id"], "operation": "count", "window_days": 0.0417}
            ],
            "columns": ["events:user_id", "events:artwork_id", "rolling:seen"],
        },
        data={
            **{f"events/{day}.parquet": None for day in DAYS},
            "events/a.parquet": rows.set_column(1, "ts", pa.array([start, start + 3603], pa.int64())),
        },
    )
    instant = dt.datetime.fromtimestamp(start + 3603, dt.UTC)
    result, _ = materialize_online(registry, "s", as_of=instant)
    table = pq.ParquetFile(f"{result.path}/part-0-0.parquet").read()
    assert table["seen"].to_pylist() == [1, 1]
    found = get_online(registry, "s", table.select(["user_id", "artwork_id"]).to_pylist(), as_of=instant)
    assert found.values["seen"].to_pylist() == [1, 1]


def test_specs_that_find_the_same_events_by_other_columns_of_the_row(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    wishes = {
        "name": "wishes",
        "entity": "user",
        "source": {"path": "wishes", "timestamp_field": "made"},
        "fields": [{"name": "made", "dtype": "TIMESTAMP"}],
    }
    specs = [
        {"name": "own", "group_by": ["user_id"], "operation": "count", "history_view": "wishes"},
        {"name": "theirs", "group_by": ["artwork_id"], "operation": "count", "history_view": "wishes",
         "history_group_by": ["user_id"]},
        {"name": "seq_s", "group_by": ["seq"], "operation": "count", "history_view": "wishes",
         "history_group_by": ["user_id"]},
    ]  # fmt: skip
    asked = ["events:user_id", "events:artwork_id", "events:seq"]
    registry = project(
        tmp_path,
        redis_server,
        "events",
        service={
            "aggregation_specs": specs,
            "columns": [*asked, *(f"rolling:{one['name']}" for one in specs)],
        },
        events_view={"fields": [{"name": "seq", "dtype": "INTEGER"}, *EVENTS["fields"][1:]]},
        views=(wishes,),
        data={
            "wishes/a.parquet": pa.table(
                {
                    "user_id": pa.array([1, 1, 10, 10, 10, 12, 5], pa.int64()),
                    "made": pa.array([at(f"2026-04-0{n + 1}") for n in range(7)], pa.timestamp("us")),
                }
            )
        },
    )
    result, _ = materialize_online(registry, "s", as_of=INSTANT)
    table = pq.ParquetFile(f"{result.path}/part-0-0.parquet").read()
    assert table["theirs"].to_pylist() == [3, 0, 1, 0]
    rows = table.select(["user_id", "artwork_id", "seq"]).to_pylist()
    found = get_online(registry, "s", rows, as_of=INSTANT)
    assert found.values.to_pylist() == table.to_pylist()


def test_events_of_one_instant_are_in_the_order_of_their_view(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    # Without a sequence it goes on with the entity's keys, then with the other fields by name.
    shown = {
        "name": "shown",
        "entity": ["user", "artwork"],
        "source": {"path": "shown", "timestamp_field": "made"},
        "fields": [{"name": "about", "dtype": "TEXT"}],
    }
    specs = [
        {"name": "of_user", "group_by": ["user_id"], "value_column": "about", "operation": "list"},
        {"name": "of_artwork", "group_by": ["artwork_id"], "value_column": "about", "operation": "list"},
    ]
    registry = project(
        tmp_path,
        redis_server,
        "events",
        service={
            "aggregation_specs": [one | {"history_view": "shown"} for one in specs],
            "columns": ["events:user_id", "events:artwork_id", "rolling:of_user", "rolling:of_artwork"],
        },
        views=(shown,),
        data={
            "shown/a.parquet": pa.table(
                {
                    "user_id": pa.array([1, 1, 1, 2, 3], pa.int64()),
                    "artwork_id": pa.array([10, 11, 12, 10, 10], pa.int64()),
                    "about": ["z", "y", "x", "b", "a"],
                    "made": pa.array([at("2026-05-01")] * 5, pa.timestamp("us")),
                }
            )
        },
    )
    result, _ = materialize_online(registry, "s", as_of=INSTANT)
    table = pq.ParquetFile(f"{result.path}/part-0-0.parquet").read()
    assert table.slice(0, 1).select(["of_user", "of_artwork"]).to_pylist() == [
        {"of_user": ["z", "y", "x"], "of_artwork": ["z", "b", "a"]}
    ]
    found = get_online(registry, "s", table.select(["user_id", "artwork_id"]).to_pylist(), as_of=INSTANT)
    assert found.values.to_pylist() == table.to_pylist()


def test_a_curated_column_of_an_alias_is_the_materialized_one(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    registry = project(
        tmp_path,
        redis_server,
        "materialized",
        service={
            "views": [{"view": "users", "alias": "owner", "join": "asof"}],
            "curation": [{"name": "loud", "column": "owner__tier", "sql": "upper(owner__tier)"}],
            "columns": ["events:user_id", "events:artwork_id", {"name": "tier", "ref": "owner:tier"}],
            "aggregation_specs": [],
        },
    )
    materialize_online(registry, "s", as_of=INSTANT)
    found = get_online(registry, "s", [{"user_id": 1, "artwork_id": 10}], as_of=INSTANT)
    assert (found.values["tier"].to_pylist(), found.origins["tier"]) == (["PRO"], "service")


def test_defaults_stand_for_null_as_in_training(tmp_path: Path, redis_server: RedisServer) -> None:
    fields = [
        *USERS["fields"],
        {"name": "fee", "dtype": "DECIMAL(10,2)"},
        {"name": "tags", "dtype": "BIGINT[]"},
    ]
    filled = [
        {"ref": "users:tier", "default": "none", "nullable": False},
        {"ref": "users:fee", "default": 1, "nullable": False},
        {"ref": "users:tags", "default": [7], "nullable": False},
        {"ref": "rolling:last_score", "default": -1, "nullable": False},
    ]
    url = {"url": redis_server.url, "namespace": f"t{secrets.token_hex(4)}"}
    rows = users((1, "2026-04-01", "free"))
    rows = rows.append_column("fee", pa.array([Decimal("2.50")], pa.decimal128(10, 2)))
    made = tiny(
        tmp_path,
        users_view={"online": True, "fields": fields},
        service={
            "serving_allowed": True,
            "online": {"rolling": "events"},
            "aggregation_specs": [
                {"name": "last_score", "group_by": ["user_id"], "operation": "last", "value_column": "score"}
            ],
            "columns": ["events:user_id", "events:artwork_id", *filled],
        },
        data={"users/a.parquet": rows.append_column("tags", pa.array([None], pa.list_(pa.int64())))},
        runtime={"online_store": url},
    )
    registry = PlatformRegistry.open(made.root)
    result, _ = materialize_online(registry, "s", as_of=INSTANT)
    table = pq.ParquetFile(f"{result.path}/part-0-0.parquet").read()
    assert {"none", "free"} == set(table["tier"].to_pylist())
    found = get_online(registry, "s", table.select(["user_id", "artwork_id"]).to_pylist(), as_of=INSTANT)
    assert found.values.to_pylist() == table.to_pylist()
    assert found.origins["fee"] == "view users"


@pytest.mark.parametrize(
    ("dtype", "value", "until"),
    [
        ("DATE", dt.date(2026, 5, 2), "2026-05-02T01:00"),
        ("TIMESTAMP_S", at("2026-05-02 08:00:01"), "2026-05-02T08:00:01.300"),
        ("TIMESTAMP_MS", at("2026-05-02 08:00:00.001"), "2026-05-02T08:00:00.001300"),
    ],
)
def test_rows_up_to_an_instant_between_two_ticks_of_their_time(
    tmp_path: Path, dtype: str, value: Any, until: str
) -> None:
    times = pa.array([value, value + dt.timedelta(days=1)], to_arrow(dtype))
    view = {"online": True, "fields": [*USERS["fields"], {"name": "updated_at", "dtype": dtype}]}
    rows = users((1, "2026-05-01", "a"), (2, "2026-05-01", "b")).set_column(1, "updated_at", times)
    registry = PlatformRegistry.open(tiny(tmp_path, users_view=view, data={"users/a.parquet": rows}).root)
    with materialize_view(registry, "users", until) as snapshot:
        assert [row["tier"] for batch in snapshot.batches for row in batch.to_pylist()] == ["a"]


def test_static_columns_are_joined_to_events_and_candidates(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    registry = project(
        tmp_path,
        redis_server,
        "events",
        service={
            "views": [{"view": "users"}, {"view": "items"}],
            "static_columns": ["users:tier", "items:kind", "items:tags"],
            "aggregation_specs": STATIC_SPECS,
            "columns": [
                *(one for one in ONLINE["columns"] if not str(one).startswith("rolling:")),
                *(f"rolling:{one['name']}" for one in STATIC_SPECS),
            ],
        },
        views=(ITEMS,),
        data={
            # Of 12, nothing is known; of 10, a version of the future.
            "items/a.parquet": pa.table(
                {
                    "artwork_id": pa.array([10, 10, 11, 10], pa.int64()),
                    "made": pa.array([at(f"2026-0{n}-01") for n in (3, 4, 4, 6)], pa.timestamp("us")),
                    "kind": ["old", "photo", None, "future"],
                    "tags": pa.array([[1], [5, None, 6], [6, 7], [9]], pa.list_(pa.int64())),
                }
            )
        },
    )
    instant = "2026-05-02T09:30:00"
    result, _ = materialize_online(registry, "s", as_of=instant)
    table = pq.ParquetFile(f"{result.path}/part-0-0.parquet").read()
    found = get_online(registry, "s", table.select(["user_id", "artwork_id"]).to_pylist(), as_of=instant)
    assert found.values.to_pylist() == table.to_pylist()
    assert found.values.schema.equals(table.schema.remove_metadata())
    one = next(row for row in found.values.to_pylist() if (row["user_id"], row["artwork_id"]) == (1, 10))
    assert (one["kinds_seen"], one["tagged"], one["tiers"]) == ([], [7, 5, 6], ["pro"] * 4)
    assert found.origins["tagged"] == "events"
    # A user without events, and an item that is not known.
    nobody = get_online(registry, "s", [{"user_id": 9, "artwork_id": 99}], as_of=instant).values.to_pylist()
    assert (nobody[0]["tiers"], nobody[0]["free"]) == ([], 0)


def test_events_that_were_pushed_are_counted_at_once(tmp_path: Path, redis_server: RedisServer) -> None:
    registry = project(tmp_path, redis_server, "events")
    materialize_online(registry, "s", as_of=INSTANT)
    asked = [{"user_id": "1", "artwork_id": "99"}]
    before = get_online(registry, "s", asked, as_of="2026-05-02T10:00")
    assert before.values["liked"].to_pylist() == [[10, 12]]
    assert before.tables["service s"].statuses == ["missing"]
    assert before.values["score"].to_pylist() == [None]
    line = {"user_id": 1, "artwork_id": 99, "ts": "2026-05-02T11:30:00+02:00", "event": "like", "seq": 50}
    older = line | {"ts": "2026-05-02T07:00", "artwork_id": 98, "seq": 49}
    stream = io.BytesIO("\n".join(json.dumps(one) for one in (line, older, line)).encode())
    (rows,) = read_rows(registry.catalog.view("events"), stream)
    pushed = push_online(registry, "events", rows, as_of="2026-05-02T10:00")
    assert pushed.newest is None
    assert (pushed.events.added, pushed.events.known) == (6, 3)
    after = get_online(registry, "s", asked, as_of="2026-05-02T10:00")
    assert after.values["liked"].to_pylist() == [[10, 98, 12, 99]]
    assert after.values["others"].to_pylist() == [[11, 12]]
    assert after.values["pair"].to_pylist() == [1]


def test_a_view_that_was_pushed_is_read_at_once(tmp_path: Path, redis_server: RedisServer) -> None:
    registry = project(tmp_path, redis_server, "materialized")
    materialize_online(registry, "s", as_of=INSTANT)
    push_online(registry, "users", users((1, "2026-05-02 09:00", "team"), (1, "2026-04-30", "old")))
    push_online(registry, "users", users((1, "2026-05-03 09:00", "later")), as_of="2026-05-02T10:00")
    found = get_online(registry, "s", [{"user_id": 1, "artwork_id": 10}], as_of="2026-05-02T10:00")
    assert found.values["tier"].to_pylist() == ["team"]
    assert found.tables["users"].staleness_seconds.to_pylist() == [3600.0]


@pytest.mark.parametrize(
    ("dtype", "unit", "values"),
    [
        ("TIMESTAMP_NS", "ms", [at("2026-05-01"), at("2026-05-02 10:00:00.000001")]),
        ("DATE", "ms", [dt.date(2026, 5, 2), dt.date(2026, 5, 3)]),
        ("BIGINT", "ms", [0, 1_777_716_000_001]),
        ("UBIGINT", "s", [1_777_716_000, 1_777_716_001]),
    ],
)
def test_what_is_not_known_yet_is_not_read(
    tmp_path: Path, redis_server: RedisServer, dtype: str, unit: str, values: list[Any]
) -> None:
    instant = "2026-05-02T10:00"  # 1,777,716,000 s after 1970
    url = {"url": redis_server.url, "namespace": f"t{secrets.token_hex(4)}"}
    view = {
        "online": True,
        "source": {**USERS["source"], "created_field": "made", "timestamp_unit": unit},
        "fields": [*USERS["fields"], {"name": "made", "dtype": dtype}],
    }
    registry = PlatformRegistry.open(tiny(tmp_path, users_view=view, runtime={"online_store": url}).root)
    table = table_of_view(registry.catalog.view("users"))
    kind = to_arrow(dtype)
    known, late = (
        users((user, "2026-05-01", tier)).append_column("made", pa.array([made], kind))
        for user, tier, made in ((1, "known", values[0]), (2, "late", values[1]))
    )
    push_online(registry, "users", pa.concat_tables([known, late]), as_of=instant)
    request = ReadRequest(table=table, keys=[pa.array([1, 2], pa.int64())])
    with online_store(registry) as store:

        def statuses(when: str) -> list[str]:
            return store.read([request], as_of=dt.datetime.fromisoformat(when)).tables[0].statuses

        assert statuses(instant) == ["found", "missing"]
        push_online(registry, "users", late, as_of="2026-05-04", store=store)
        assert statuses(instant) == ["found", "not_yet"]
        assert statuses("2026-05-04") == ["found", "found"]


def test_what_was_pushed_ahead_of_the_source_is_not_pruned(tmp_path: Path, redis_server: RedisServer) -> None:
    registry = project(tmp_path, redis_server, "materialized")
    materialize_online(registry, "s", as_of=INSTANT)
    push_online(registry, "users", users((1, "2026-05-02 09:00", "team")))
    later = "2026-05-02T10:00"
    _, load = materialize_online(registry, "s", as_of=later, prune=True)
    assert [(one.older, one.pruned) for one in load.tables] == [(1, 0), (0, 0)]
    found = get_online(registry, "s", [{"user_id": 1, "artwork_id": 10}], as_of=later)
    assert found.values["tier"].to_pylist() == ["team"]


def test_entities_that_the_source_lost_are_pruned(tmp_path: Path, redis_server: RedisServer) -> None:
    registry = project(tmp_path, redis_server, "materialized")
    materialize_online(registry, "s", as_of=INSTANT)
    pq.write_table(users((2, "2026-04-01", "free")), tmp_path / "data/users/a.parquet")
    registry = PlatformRegistry.open(tmp_path)
    _, load = materialize_online(registry, "s", as_of="2026-05-02T09:00", prune=True)
    assert load.tables[0].pruned == 1
    asked = [{"user_id": user, "artwork_id": 10} for user in (1, 2)]
    found = get_online(registry, "s", asked, as_of="2026-05-02T10:00")
    assert found.tables["users"].statuses == ["deleted", "found"]
    assert found.values["tier"].to_pylist() == [None, "free"]


def test_an_interrupted_load_goes_on(tmp_path: Path, redis_server: RedisServer, monkeypatch: Any) -> None:
    from daedalus.online import loading

    registry = project(tmp_path, redis_server, "materialized")
    result, _ = materialize_online(registry, "s", as_of=INSTANT)
    monkeypatch.setattr(loading, "_NOTE_ROWS", 2)
    rows = pq.ParquetFile(f"{result.path}/part-0-0.parquet").read()
    time = pa.array([dt.datetime(2026, 5, 2, 8, 40, tzinfo=dt.UTC)] * 4, pa.timestamp("us", "UTC"))
    rows = rows.append_column(EVENT_TIME, time)
    with online_service(registry, "s") as online, online_store(registry) as store:
        table = online._table
        at = dt.datetime(2026, 5, 2, 9, tzinfo=dt.UTC)

        def batches(fail: bool) -> Any:
            for number in range(4):
                if fail and number == 3:
                    raise KeyboardInterrupt
                yield rows.slice(number, 1).combine_chunks().to_batches()[0]

        with pytest.raises(KeyboardInterrupt):
            loading.load_table(store, table, batches(True), as_of=at, sources="x")
        other = loading.load_table(store, table, batches(False), as_of=at, sources="y")
        assert other.resumed_at == 0
        with pytest.raises(KeyboardInterrupt):
            loading.load_table(store, table, batches(True), as_of=at, sources="x")
        again = loading.load_table(store, table, batches(False), as_of=at, sources="x")
        assert (again.resumed_at, again.rows, again.written) == (2, 4, 2)


@pytest.mark.parametrize(
    ("service", "what"),
    [
        ({"serving_allowed": False}, "may not be served"),
        ({"static_columns": ["users:tier"]}, "by `asof`, and the store has the newest rows alone"),
        ({"online": {"rolling": "sometimes"}}, "sometimes"),
    ],
)
def test_what_cannot_be_served_is_refused(
    tmp_path: Path, redis_server: RedisServer, service: dict[str, Any], what: str
) -> None:
    if "static_columns" in service:
        by_tier = STATIC_SPECS[0]
        service = service | {
            "aggregation_specs": [*SPECS, by_tier],
            "columns": [*ONLINE["columns"], "rolling:tiers"],
        }
    with pytest.raises(DefinitionError, match=what):
        materialize_online(project(tmp_path, redis_server, "events", service=service), "s", as_of=INSTANT)


def test_a_service_that_was_never_loaded_says_so(tmp_path: Path, redis_server: RedisServer) -> None:
    registry = project(tmp_path, redis_server, "events")
    with pytest.raises(DefinitionError, match="nothing of it is in the online store"):
        get_online(registry, "s", [{"user_id": 1}])
    materialize_online(registry, "s", as_of=INSTANT)
    with pytest.raises(DefinitionError, match="lacks 'artwork_id'"):
        get_online(registry, "s", [{"user_id": 1}])
    with pytest.raises(DefinitionError, match="does not fit int64"):
        get_online(registry, "s", [{"user_id": "one", "artwork_id": 1}])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "line 1: this is no JSON"),
        ("[" * 100_000, "line 1: this is no JSON"),
        ('{"user_id": 1}\n[1]', "line 2: this is no JSON object"),
        ('{"user_idd": 1}', "user_id"),
        ('{"user_id": 1}\n\n{"user_id": "x"}', "line 3: 'user_id' does not fit int64"),
        ('{"user_id": 2.5}', "2.5 is no whole number"),
        ('{"user_id": 1, "artwork_id": 2, "ts": 1777600000}', "1777600000 is no time"),
        ('{"user_id": 1, "artwork_id": 2, "ts": true}', "True is no time"),
        ('{"user_id": 1}', "the rows lack 'artwork_id'"),
    ],
)
def test_what_does_not_fit_is_not_pushed(
    tmp_path: Path, redis_server: RedisServer, text: str, what: str
) -> None:
    registry = project(tmp_path, redis_server, "events")
    rows = read_rows(registry.catalog.view("events"), io.BytesIO(text.encode()))
    with pytest.raises(DefinitionError, match=what):
        push_online(registry, "events", next(rows))


def test_values_of_json_are_read_in_their_types() -> None:
    kind = pa.list_(pa.struct([("a", pa.int64()), ("t", pa.timestamp("us")), ("d", pa.date32())]))
    value = [{"a": 1.0, "t": "2026-01-01T02:00:00+02:00", "d": "2026-01-02"}, None]
    (row,) = typed([value], kind, "x").to_pylist()
    assert row == [{"a": 1, "t": at("2026-01-01"), "d": dt.date(2026, 1, 2)}, None]
    assert typed([1.5, "2.25", None], pa.decimal128(9, 3), "x").to_pylist() == [
        Decimal("1.5"),
        Decimal("2.25"),
        None,
    ]
    assert str(typed(["NaN", 1, "-Infinity"], pa.float64(), "x").to_pylist()) == "[nan, 1.0, -inf]"
    for wrong in ([{"a": 1.5}], [{"b": 1}], [{"t": 5}], [{"t": "x"}], {"a": 1}):
        with pytest.raises(DefinitionError, match="'x' does not fit"):
            typed([wrong], kind, "x")


def test_the_commands(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    project(tmp_path, redis_server, "events")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAEDALUS_CONFIG", str(tmp_path / "operator.toml"))

    def run(*arguments: str) -> Any:
        code = main([*arguments, "--format", "json"])
        return code, json.loads(capsys.readouterr().out)

    code, made = run("materialize", "s", "--online", "--as-of", INSTANT)
    assert (code, [one["rows"] for one in made["online"]["tables"]]) == (0, [1, 4])
    line = b'{"user_id": 1, "artwork_id": 5, "ts": "2026-05-02T08:29:00", "event": "like", "seq": 70}\n'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(line)))
    code, pushed = run("online", "push", "events", "--as-of", INSTANT)
    assert (code, pushed["rows"], pushed["events_added"]) == (0, 1, 3)
    code, found = run("online", "get", "s", "--key", "user_id=1,artwork_id=10", "--as-of", INSTANT)
    assert (code, found["rows"][0]["values"]["liked"]) == (0, [10, 12, 5])
    assert found["rows"][0]["tables"]["users"]["status"] == "found"
    assert main(["online", "get", "s", "--key", "user_id=1,artwork_id=10"]) == 0
    assert "view users" in capsys.readouterr().out
    line = b'{"user_id": 8, "artwork_id": 5, "ts": "2026-05-02T08:29", "event": "\\u001b[2J", "seq": 71}'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(line)))
    assert main(["online", "push", "events", "--as-of", INSTANT]) == 0
    assert main(["online", "get", "s", "--key", "user_id=8,artwork_id=5,event=\x1b[2J"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\\x1b[2J" in shown
    code, health = run("online", "health")
    assert (code, health["tables"]["service:s"]["rows"]) == (0, 4)
    assert main(["online", "get", "s", "--key", "user_id"]) == 2


# ------------------------------------------------------------------ the law


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Any:
    registry = project(tmp_path_factory.mktemp("law"), redis_server, "events")
    return rolling_plan(registry, "s"), OnlineStoreConfig(url=redis_server.url)


_HOURS = st.integers(0, 96).map(lambda one: dt.datetime(2026, 5, 1) + dt.timedelta(minutes=30 * one))  # noqa: DTZ001
_EVENT = st.fixed_dictionaries(
    {
        "user_id": st.integers(1, 2),
        "artwork_id": st.integers(1, 3),
        "ts": _HOURS,
        "event": st.sampled_from([None, "like", "view"]),
        "session": st.none(),
        "score": st.none() | st.integers(-5, 5),
    }
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=40)
@given(data=st.data())
def test_rolling_features_are_those_of_the_definition(plan: Any, data: st.DataObject) -> None:
    rolling, config = plan
    rows = data.draw(st.lists(_EVENT, max_size=12))
    rows = [one | {"seq": number} for number, one in enumerate(rows)]
    instant = data.draw(_HOURS)
    asked = data.draw(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=4))
    schema = pa.schema(
        {"user_id": pa.int64(), "artwork_id": pa.int64(), "ts": pa.timestamp("us"), "event": pa.string(),
         "session": pa.string(), "score": pa.int32(), "seq": pa.int64()}
    )  # fmt: skip
    # Nothing of the future has been pushed yet; what has been came in any order, and some of it twice.
    past = [one for one in rows if one["ts"] <= instant]
    pushes = data.draw(st.permutations(past + past[:2]))
    store = RedisOnlineStore(OnlineStoreConfig(url=config.url, namespace=f"t{secrets.token_hex(6)}"))
    at = instant.replace(tzinfo=dt.UTC)
    for start in range(0, len(pushes), 5):
        table = pa.Table.from_pylist(pushes[start : start + 5], schema=schema)
        table = table.append_column(EVENT_TIME, table["ts"].cast(pa.timestamp("us", "UTC")))
        for index in rolling.all_indexes():
            store.append_events(index, table, as_of=at)
    request = pa.table({"user_id": [one[0] for one in asked], "artwork_id": [one[1] for one in asked]})
    now = round(at.timestamp() * 1_000_000)
    answer = store.read([], events=rolling.requests(request, now), as_of=at)
    found = rolling.columns(request, answer.events, now)
    store.close()

    history = pa.Table.from_pylist(sorted(rows, key=lambda one: (one["ts"], one["seq"])), schema=schema)
    spine = request.append_column("ts", pa.array([instant] * len(asked), pa.timestamp("us")))
    specs = [one | {"history_view": "events"} for one in SPECS]
    expected = rolling_oracle(spine, specs, history={"events": history})
    for spec in SPECS:
        assert found[spec["name"]].to_pylist() == expected[spec["name"]].to_pylist(), spec["name"]
        assert found[spec["name"]].type == expected[spec["name"]].type
