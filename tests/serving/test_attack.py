"""Hostile statements: each is refused, what it wanted did not happen, and the server answers the next one."""

from __future__ import annotations

import contextlib
import os
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import duckdb
import psutil
import pytest

from daedalus.serving import transport
from daedalus.serving.authorization import Approved, RefusedError, admit
from serving.conftest import ROWS, TOKENS, Serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("quack")

HOSTILE = [
    # DDL
    "DROP TABLE ranking",
    "DROP VIEW ranking",
    "CREATE TABLE t AS SELECT 1",
    "CREATE OR REPLACE VIEW ranking AS SELECT 1",
    "CREATE TEMP MACRO f(x) AS x",
    "CREATE SECRET s (TYPE s3, KEY_ID 'k', SECRET 's')",
    "ALTER TABLE ranking ADD COLUMN x INT",
    "CREATE SCHEMA x",
    "CREATE INDEX i ON materialized.ranking (user_id)",
    # DML
    "INSERT INTO ranking VALUES (1)",
    "INSERT INTO main.ranking VALUES (NULL)",  # as Quack itself asks before it appends
    "UPDATE ranking SET user_id = 0",
    "DELETE FROM ranking",
    "TRUNCATE materialized.ranking",
    "MERGE INTO ranking USING ranking r ON true WHEN MATCHED THEN DELETE",
    # moving data in and out
    "COPY ranking TO 'out.csv'",
    "COPY (SELECT * FROM ranking) TO 'out.parquet'",
    "COPY ranking FROM '/etc/passwd'",
    "EXPORT DATABASE 'out'",
    "IMPORT DATABASE 'out'",
    # sessions, settings, extensions
    "ATTACH ':memory:' AS x",
    "ATTACH 'x.db'",
    "DETACH served",
    "USE memory",
    "PRAGMA database_list",
    "PRAGMA disable_object_cache",
    "SET threads = 64",
    "SET GLOBAL quack_authorization_function = 'quack_nop_authorization'",
    "RESET ALL",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CALL quack_stop('quack:localhost:{port}')",
    "CALL quack_serve('quack:localhost:1', token => 'x')",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "EXPLAIN SELECT * FROM ranking",
    "EXPLAIN ANALYZE SELECT * FROM ranking",
    # several statements, comments, unicode
    "SELECT * FROM ranking LIMIT 1; DROP VIEW ranking",
    "SELECT * FROM ranking LIMIT 1;;SELECT 1 FROM ranking",
    "; DROP VIEW ranking",
    "/* SELECT * FROM ranking */ DROP VIEW ranking",
    "SELECT * FROM ranking -- \n; DROP VIEW ranking",
    "SELECT * FROM/**/duckdb_settings()",
    "SELECT * FROM rank\u200bing",
    "\ufeffSELECT * FROM ranking",
    "SELECT * FROM ranking \u202e; PORD",
    "SELECT * FROM \uff52\uff41\uff4e\uff4b\uff49\uff4e\uff47",
    "SELECT 'a\x01b' FROM ranking",
    "SELECT * FROM ranking WHERE 'x' = $$;DROP VIEW ranking",
    "",
    "   ",
    ";",
    "-- nothing",
    # CTE writes, other statements within
    "WITH x AS (INSERT INTO ranking VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (SELECT 1) DELETE FROM ranking",
    "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r) SELECT * FROM r",
    "WITH ranking AS (SELECT * FROM duckdb_settings()) SELECT * FROM ranking",
    # files and network
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "FROM 'file.parquet'",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM read_parquet('http://127.0.0.1:1/x.parquet')",
    "SELECT * FROM parquet_metadata('x')",
    "SELECT getenv('HOME') FROM ranking",
    "SELECT write_log('x') FROM ranking",
    # the system and its tables
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_functions()",
    "SELECT * FROM duckdb_logs",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM sqlite_master",
    "SELECT current_setting('memory_limit') FROM ranking",
    "SELECT current_user FROM ranking",
    "SELECT current_database() FROM ranking",
    "SELECT version() FROM ranking",
    "SELECT rowid FROM ranking",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "DESCRIBE ranking",
    "SUMMARIZE ranking",
    "SELECT * FROM materialized.ranking",
    "SELECT * FROM served.materialized.ranking",
    "SELECT * FROM memory.staged.r0",
    "TABLE system.information_schema.tables",
    "SELECT (SELECT count(*) FROM duckdb_tables()) FROM ranking",
    "SELECT * FROM ranking WHERE user_id IN (SELECT 1 FROM duckdb_settings())",
    # Quack's own and our hooks
    "SELECT * FROM quack_stop('quack:localhost:{port}')",
    "SELECT * FROM quack_server_list()",
    "SELECT * FROM quack_active_connections()",
    "SELECT * FROM quack_query('quack:localhost:{port}', 'SELECT 1', token => 'x')",
    "SELECT quack_nop_authorization('a', 'b') FROM ranking",
    "SELECT daedalus_authenticate('a', '{token}', '') FROM ranking",
    "SELECT daedalus_authorize('a', 'b') FROM ranking",
    "SELECT whoami() FROM ranking",
    "SELECT json_execute_serialized_sql('x') FROM ranking",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('ranking')",
    # bombs
    "SELECT * FROM range(1000000000000)",
    "SELECT count(*) FROM ranking a, ranking b, ranking c, ranking d",
    "SELECT count(*) FROM ranking a CROSS JOIN ranking b",
    "SELECT * FROM ranking a JOIN ranking b ON true",
    "SELECT repeat('x', 1000000000) FROM ranking",
    "SELECT lpad('x', 2000000000, 'y') FROM ranking",
    "SELECT list_reduce(liked, lambda x, y: x + y) FROM ranking",
    "SELECT list(user_id) FROM ranking",
    "SELECT string_agg(liked, '') FROM ranking",
    "SELECT unnest(liked) FROM ranking",
    "SELECT sum(user_id) OVER (ORDER BY user_id) FROM ranking",
    "SELECT * FROM ranking UNION ALL SELECT * FROM ranking",
    "SELECT * FROM ranking LIMIT (SELECT 1)",
    "SELECT * FROM ranking LIMIT 50%",
    "SELECT * FROM ranking USING SAMPLE 10",
    "PIVOT ranking ON user_id USING count(*)",
    "SELECT count(*) FROM ranking GROUP BY CUBE (user_id, seen, liked)",
    "SELECT user_id FROM ranking WHERE " + "(" * 900 + "user_id" + "+1)" * 900 + " = 1",
    "SELECT " + "NOT " * 900 + "true FROM ranking",
    "SELECT " + "-" * 5_000 + "1 FROM ranking",
    "SELECT " + "1," * 30_000 + "1 FROM ranking",
    "SELECT '" + "x" * 70_000 + "' FROM ranking",
    "SELECT COLUMNS('.*') FROM ranking",
    "SELECT * REPLACE (getenv('HOME') AS user_id) FROM ranking",
    "SELECT random() FROM ranking",
    "SELECT nextval('s') FROM ranking",
    "SELECT pg_sleep(100) FROM ranking",
    "SELECT error('x') FROM ranking",
    "SELECT $1 FROM ranking",
    "SELECT ? FROM ranking",
    "SELECT getvariable('x') FROM ranking",
    "SELECT user_id::main.mytype FROM ranking",
    # patterns that take years, where no time limit reaches
    f"SELECT '{'a' * 400}' LIKE '{'%_a' * 12}b' FROM ranking LIMIT 1",
    f"SELECT count(*) FROM ranking WHERE '{'a' * 400}' || user_id::VARCHAR NOT LIKE '{'%_a' * 12}b'",
    f"SELECT count(*) FROM ranking WHERE '{'a' * 400}' || user_id::VARCHAR ILIKE '{'%a' * 12}b'",
    f"SELECT count(*) FROM ranking WHERE lower('{'a' * 400}') NOT ILIKE '%{'a' * 90}%b'",
    f"SELECT count(*) FROM ranking WHERE '{'a' * 400}' LIKE ('{'%_a' * 12}' || user_id::VARCHAR)",
    f"SELECT count(*) FROM ranking WHERE '{'a' * 400}' LIKE '{'%a' * 12}!b' ESCAPE '!'",
    f"SELECT count(*) FROM ranking WHERE contains('{'a' * 40_000}' || user_id::VARCHAR, '{'a' * 15_000}b')",
    f"SELECT count(*) FROM ranking WHERE '{'a' * 40_000}' || user_id::VARCHAR LIKE '%{'a' * 15_000}b%'",
    "SELECT count(*) FROM ranking WHERE 'aaaa' SIMILAR TO '((a*)*)*b'",
    "SELECT count(*) FROM ranking WHERE 'aaaa' GLOB '*a*a*a*b'",
    "SELECT count(*) FROM ranking WHERE 'aaaa' ~ '(a+)+b'",
    # values on their way, which no memory limit counts
    f"SELECT '{'a' * 20_000}' || user_id::VARCHAR AS g FROM ranking ORDER BY {'||'.join(['g'] * 20)} LIMIT 1",
    f"SELECT '{'a' * 20_000}' || user_id::VARCHAR AS g FROM ranking GROUP BY g HAVING {'||'.join(['g'] * 20)} < 'b'",
    f"SELECT max('{'a' * 60_000}' || user_id::VARCHAR) FROM ranking",
    f"SELECT user_id FROM ranking WHERE len(['{'a' * 30_000}' || user_id::VARCHAR]) > 1",
    # depth where a stack could end
    "SELECT user_id::INT" + "[]" * 30_000 + " FROM ranking",
    "SELECT user_id::" + "STRUCT(a " * 6_000 + "INT" + ")" * 6_000 + " FROM ranking",
    "SELECT user_id" + "::INT" * 12_000 + " FROM ranking",
    "SELECT user_id" + ".a" * 30_000 + " FROM ranking",
    "SELECT liked" + "[1]" * 20_000 + " FROM ranking",
    "SELECT user_id" + ".abs()" * 10_000 + " FROM ranking",
    "SELECT * FROM (" * 4_000 + "SELECT 1" + ")" * 4_000,
    "SELECT * FROM ranking" + ", ranking" * 7_000,
    "SELECT user_id FROM ranking ORDER BY 1" + ",1" * 30_000,
    # what else a parser takes
    "SELECT user_id::DECIMAL(getenv('HOME'), 2) FROM ranking",
    "SELECT user_id = ANY(SELECT 1) FROM ranking",
    "SELECT #1 FROM ranking",
    "SELECT user_id FROM ranking ORDER BY ALL",
    "SELECT DISTINCT ON (user_id) user_id FROM ranking",
    "SELECT r FROM ranking AS r",
    "SELECT user_id COLLATE nocase FROM ranking",
    "SELECT seen AT TIME ZONE 'Asia/Tokyo' FROM ranking",
    "SELECT * FROM ranking AT (VERSION => 1)",
    "SELECT * FROM ranking ASOF JOIN ranking USING (seen)",
    "SELECT * FROM ranking POSITIONAL JOIN ranking",
    "SELECT E'a\\x00b' FROM ranking",
    "SELECT count(*) FILTER (user_id > 1) FROM ranking",
    "UNPIVOT ranking ON liked INTO NAME n VALUE v",
]


def _title(statement: str) -> str:
    return ascii(statement[:50])


@pytest.mark.parametrize("statement", HOSTILE, ids=_title)
def test_hostile_statement_is_refused(serving: Serving, statement: str) -> None:
    before = serving.outcomes()
    filled = statement.replace("{port}", str(serving.daemon.port)).replace("{token}", TOKENS["reader"])
    with pytest.raises(duckdb.Error, match=r"refused|Authorization failed|null|empty|Catalog|Invalid"):
        serving.ask(filled)
    after = serving.outcomes()
    assert after["answered"] == before["answered"]
    assert after["failed"] == before["failed"]
    assert serving.ask("SELECT count(*) AS n FROM ranking").to_pylist() == [{"n": ROWS}]


def test_there_are_many_hostile_statements() -> None:
    assert len(set(HOSTILE)) >= 60


def test_nothing_was_written(serving: Serving, tmp_path: Path) -> None:
    assert not [name for name in os.listdir() if name.startswith("out")]
    with serving.daemon._connection.cursor() as cursor:
        with pytest.raises(duckdb.Error, match="configuration has been locked"):
            cursor.execute("SET threads = 1")
        with pytest.raises(duckdb.Error, match="disabled by configuration"):
            cursor.execute(f"COPY (SELECT 1) TO '{tmp_path}/x.csv'")
        with pytest.raises(duckdb.Error, match="read-only"):
            cursor.execute("DROP VIEW served.main.ranking")


def test_attaching_and_appending_are_refused(serving: Serving) -> None:
    """What Quack's own client does when it attaches a server and inserts."""
    attach = f"ATTACH '{serving.daemon.uri}' AS r (TYPE quack, TOKEN '{TOKENS['reader']}')"
    with transport.connect(threads=1) as client, pytest.raises(duckdb.Error, match="refused"):
        client.execute(attach)
    for asked in ("INSERT INTO main.ranking VALUES (NULL)", "INSERT INTO staged.r0 VALUES (NULL)"):
        assert serving.daemon.gate.authenticate("appender", TOKENS["reader"], "")
        assert serving.daemon.gate.authorize("appender", asked) is None


@pytest.mark.parametrize(
    "token", ["", "x", TOKENS["stranger"], TOKENS["reader"].upper(), TOKENS["reader"] + " "]
)
def test_wrong_tokens_are_refused(serving: Serving, token: str) -> None:
    with pytest.raises(duckdb.Error, match=r"Authentication failed|token|secret"):
        transport.ask(serving.connection, serving.daemon.uri, "FROM ranking LIMIT 1", token)


def test_expired_token_is_refused_and_a_session_ends_with_its_token(serving: Serving) -> None:
    with pytest.raises(duckdb.Error, match="Authentication failed"):
        serving.ask("FROM ranking LIMIT 1", "expired")
    gate = serving.daemon.gate
    assert gate.authenticate("s1", TOKENS["soon_expired"], "")
    assert gate.authorize("s1", "FROM ranking LIMIT 1") is not None
    today = serving.clock[0]
    serving.clock[0] = today.replace(year=2027)
    try:
        assert gate.authorize("s1", "FROM ranking LIMIT 1") is None
        assert not gate.authenticate("s2", TOKENS["soon_expired"], "")
    finally:
        serving.clock[0] = today


def test_a_session_that_nobody_opened_is_refused(serving: Serving) -> None:
    assert serving.daemon.gate.authorize("no such session", "FROM ranking LIMIT 1") is None
    assert serving.daemon.gate.authorize(None, None) is None


def test_each_identity_sees_its_own_services(serving: Serving) -> None:
    assert serving.ask("FROM private", "narrow").num_rows == 2
    with pytest.raises(duckdb.Error, match="there is no relation ranking"):
        serving.ask("FROM ranking LIMIT 1", "narrow")
    with pytest.raises(duckdb.Error, match="there is no relation ranking__about"):
        serving.ask("FROM ranking__about", "narrow")


def test_refusals_that_raise_are_for_selects_alone() -> None:
    """Quack takes any SQL for a yes when it appends, so its own question must get no answer at all."""
    relation = {"t": Approved(name="t", service="t", columns=("a",))}
    with pytest.raises(RefusedError) as refused:
        admit("INSERT INTO main.t VALUES (NULL)", relation, rows=1, longest=1000)
    assert not refused.value.parsed


@pytest.mark.parametrize(
    "text", ["SELECT 'a\x00b' FROM t", "SELECT '\ud800' FROM t", "SELECT a FROM t\x00; DROP TABLE t"]
)
def test_text_that_is_no_text_is_refused(text: str) -> None:
    relation = {"t": Approved(name="t", service="t", columns=("a",))}
    with pytest.raises(RefusedError):
        admit(text, relation, rows=1, longest=1000)


@pytest.mark.parametrize("body", [b"", b"garbage" * 1000, b"\x00" * 64, b"\xff" * 4096])
def test_bytes_that_are_no_quack_do_no_harm(serving: Serving, body: bytes) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{serving.daemon.port}/quack", data=body)
    before = serving.outcomes()
    answer = b"Unsupported message"  # Quack's own words, now and then, for nothing at all; else it is a 500
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=10) as sent:
        answer = sent.read()
    assert b"Unsupported message" in answer
    assert serving.outcomes() == before
    assert serving.ask("SELECT count(*) AS n FROM ranking").to_pylist() == [{"n": ROWS}]


def test_the_daemon_listens_on_loopback_alone(serving: Serving) -> None:
    places = {
        one.laddr.ip
        for one in psutil.Process().net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == serving.daemon.port
    }
    assert places == {"127.0.0.1"}
