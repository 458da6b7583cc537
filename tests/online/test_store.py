"""The store on a real server: which row stays, what a reader sees, and what happens when the server goes away."""

from __future__ import annotations

import datetime as dt
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from daedalus.errors import DefinitionError, ExecutionError
from daedalus.online import (
    EVENT_TIME,
    OnlineStoreConfig,
    OnlineTable,
    ReadRequest,
    RedisOnlineStore,
    metrics_text,
)
from daedalus.online.layout import RecordLayout
from support.servers import RedisServer, free_port

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("redis")
T0 = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
FIELDS = [("age", "BIGINT"), ("name", "VARCHAR"), ("seq", "BIGINT")]


def hour(number: float) -> dt.datetime:
    return T0 + dt.timedelta(hours=number)


def table(name: str = "people", fields: Any = FIELDS, **settings: Any) -> OnlineTable:
    layout = RecordLayout(f"view {name}", keys=[("user_id", "BIGINT")], fields=fields)
    return OnlineTable(kind="view", name=name, layout=layout, **settings)


def rows(*values: tuple[Any, ...]) -> pa.Table:
    """(user_id, event hour, age, name, seq)"""
    schema = {"user_id": pa.int64(), "age": pa.int64(), "name": pa.string(), "seq": pa.int64()}
    columns = {
        "user_id": [one[0] for one in values],
        "age": [one[2] for one in values],
        "name": [one[3] if len(one) > 3 else "x" for one in values],
        "seq": [one[4] if len(one) > 4 else None for one in values],
    }
    times = [None if one[1] is None else hour(one[1]) for one in values]
    arrays = {name: pa.array(columns[name], kind) for name, kind in schema.items()}
    return pa.table({**arrays, EVENT_TIME: pa.array(times, pa.timestamp("us", "UTC"))})


def read(store: RedisOnlineStore, of: OnlineTable, ids: list[int | None], at: float) -> Any:
    request = ReadRequest(table=of, keys=[pa.array(ids, pa.int64())])
    return store.read([request], as_of=hour(at)).tables[0]


def ages(store: RedisOnlineStore, of: OnlineTable, ids: list[int | None], at: float = 99) -> list[Any]:
    return list(read(store, of, ids, at).values.column("age").to_pylist())


def test_an_older_event_changes_nothing_and_an_equal_one_is_replaced(store: RedisOnlineStore) -> None:
    people = table()
    assert store.write(people, rows((1, 5, 50), (2, 5, 50), (3, 5, 50))).written == 3
    counts = store.write(people, rows((1, 4, 40), (2, 5, 51), (3, 6, 60), (None, 6, 1)))
    assert (counts.written, counts.older, counts.skipped) == (2, 1, 1)
    assert ages(store, people, [1, 2, 3]) == [50, 51, 60]


@pytest.mark.parametrize("settings", [{}, {"ttl_seconds": 10 * 86_400.0}])
def test_of_one_write_the_newest_row_of_an_entity_stays(
    store: RedisOnlineStore, settings: dict[str, Any]
) -> None:
    people = table(**settings)
    counts = store.write(
        people, rows((1, 5, 50), (2, 1, 10), (1, 3, 30), (2, 9, 90), (2, 4, 40), (1, 5, 51)), as_of=hour(9)
    )
    assert (counts.written, counts.older) == (4, 2)
    assert ages(store, people, [1, 2]) == [51, 90]


def test_created_and_sequence_tell_rows_of_one_instant_apart(store: RedisOnlineStore) -> None:
    people = table(sequence_field="seq")
    store.write(people, rows((1, 5, 50, "x", 2)))
    store.write(people, rows((1, 5, 49, "x", 1), (2, 5, 7, "x", -1)))
    store.write(people, rows((2, 5, 8, "x", None)))
    assert ages(store, people, [1, 2]) == [50, 7]


def test_missing_expired_deleted_and_newer_rows_are_told_apart(store: RedisOnlineStore) -> None:
    people = table(ttl_seconds=3600.0)
    store.write(people, rows((1, 1, 10), (2, 2, 20), (3, 1, 30), (4, 9, 40), (5, None, 50)), as_of=hour(1))
    store.delete(people, [pa.array([3])], at=hour(2))
    found = read(store, people, [1, 2, 3, 4, 5, 6, None, 2], 2.5)
    assert found.statuses == [
        "expired", "found", "deleted", "not_yet", "found", "missing", "missing", "found",
    ]  # fmt: skip
    assert found.values.column("age").to_pylist() == [None, 20, None, None, 50, None, None, 20]
    assert found.staleness_seconds.to_pylist()[1] == 1800.0
    assert found.event_times.to_pylist()[1] == hour(2)
    assert found.event_times.to_pylist()[4:7] == [None] * 3
    assert found.write_times.to_pylist()[5] is None
    # A value is valid at exactly its ttl, and visible at exactly its event time.
    assert read(store, people, [2], 3).statuses == ["found"]
    assert read(store, people, [2], 2).statuses == ["found"]


def test_a_deleted_entity_comes_back_by_a_later_event_only(store: RedisOnlineStore) -> None:
    people = table()
    store.write(people, rows((1, 1, 10)))
    store.delete(people, [pa.array([1])], at=hour(3))
    store.write(people, rows((1, 2, 20)))
    assert read(store, people, [1], 9).statuses == ["deleted"]
    store.write(people, rows((1, 4, 40)))
    assert ages(store, people, [1]) == [40]


def test_a_delay_hides_rows_that_have_not_arrived(store: RedisOnlineStore) -> None:
    people = table(delay_seconds=3600.0)
    store.write(people, rows((1, 2, 20)))
    assert [read(store, people, [1], at).statuses[0] for at in (2.99, 3)] == ["not_yet", "found"]


def test_a_mix_of_tables_takes_one_round_trip(store: RedisOnlineStore) -> None:
    first, other = table("a"), table("b")
    store.write(first, rows((1, 1, 10)))
    store.write(other, rows((1, 1, 11), (2, 1, 21)))
    requests = [ReadRequest(table=one, keys=[pa.array([1, 2])]) for one in (first, other, first)]
    before = store._client.info("stats")["total_commands_processed"]
    found = store.read(requests, as_of=hour(2))
    # The second INFO counts itself not yet, the first one does.
    assert store._client.info("stats")["total_commands_processed"] - before == 2
    assert [one.values.column("age").to_pylist() for one in found.tables] == [
        [10, None],
        [11, 21],
        [10, None],
    ]


def test_records_of_an_older_schema_are_read_as_such(store: RedisOnlineStore) -> None:
    old = table()
    store.write(old, rows((1, 1, 10), (2, 1, 20)))
    new = table(fields=[("name", "VARCHAR"), ("added", "DOUBLE"), ("age", "SMALLINT")])
    fresh = rows((2, 2, 21)).drop_columns(["age", "seq"])
    fresh = fresh.append_column("age", pa.array([21], pa.int16())).append_column("added", pa.array([0.5]))
    store.write(new, fresh)
    expected = [
        {"name": "x", "added": None, "age": 10},
        {"name": "x", "added": 0.5, "age": 21},
        {"name": None, "added": None, "age": None},
    ]
    assert read(store, new, [1, 2, 3], 9).values.to_pylist() == expected
    # And a reader that has not been deployed yet reads the newer record.
    assert ages(store, old, [1, 2, 3]) == [10, 21, None]


def test_what_others_wrote_is_an_error(store: RedisOnlineStore) -> None:
    people = table()
    store.write(people, rows((1, 1, 10)))
    for foreign in (b"", b"hello", b"\x02" + b"x" * 100, b"\x01" + b"y" * 100):
        store._client.set(store.table_prefix(people) + b"2", foreign)
        with pytest.raises(ExecutionError, match="cannot be read"):
            ages(store, people, [1, 2])
    store._client.set(store.table_prefix(people) + b"2", b"hello")
    with pytest.raises(ExecutionError, match="is no record of this version"):
        store.write(people, rows((2, 1, 10)))


def test_two_writers_never_go_back_in_time(store: RedisOnlineStore, redis_server: RedisServer) -> None:
    people = table()
    store.write(people, rows((0, -1, 0)))

    def write(hours: list[int]) -> None:
        own = RedisOnlineStore(store.config)
        for one in hours:
            own.write(people, rows(*((user, one, one * 100 + user) for user in range(50))))
        own.close()

    orders = ([*range(0, 40, 2)], [*range(39, 0, -2)])
    newest = -1
    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, hours) for hours in orders]
        while not all(one.done() for one in writers):
            age = ages(store, people, [0])[0]
            assert age >= newest
            newest = age
        for one in writers:
            one.result()
    assert ages(store, people, list(range(50))) == [3900 + user for user in range(50)]


def test_a_server_that_comes_back_is_used_again_and_nothing_older_wins(tmp_path: Path) -> None:
    server = RedisServer(free_port(), tmp_path, append_only=True)
    server.start()
    store = RedisOnlineStore(OnlineStoreConfig(url=server.url, retries=1, timeout_seconds=10))
    people = table()
    try:
        store.write(people, rows(*((user, 5, user) for user in range(1000))))
        # A load is half done when the server is gone.
        load = rows(*((user, 6, user + 1) for user in range(20_000)))
        with ThreadPoolExecutor(1) as pool, server.client() as watching:
            loading = pool.submit(store.write, people, load)
            while watching.dbsize() < 3_000:
                assert not loading.done()
            server.kill()
            with pytest.raises(ExecutionError, match="it does not answer"):
                loading.result()
        assert not store.health().ok
        server.start()
        assert store.health().ok
        assert 3_000 <= server.client().dbsize() < 20_000
        before = ages(store, people, list(range(20_000)))
        assert before[:1000] == [user + 1 for user in range(1000)]
        counts = store.write(people, rows(*((user, 4, -1) for user in range(1000))))
        assert (counts.written, counts.older) == (0, 1000)
        store.write(people, load)
        assert ages(store, people, list(range(20_000))) == [user + 1 for user in range(20_000)]
    finally:
        store.close()
        server.kill()


def test_a_cluster_is_written_and_read(tmp_path: Path) -> None:
    server = RedisServer(free_port(RedisServer.HIGHEST_CLUSTER_PORT), tmp_path, cluster=True)
    people = table()
    try:
        server.start()
        store = RedisOnlineStore(OnlineStoreConfig(url=server.url))
        assert store.is_cluster
        assert store.write(people, rows(*((user, 5, user) for user in range(40)))).written == 40
        assert store.write(people, rows(*((user, user % 9, 0) for user in range(40)))).older == 24
        assert sum(ages(store, people, list(range(41)))[:-1]) == sum(u for u in range(40) if u % 9 < 5)
        assert store.health().server == "cluster"
        store.close()
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "no online store is configured"),
        ("http://localhost", "unknown scheme 'http'"),
        ("redis://:hunter2@localhost:1/0", "spells out a secret"),
        ("redis://:${NOT_SET_ANYWHERE}@localhost:1/0", "NOT_SET_ANYWHERE is not set"),
        ("redis://localhost:port/0", "the URL or an option in it is wrong"),
        ("redis://localhost:1/0?nonsense=1", "nonsense"),
        ("redis://localhost:1/0?socket_timeout=soon", "socket_timeout"),
    ],
)
def test_wrong_urls_are_refused(url: str, what: str) -> None:
    with pytest.raises(DefinitionError, match=what):
        RedisOnlineStore(OnlineStoreConfig(url=url))


def test_one_server_is_no_cluster(redis_server: RedisServer) -> None:
    with pytest.raises(ExecutionError, match="it is no cluster"):
        RedisOnlineStore(OnlineStoreConfig(url=redis_server.url.replace("redis://", "redis+cluster://")))


def test_a_password_is_shown_nowhere(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    password = "pw" + secrets.token_hex(8)
    monkeypatch.setenv("REDIS_PASSWORD", password)
    url = f"redis://someone:${{REDIS_PASSWORD}}@127.0.0.1:{redis_server.port}/0"
    store = RedisOnlineStore(OnlineStoreConfig(url=url, retries=0))
    with pytest.raises(ExecutionError, match="refuses the user or password") as refused:
        store.write(table(), rows((1, 1, 1)))
    assert password not in str(refused.value)
    assert "${REDIS_PASSWORD}" in str(refused.value)
    assert password not in str(store.health())


def test_what_was_done_is_counted(store: RedisOnlineStore) -> None:
    of = table("counted")
    store.write(of, rows((1, 1, 10)))
    read(store, of, [1, 2], 3)
    text = metrics_text()
    assert 'daedalus_online_rows_total{result="written",table="counted"} 1.0' in text
    assert 'daedalus_online_entities_total{status="missing",table="counted"} 1.0' in text
    assert "daedalus_online_seconds_bucket" in text
