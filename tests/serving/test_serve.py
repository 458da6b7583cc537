"""From a project to its daemon: what is served and what is not, the settings file, and the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daedalus.errors import DefinitionError, ExecutionError
from daedalus.platform import PlatformRegistry, RunOptions
from daedalus.platform.materialization import materialize
from daedalus.platform.serving import open_daemon
from daedalus.serving.client import QuackServingBackend, ServingClient
from daedalus.serving.settings import SETTINGS_FILE, TOKEN_VARIABLE, load_settings
from pipelines.tiny import SERVICE, tiny

if TYPE_CHECKING:
    from pathlib import Path

    from support.project import Project

pytestmark = pytest.mark.xdist_group("quack")

TOKEN = "test-token-0123456789"
INSTANT = "2026-05-03T00:00:00"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`s` may be served and is materialized; `closed` is materialized and may not; `bare` may and is not."""
    found = tiny(tmp_path_factory.mktemp("project"))
    for name, allowed in (("s", True), ("closed", False), ("bare", True)):
        found.define("feature_services", SERVICE | {"name": name, "serving_allowed": allowed})
    for name in ("s", "closed"):
        materialize(PlatformRegistry.open(found.root), name, as_of=INSTANT, options=options(found))
    return found


def options(project: Project) -> RunOptions:
    return RunOptions(overrides={"output_root": str(project.root / "out")})


def test_only_what_is_allowed_and_made_is_served(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    registry = PlatformRegistry.open(project.root)
    daemon, notices = open_daemon(registry, options=options(project))
    backend = QuackServingBackend(daemon.uri, token=TOKEN)
    with daemon, ServingClient(backend) as client:
        about = client.about("s")
        assert (about.version, about.as_of.isoformat()) == ("2026-05-01", f"{INSTANT}+00:00")
        keys = backend.query("SELECT user_id, artwork_id FROM s").to_pylist()
        assert len(keys) == about.row_count > 0
        stored = pa.concat_tables(
            pq.ParquetFile(path).read()
            for path in (project.root / "out" / "s" / "materialized").glob("*/part-*.parquet")
        )
        answer = client.get("s", stored.select(["user_id", "artwork_id"]).to_pylist())
        assert answer.table.cast(stored.schema).equals(stored.replace_schema_metadata(None))
        for absent in ("closed", "bare"):
            with pytest.raises(ExecutionError, match=f"there is no relation {absent}"):
                client.about(absent)
        with daemon._connection.cursor() as cursor:
            tables = cursor.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'served'")
            assert tables.fetchall() == [("s",)]
    assert any("bare" in notice and "daeda materialize bare" in notice for notice in notices)


@pytest.mark.parametrize(
    ("service", "says"), [("closed", "may not be served"), ("bare", "no materialization")]
)
def test_a_service_that_is_named_must_be_servable(
    project: Project, monkeypatch: pytest.MonkeyPatch, service: str, says: str
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with pytest.raises(ExecutionError, match=says):
        open_daemon(PlatformRegistry.open(project.root), services=[service], options=options(project))


def test_nothing_to_serve_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    project = tiny(tmp_path)
    with pytest.raises(ExecutionError, match="serving_allowed: true"):
        open_daemon(PlatformRegistry.open(project.root), options=options(project))


# ------------------------------------------------------------------ the settings file


def test_without_a_token_there_is_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="DAEDALUS_SERVE_TOKEN is not set"):
        load_settings(tmp_path, ["s"], environ={})
    with pytest.raises(DefinitionError, match="shorter than 16"):
        load_settings(tmp_path, ["s"], environ={TOKEN_VARIABLE: "short"})


def settings(tmp_path: Path, text: str, **environ: str) -> Any:
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / SETTINGS_FILE).write_text(text)
    return load_settings(tmp_path, ["s", "t"], environ=environ)


def test_the_file_says_who_may_read_what(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        'identities:\n  - {name: a, token: "${A}", services: [s], expires: "2027-01-01"}\n'
        '  - {name: b, token: "${B}"}\nlimits: {rows: 7, seconds: 0.5, memory: 200MB}\n',
        A="a" * 16,
        B="b" * 16,
    )
    first, second = found.identities
    assert (first.may_read("s"), first.may_read("t"), second.may_read("t")) == (True, False, True)
    assert first.expires is not None
    assert first.expires.isoformat() == "2027-01-01T00:00:00+00:00"
    assert (found.limits.rows, found.limits.seconds, found.limits.memory) == (7, 0.5, "200MB")
    assert found.limits.concurrent == 8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('identities: [{name: a, token: "aaaaaaaaaaaaaaaaaaaa"}]', "stands in the environment"),
        ('identities: [{name: a, token: "${GONE}"}]', "GONE is not set"),
        ('identities: [{name: a, token: "${SHORT}"}]', "shorter than 16"),
        ('identities: [{name: a, token: "${A}", services: [ss]}]', "Did you mean 's'"),
        (
            'identities: [{name: a, token: "${A}"}, {name: b, token: "${A}"}]',
            "another identity has the same token",
        ),
        ('identities: [{name: a, token: "${A}"}, {name: a, token: "${B}"}]', "stands twice"),
        ('identities: [{name: a, token: "${A}", expires: soon}]', "is no time"),
        ('identities: [{name: a, token: "${A}", tokn: 1}]', "unknown key 'tokn'"),
        ('identities: [{name: a, token: "${A}"}]\nlimits: {rows: 0}', "at least 1"),
        ('identities: [{name: a, token: "${A}"}]\nlimits: {memory: lots}', "no amount of memory"),
        ("identities: []", "missing or empty"),
        ("", "empty"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DefinitionError, match=says) as told:
        settings(tmp_path, text, A="a" * 16, B="b" * 16, SHORT="x")
    assert "aaaa" not in str(told.value)


# ------------------------------------------------------------------ the command


@pytest.mark.slow
def test_the_command_serves_until_it_is_told_to_stop(project: Project) -> None:
    command = [sys.executable, "-m", "daedalus", "serve", "s", "--port", "0", "--metrics-port", "0"]
    process = subprocess.Popen(
        [*command, "--output-root", "out", "--format", "json"],
        cwd=project.root,
        env=os.environ | {TOKEN_VARIABLE: TOKEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = []
        while not (lines and lines[-1] == "}\n"):
            lines.append(process.stdout.readline())
            assert lines[-1], process.communicate()
        facts = json.loads("".join(lines))
        assert [one["service"] for one in facts["services"]] == ["s"]
        with ServingClient(QuackServingBackend(facts["uri"], token=TOKEN)) as client:
            assert client.about("s").version == "2026-05-01"
        text = urllib.request.urlopen(facts["metrics"]).read().decode()
        assert 'statements_total{outcome="answered"} 1.0' in text
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=90)
    assert process.returncode == 0
    entries = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [one["event"] for one in entries] == ["login refused", "answered"]  # the first is its own check
    assert TOKEN not in log
    assert "Traceback" not in log
