"""What counts as a credential, and what is hidden before anyone sees it."""

from __future__ import annotations

import pytest

from daedalus import secrets
from daedalus.secrets import looks_like_secret, mask, remember_secret, sql_holds_secret


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:hunter2@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:123/abc@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:5432/x@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me:12345/@h/d", "postgresql://me:***@h/d"),
        ("postgresql://me:12?x@h/d", "postgresql://me:***@h/d"),
        ("redis://:12345/0@h", "redis://:***@h"),
        ("postgresql://h/d?sslpassword=hunter2&x=1", "postgresql://h/d?sslpassword=***&x=1"),
        ("host=h PGPASSWORD=hunter2", "host=h PGPASSWORD=***"),
    ],
)
def test_credentials_are_found_and_hidden(text: str, masked: str) -> None:
    assert looks_like_secret(text)
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://${U}:${P}@h:5432/db",
        "postgresql://host:5432/db",
        "postgresql://host:5432/db?user=a@b",
        "postgresql://host:5432?user=a@b",
        "http://localhost:3000/graphql",
        "http://h:80/x?y=a@b",
        "redis://h:6379/0",
        '{"url":"http://h:80/x","mail":"a@b"}',
        "see http://h:80/x, or ask me@b",
    ],
)
def test_ports_and_addresses_are_no_credentials(text: str) -> None:
    assert not looks_like_secret(text)
    assert mask(text) == text


def test_a_resolved_value_is_hidden_unless_everything_is_made_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_resolved", set())
    for value in ("p@ss/word", "postgres", "abc"):
        remember_secret(value)
    assert (
        mask("postgres postgresql://u abc p@ss/word p%40ss%2Fword") == "postgres postgresql://u abc *** ***"
    )


@pytest.mark.parametrize(
    ("sql", "holds"),
    [
        ("SELECT * FROM dblink('host=h password=hunter2', 'SELECT 1')", True),
        ("SELECT * FROM dblink('host=h password = ''hunter2''', 'SELECT 1')", True),
        ("SELECT * FROM dblink('postgresql://u:1/hunter2@h/d', 'SELECT 1')", True),
        ("SELECT * FROM f(password => 'hunter2')", True),
        ("SELECT * FROM dblink('host=h password=${PW}', 'SELECT 1')", False),
        ("SELECT * FROM a JOIN b ON a.kind = 'x' AND a.token = b.token AND b.kind = 'y'", False),
        ("SELECT * FROM t WHERE url LIKE '%token=%' AND token = 'x'", False),
    ],
)
def test_credentials_in_sql(sql: str, holds: bool) -> None:
    assert sql_holds_secret(sql) is holds
