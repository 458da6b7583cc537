"""Train over three backends with secrets whose values nothing may show: every output is searched for them."""

from __future__ import annotations

import base64
import logging
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daedalus.cli.main import main
from daedalus.storage.sources import _snowflake_client
from pipelines.tiny import DAYS, EVENTS, ROWS, SERVICE, USERS, events
from support.project import Project, write_project

if TYPE_CHECKING:
    from support.servers import PostgresServer, S3Server
    from support.snowflake_server import SnowflakeServer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("snowflake")]

PLACES: dict[str, Any] = {
    "name": "artworks",
    "entity": "artwork",
    "source": {},
    "fields": [{"name": "style", "dtype": "TEXT"}],
}


@dataclass
class World:
    """A project whose three views live on three servers, and what none of its outputs may hold."""

    project: Project
    root: Path
    monkeypatch: pytest.MonkeyPatch
    planted: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def plant(self, variable: str, value: str) -> None:
        """Put a secret into the environment, and look for it from now on."""
        self.monkeypatch.setenv(variable, value)
        self.planted[f"{variable}#{len(self.planted)}"] = value

    def needles(self) -> dict[bytes, str]:
        """Every form that a secret could be shown in."""
        found = {}
        for name, value in self.planted.items():
            parts = [line for line in value.splitlines() if len(line) > 20 and "-----" not in line] or [value]
            for part in parts:
                forms = (part, quote(part, safe=""), base64.b64encode(part.encode()).decode())
                found |= {form.encode(): name for form in forms}
        return found

    def check(self) -> None:
        """Nothing that was printed, logged or written holds a secret."""
        outputs = {f"output {at}": text.encode() for at, text in enumerate(self.seen)}
        outputs |= {str(path): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}
        assert len(outputs) > 10
        for needle, name in self.needles().items():
            for place, content in outputs.items():
                assert needle not in content, f"{name} is in {place}"
                assert needle not in place.encode(), f"{name} names {place}"


@pytest.fixture
def world(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres_server: PostgresServer,
    s3_server: S3Server,
    snowflake_server: SnowflakeServer,
) -> World:
    """Events on Snowflake, users on Postgres, artworks on S3."""
    database = postgres_server.database()
    reader, password = f"reader_{secrets.token_hex(3)}", "pg#pass/word " + secrets.token_hex(8)
    postgres_server.execute(
        "CREATE TABLE users (user_id bigint, updated_at timestamp, tier text);"
        "INSERT INTO users VALUES (1, '2026-04-01', 'free'), (1, '2026-05-02 08:30', 'pro');"
        f"CREATE ROLE {reader} LOGIN PASSWORD '{password}'; GRANT SELECT ON users TO {reader}",
        database,
    )
    bucket = s3_server.bucket()
    rows = pa.table({"artwork_id": [10, 11], "style": ["oil", "ink"]})
    (tmp_path / "upload").mkdir()
    pq.write_table(rows, tmp_path / "upload" / "a.parquet")
    s3_server.upload(tmp_path / "upload", bucket, "artworks")
    s3_server.key_ids = {s3_server.key_id}
    table = snowflake_server.table(pa.concat_tables([events(day) for day in ROWS.values()]))
    feed = EVENTS["source"] | snowflake_server.source(table)
    del feed["path"]
    project = write_project(
        tmp_path / "project",
        views=[
            EVENTS | {"source": feed},
            USERS
            | {
                "source": {
                    "database_path": f"postgresql://${{PG_USER}}:${{PG_PASSWORD}}@127.0.0.1:{postgres_server.port}/{database}",
                    "table_name": "users",
                    "timestamp_field": "updated_at",
                }
            },
            PLACES
            | {
                "source": {
                    "path": f"s3://{bucket}/artworks",
                    "key_id": "${S3_KEY}",
                    "secret": "${S3_SECRET}",
                    "endpoint": "${S3_ENDPOINT}",
                }
            },
        ],
        services=[
            SERVICE
            | {
                "views": [*SERVICE["views"], {"view": "artworks"}],
                "columns": [*SERVICE["columns"], "artworks:style"],
            }
        ],
        data={},
    )
    made = World(project, tmp_path, monkeypatch)
    made.plant("PG_PASSWORD", password)
    made.plant("S3_SECRET", s3_server.secret)
    made.plant("SNOWFLAKE_PRIVATE_KEY", snowflake_server.pem(passphrase=snowflake_server.passphrase))
    made.plant("SNOWFLAKE_PASSPHRASE", snowflake_server.passphrase)
    for name, value in (("PG_USER", reader), ("S3_KEY", s3_server.key_id), ("S3_ENDPOINT", s3_server.url)):
        monkeypatch.setenv(name, value)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("DAEDALUS_CONFIG", str(tmp_path / "operator.toml"))
    monkeypatch.setenv("HOME", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path / "project")
    return made


def run(world: World, capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command in this process; its output and error are searched later."""
    code = main(arguments)
    captured = capfd.readouterr()
    world.seen += [captured.out, captured.err]
    return code, captured.out + captured.err


TRAIN = ("pipeline", "train", "s", "--skeleton-only", "--target-date")


def test_a_run_that_works_shows_no_secret(world: World) -> None:
    command = [sys.executable, "-c", "import sys; from daedalus.cli.main import main; sys.exit(main())"]
    child = subprocess.Popen(
        [*command, *TRAIN, DAYS[1]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines: set[bytes] = set()
    while child.poll() is None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.add(path.read_bytes())
            except OSError:
                continue
        try:
            child.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
    out, err = child.communicate()
    assert child.returncode == 0, err
    world.seen += [out, err, *(line.decode(errors="replace") for line in lines)]
    world.check()


def test_what_describes_the_project_shows_no_secret(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ("pipeline", "explain", "s", "--target-date", DAYS[1], "--format", "json"),
        ("pipeline", "compile", "s"),
        *(("view", "show", name, "--format", "json") for name in ("events", "users", "artworks")),
        ("view", "show", "users"),
        ("service", "show", "s", "--format", "json"),
        ("config", "show", "--format", "json"),
    ):
        code, text = run(world, capfd, *arguments)
        assert code == 0, (arguments, text)
    world.check()


WRONG = {
    "PG_PASSWORD": "users",
    "S3_KEY": "artworks",
    "SNOWFLAKE_PRIVATE_KEY": "events",
    "SNOWFLAKE_PASSPHRASE": "events",
}


@pytest.mark.parametrize("variable", WRONG)
def test_a_wrong_secret_is_a_clear_error_that_shows_none(
    world: World,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    snowflake_server: SnowflakeServer,
    variable: str,
) -> None:
    caplog.set_level(logging.DEBUG, logger="daedalus")
    value = "wrong-" + secrets.token_hex(12)
    if variable == "SNOWFLAKE_PRIVATE_KEY":
        from cryptography.hazmat.primitives.asymmetric import rsa

        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        value = snowflake_server.pem(other, snowflake_server.passphrase)
    world.plant(variable, value)
    code, text = run(world, capfd, *TRAIN, DAYS[1])
    assert code in (1, 2)
    assert f"view {WRONG[variable]}" in text
    assert not list((world.root / "project").rglob(f"dt={DAYS[1]}"))
    world.seen += [record.getMessage() for record in caplog.records]
    world.check()


@pytest.mark.parametrize("variable", ["PG_PASSWORD", "S3_SECRET", "SNOWFLAKE_PASSPHRASE"])
def test_a_variable_that_is_not_set_is_named_with_view_and_field(
    world: World, capfd: pytest.CaptureFixture[str], variable: str
) -> None:
    world.monkeypatch.delenv(variable)
    code, text = run(world, capfd, *TRAIN, DAYS[1])
    assert code in (1, 2)
    view, place = {
        "PG_PASSWORD": ("users", "source.database_path"),
        "S3_SECRET": ("artworks", "source.secret"),
        "SNOWFLAKE_PASSPHRASE": ("events", "source.private_key_passphrase"),
    }[variable]
    flat = " ".join(text.split())
    assert f"view {view} (" in flat
    assert place in flat
    assert f"{variable} is not set" in flat
    world.check()


def test_faults_in_mid_run_show_none(
    world: World,
    capfd: pytest.CaptureFixture[str],
    postgres_server: PostgresServer,
    s3_server: S3Server,
    snowflake_server: SnowflakeServer,
) -> None:
    world.monkeypatch.setattr(_snowflake_client, "LONGEST_PAUSE", 0.01)

    def refuse(kind: str, text: str) -> Any:
        token = world.planted[next(name for name in world.planted if name.startswith("SNOWFLAKE_PASSPHRASE"))]
        message = f"something about {token} and eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJB.c2ln"
        failed = {"data": {"sqlState": "42000"}, "code": "001003", "message": message, "success": False}
        return failed if kind == "query" and "LIMIT 0" not in text and "CURRENT" not in text else None

    snowflake_server.fault = refuse
    code, text = run(world, capfd, *TRAIN, DAYS[1])
    assert code == 1
    assert "something about ***" in " ".join(text.split())
    assert "eyJ" not in text
    snowflake_server.fault = None
    s3_server.fault = lambda request: 403
    assert run(world, capfd, *TRAIN, DAYS[1])[0] == 1
    s3_server.fault = None
    assert run(world, capfd, *TRAIN, DAYS[1])[0] == 0
    world.check()
