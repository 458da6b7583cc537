"""What is admitted, its exact values, limits, names with quotes, the audit log, counters, and the client."""

from __future__ import annotations

import datetime as dt
import json
import logging
import socket
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest

from daedalus.errors import ExecutionError, ParameterError
from daedalus.serving import transport
from daedalus.serving.authorization import Admitted, Approved, admit
from daedalus.serving.client import QuackServingBackend, ServingClient
from daedalus.serving.daemon import QuackDaemon
from daedalus.serving.metrics import MetricsServer
from daedalus.serving.settings import Identity, Limits, ServingSettings, token_digest
from daedalus.serving.staging import LimitError, Stage
from serving.conftest import AS_OF, ROWS, TOKENS, Serving, service, values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("quack")

ADMITTED = [
    "FROM ranking LIMIT 3",
    "SELECT * FROM ranking WHERE user_id IN (1, 2, 3)",
    "SELECT user_id, liked[1], liked[1:2] FROM main.ranking AS r WHERE r.user_id BETWEEN 3 AND 9",
    'SELECT "we""ird" AS "as ""they"" say" FROM ranking WHERE "we""ird" = \'it\'\'s 5\'',
    "SELECT coalesce(len(liked), 0) AS n, count(*) AS c FROM ranking GROUP BY n HAVING count(*) > 1 ORDER BY n",
    "SELECT max(seen) AS newest, min(user_id) FROM served.main.ranking",
    "SELECT CASE WHEN user_id > 5 THEN 'a' ELSE 'b' END AS x FROM ranking ORDER BY user_id DESC LIMIT 2 OFFSET 1",
    "SELECT DISTINCT user_id % 3 AS third FROM ranking ORDER BY third",
    "SELECT * EXCLUDE (vector) FROM ranking WHERE NOT (liked IS NULL) AND user_id = CAST('4' AS BIGINT)",
    "SELECT /* hello */ count(*) FROM ranking -- a comment says nothing",
    "SELECT v FROM \"o'brien ü\" WHERE (a, b) IN ((1, 'x'), (2, 'x')) ORDER BY v",
    "SELECT service, version, keys FROM ranking__about",
    "SELECT extract(hour FROM seen) AS h FROM ranking LIMIT 1;",
]


@pytest.mark.parametrize("statement", ADMITTED)
def test_admitted_statement_gives_what_duckdb_gives(serving: Serving, statement: str) -> None:
    with serving.daemon._connection.cursor() as cursor:
        cursor.execute("USE served")
        expected = cursor.execute(statement).to_arrow_table()
    assert serving.ask(statement).equals(expected)


def test_values_arrive_exactly(serving: Serving) -> None:
    found = serving.ask("SELECT * FROM ranking ORDER BY user_id LIMIT 2000")
    expected = values().slice(0, 2000)
    # Half floats are widened to what DuckDB has.
    vector = expected.column("vector").cast(pa.list_(pa.float32()))
    expected = expected.set_column(expected.schema.get_field_index("vector"), "vector", vector)
    assert found.cast(expected.schema).equals(expected)


def test_a_result_that_is_too_large_is_an_error_and_never_cut(serving: Serving) -> None:
    with pytest.raises(duckdb.Error, match="more than 2000 rows"):
        serving.ask("FROM ranking")
    with pytest.raises(duckdb.Error, match="more than 2000 rows"):
        serving.ask("FROM ranking LIMIT 2001")
    assert serving.ask("FROM ranking LIMIT 2000").num_rows == 2000
    wide = "SELECT " + ", ".join(f"'{'x' * 100}' AS c{n}" for n in range(20)) + " FROM ranking LIMIT 2000"
    with pytest.raises(duckdb.Error, match="more than 1048576 bytes"):
        serving.ask(wide)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with duckdb.connect() as connection:
        yield Stage(connection, Limits(seconds=0.3, concurrent=1))


ENDLESS = Admitted(
    sql="SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = -1",
    relation=Approved(name="t", service="t", columns=()),
)
QUICK = Admitted(sql="SELECT 1 AS one", relation=ENDLESS.relation)


def test_the_watchdog_stops_what_takes_too_long(stage: Stage) -> None:
    with pytest.raises(LimitError, match=r"longer than 0\.3 s"):
        stage.run(ENDLESS)
    assert stage.run(QUICK).rows == 1


def test_statements_beyond_the_limit_wait_their_turn_or_are_told(stage: Stage) -> None:
    slow = threading.Thread(target=pytest.raises, args=(LimitError, stage.run, ENDLESS))
    with stage._places, pytest.raises(LimitError, match="busy"):
        stage.run(QUICK)
    slow.start()
    slow.join()
    assert stage.run(QUICK).rows == 1


def test_closing_waits_for_what_runs(stage: Stage) -> None:
    told: list[str] = []

    def run() -> None:
        with pytest.raises(LimitError) as error:
            stage.run(ENDLESS)
        told.append(str(error.value))

    running = threading.Thread(target=run)
    with stage._places:
        running.start()
    stage.drain()
    running.join()
    assert len(told) == 1


def test_results_are_dropped_when_their_moment_has_passed(stage: Stage) -> None:
    stage.run(QUICK)
    assert stage.kept_bytes > 0
    stage.sweep(everything=True)
    assert stage.kept_bytes == 0


def test_a_runtime_error_is_told_without_the_servers_own_sql(serving: Serving) -> None:
    with pytest.raises(duckdb.Error, match="Could not convert string") as told:
        serving.ask('SELECT CAST("we""ird" AS BIGINT) FROM ranking WHERE user_id = 5')
    assert "served.main" not in str(told.value)


def test_many_clients_at_once(serving: Serving) -> None:
    client = ServingClient(QuackServingBackend(serving.daemon.uri, token=TOKENS["reader"]))
    wrong: list[Any] = []

    def read(start: int) -> None:
        for user in range(start, start + 8):
            found = (
                client.get("ranking", [{"user_id": user}], ["user_id"]).table.column("user_id").to_pylist()
            )
            if found != [user]:
                wrong.append(found)

    with client:
        threads = [threading.Thread(target=read, args=(100 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_the_audit_log_says_who_asked_what(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "daedalus.serving.audit"):
        serving.ask("SELECT user_id FROM ranking LIMIT 2")
        with pytest.raises(duckdb.Error):
            serving.ask("DROP VIEW ranking", "narrow")
        with pytest.raises(duckdb.Error):
            serving.ask("FROM ranking", "stranger")
    answered, refused, login = (json.loads(record.message) for record in caplog.records)
    assert (answered["event"], answered["identity"], answered["rows"]) == ("answered", "reader", 2)
    assert answered["relation"] == "ranking"
    assert (refused["event"], refused["identity"], refused["statement"]) == (
        "refused",
        "narrow",
        "DROP VIEW ranking",
    )
    assert (login["event"], login["reason"]) == ("login refused", "unknown token")
    assert not any(token in caplog.text for token in TOKENS.values())


def test_metrics_and_health_follow_the_daemon(serving: Serving, tmp_path: Path) -> None:
    serving.ask("FROM ranking LIMIT 1")
    server = MetricsServer(serving.daemon.metrics, serving.daemon.ready, 0)
    try:
        base = f"http://127.0.0.1:{server.port}"
        text = urllib.request.urlopen(f"{base}/metrics").read().decode()
        assert 'daedalus_serving_statements_total{outcome="answered"}' in text
        assert 'daedalus_serving_as_of_seconds{service="ranking"}' in text
        assert urllib.request.urlopen(f"{base}/healthz").read() == b"ok\n"
        assert urllib.request.urlopen(f"{base}/readyz").read() == b"ready\n"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{base}/x")
    finally:
        server.close()


def test_a_port_that_is_taken_is_said_and_a_closed_daemon_leaves_nothing(
    serving: Serving, tmp_path: Path
) -> None:
    one = service(tmp_path, "s", pa.table({"user_id": [1]}))
    settings = ServingSettings(identities=(Identity(name="a", digest=token_digest("a" * 16)),))
    with pytest.raises(ExecutionError, match="--port"):
        QuackDaemon([one], settings, port=serving.daemon.port, folder=tmp_path / "files")
    with QuackDaemon([one], settings, port=0, folder=tmp_path / "files") as daemon:
        assert daemon.ready()
        client = ServingClient(
            QuackServingBackend(daemon.uri, token="a" * 16, attempts=2, backoff_seconds=0.01), about_seconds=0
        )
        assert client.get("s", [{"user_id": 1}]).found == (True,)
    assert not daemon.ready()
    assert list((tmp_path / "files").iterdir()) == []
    killed = tmp_path / "files" / "daedalus-serving-killed"
    killed.mkdir()
    (killed / "served.duckdb").write_bytes(b"left behind")
    newer = replace(one, as_of=AS_OF + dt.timedelta(days=1))
    with QuackDaemon([newer], settings, port=daemon.port, folder=tmp_path / "files"):
        answer = client.get("s", [{"user_id": 1}])
        assert (answer.found, answer.as_of) == ((True,), newer.as_of.replace(tzinfo=dt.UTC))
        assert not killed.exists()
    with client, pytest.raises(ExecutionError, match="daeda serve"):
        client.about("s")


# ------------------------------------------------------------------ the client


@pytest.fixture
def client(serving: Serving) -> Iterator[ServingClient]:
    with ServingClient(QuackServingBackend(serving.daemon.uri, token=TOKENS["reader"]), batch_keys=3) as one:
        yield one


def test_rows_come_in_the_order_asked_and_missing_entities_are_explicit(client: ServingClient) -> None:
    asked = [5, ROWS + 1, 3, 5, 1, 2, 0]
    answer = client.get("ranking", [{"user_id": one} for one in asked])
    assert answer.table.column("user_id").to_pylist() == asked
    assert answer.found == (True, False, True, True, True, True, True)
    assert answer.missing == 1
    assert answer.table.column("liked").to_pylist()[:3] == [[], None, [0, 1, 2]]
    assert answer.as_of == AS_OF.replace(tzinfo=dt.UTC)
    assert client.get("ranking", []).table.num_rows == 0


def test_several_keys_and_names_with_quotes(client: ServingClient) -> None:
    answer = client.get("o'brien ü", [{"a": 2, "b": "x"}, {"b": "y", "a": 1}, {"a": 2, "b": "y"}], ["v"])
    assert answer.table.to_pylist() == [
        {"a": 2, "b": "x", "v": 3},
        {"a": 1, "b": "y", "v": 2},
        {"a": 2, "b": "y", "v": None},
    ]
    weird = client.get("ranking", [{"user_id": 5}], ['we"ird'])
    assert weird.table.column('we"ird').to_pylist() == ["it's 5"]


def test_columns_may_be_asked_for_twice(serving: Serving) -> None:
    found = serving.ask("SELECT user_id, user_id, seen AS USER_ID FROM ranking WHERE user_id = 4")
    assert found.column_names == ["user_id", "user_id_1", "USER_ID_2"]
    assert found.column(1).to_pylist() == [4]


def test_a_daemon_that_never_answers_is_left_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        uri = transport.quack_uri(silent.getsockname()[1])
        # Closing, too, must not wait for what never comes.
        backend = QuackServingBackend(uri, token="x" * 20, timeout_seconds=0.3)
        late = pytest.raises(ExecutionError, match=r"it did not answer within 0\.3 s")
        with ServingClient(backend) as hanging, late:
            hanging.get("ranking", [{"user_id": 1}])


def test_wrong_questions_are_told_apart(client: ServingClient, serving: Serving) -> None:
    with pytest.raises(ParameterError, match="user_idd is no key"):
        client.get("ranking", [{"user_idd": 1}])
    with pytest.raises(ParameterError, match="the key user_id is missing"):
        client.get("ranking", [{}])
    with pytest.raises(ParameterError, match="user_id is no int64"):
        client.get("ranking", [{"user_id": "1"}], ["liked"])
    with pytest.raises(ExecutionError, match="there is no column likes"):
        client.get("ranking", [{"user_id": 1}], ["likes"])
    with pytest.raises(ExecutionError, match="there is no relation absent__about"):
        client.get("absent", [{"user_id": 1}])
    stranger = ServingClient(QuackServingBackend(serving.daemon.uri, token="x" * 20))
    with stranger, pytest.raises(ExecutionError, match="unknown or has expired"):
        stranger.about("ranking")


def test_injection_through_keys_and_names_stays_text(client: ServingClient) -> None:
    hostile = "x') OR 1=1 --"
    assert client.get("o'brien ü", [{"a": 1, "b": hostile}]).found == (False,)
    with pytest.raises(ExecutionError, match="there is no column"):
        client.get("ranking", [{"user_id": 1}], ['liked" FROM duckdb_settings() --'])


def test_what_runs_is_the_judged_tree_and_not_the_text() -> None:
    relation = {"t": Approved(name="t", service="t", columns=("a",))}
    admitted = admit("FROM t WHERE a = 1 /* ; DROP TABLE x */", relation, rows=10, longest=1000)
    assert admitted.sql == "SELECT * FROM served.main.t AS t WHERE (a = 1) LIMIT 11"


def test_whatever_goes_wrong_in_the_gate_the_answer_is_no(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = serving.daemon.gate
    assert gate.authenticate("s", TOKENS["reader"], "")

    def broken(*_: Any) -> Any:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(gate, "_stage", None)
    assert gate.authorize("s", "FROM ranking LIMIT 1") is None
    monkeypatch.setattr(gate, "_identity", broken)
    assert not gate.authenticate("s", TOKENS["reader"], "")
    assert "unforeseen" in caplog.text
