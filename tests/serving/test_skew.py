"""Skew: no difference where there is none, and each cause where it was made on purpose."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from daedalus.cli.main import main
from daedalus.errors import DefinitionError, ExecutionError, ParameterError
from daedalus.platform import PlatformRegistry
from daedalus.platform.materialization import materialize
from daedalus.platform.online_loading import materialize_online
from daedalus.platform.serving import open_daemon
from daedalus.platform.skew import skew
from daedalus.serving.daemon import QuackDaemon
from daedalus.serving.settings import TOKEN_VARIABLE, Identity, ServingSettings, token_digest
from daedalus.trust.skew import Cause, same
from pipelines.tiny import events, tiny, users

if TYPE_CHECKING:
    from pathlib import Path

    from support.project import Project
    from support.servers import RedisServer

pytestmark = [pytest.mark.xdist_group("quack"), pytest.mark.slow]

INSTANT = "2026-05-02T08:31:00"
TOKEN = "skew-token-0123456789"


@pytest.fixture
def project(tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Project:
    """`s`, materialized to Parquet and to the online store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    monkeypatch.setenv("DAEDALUS_CONFIG", str(tmp_path / "none.toml"))
    place = {"url": redis_server.url, "namespace": f"t{secrets.token_hex(4)}"}
    found = tiny(
        tmp_path,
        service={"serving_allowed": True, "online": {"rolling": "events"}},
        users_view={"online": True, "ttl": "2d"},
        runtime={"online_store": place, "output_root": "out"},
    )
    materialize_online(PlatformRegistry.open(tmp_path), "s", as_of=INSTANT)
    return found


def run(project: Project, **options: Any) -> Any:
    return skew(PlatformRegistry.open(project.root), "s", **options)


def causes(report: Any) -> dict[tuple[str, str], str]:
    return {(one["path"], one["column"]): one["cause"] for one in report.counts()}


def test_right_after_materialization_nothing_differs(project: Project) -> None:
    report = run(project)
    assert report.differences == ()
    assert report.entities == 4
    # event, score, tier, liked, seen of each entity, by each path; the session's number is made when training.
    assert report.compared["quack"] == report.compared["online"] >= 4 * 5


def test_lag_and_ttl_explain_what_a_later_instant_gives(project: Project) -> None:
    report = run(project, as_of="2026-05-05T08:30:00")
    found = causes(report)
    assert found["quack", "tier"] == Cause.TTL
    assert found["quack", "seen"] == Cause.LAG
    assert set(found.values()) <= {Cause.TTL, Cause.LAG}
    assert not report.has([Cause.DEFECT])


def test_what_arrives_late_is_told_from_a_defect(project: Project) -> None:
    late = events([(8, "2026-05-01 10:00", 1, 77, "like", "b")])
    project.write("events/late.parquet", late)
    project.write("users/late.parquet", users((1, "2026-05-02 08:30:30", "gold")))
    found = causes(run(project))
    assert found["quack", "liked"] == found["online", "liked"] == Cause.LATE
    assert found["quack", "tier"] == found["online", "tier"] == Cause.LATE
    assert set(found.values()) == {Cause.LATE}


def test_another_version_is_named(project: Project) -> None:
    service = project.root / "feature_services" / "s.yaml"
    service.write_text(service.read_text().replace("2026-05-01", "2026-06-01"))
    project.write("events/late.parquet", events([(8, "2026-05-01 10:00", 1, 77, "like", "b")]))
    report = run(project)
    assert set(causes(report).values()) == {Cause.VERSION}
    assert any("2026-06-01" in notice for notice in report.notices)


def test_a_value_that_nothing_explains_is_a_defect(project: Project, tmp_path: Path) -> None:
    """A daemon that serves one wrong value, and lacks one entity."""
    daemon, _ = open_daemon(PlatformRegistry.open(project.root))
    daemon.close()
    (served,) = daemon.served
    table = pa.concat_tables(pq.ParquetFile(file).read() for file in served.files)
    seen = pc.add(table.column("seen"), pa.array([1] + [0] * (table.num_rows - 1), pa.int64()))
    wrong = table.set_column(table.schema.get_field_index("seen"), "seen", seen).slice(0, 3)
    pq.write_table(wrong, tmp_path / "wrong.parquet")
    settings = ServingSettings(identities=(Identity(name="skew", digest=token_digest(TOKEN)),))
    changed = type(served)(
        **{name: getattr(served, name) for name in served.__slots__}
        | {"files": (tmp_path / "wrong.parquet",)}
    )
    with QuackDaemon([changed], settings, port=0) as daemon:
        report = run(project, paths=["quack"], quack_uri=daemon.uri)
        assert causes(report) == {("quack", ""): Cause.DEFECT, ("quack", "seen"): Cause.DEFECT}
        assert len(report.differences) == 2
        assert main(["skew", "s", "--path", "quack", "--quack-uri", daemon.uri]) == 1


def test_the_command_says_what_differs_and_why(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["skew", "s", "--rows", "2", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["entities"], found["differences"]) == (2, [])
    later = ["skew", "s", "--path", "quack", "--as-of", "2026-05-05T08:30"]
    assert main(later) == 0
    assert "lag" in capsys.readouterr().out
    assert main([*later, "--fail-on", "lag"]) == 1


def test_mistakes_are_named(project: Project) -> None:
    with pytest.raises(ParameterError, match="Did you mean 'quack'"):
        run(project, paths=["quak"])
    with pytest.raises(ExecutionError, match="nobody answers"):
        run(project, paths=["quack"], quack_uri="quack:localhost:1")
    with pytest.raises(DefinitionError, match="unknown service"):
        skew(PlatformRegistry.open(project.root), "absent")


def test_the_sample_is_the_same_each_time(project: Project) -> None:
    registry = PlatformRegistry.open(project.root)
    materialize(registry, "s", as_of="2026-05-13")
    first, second = (run(project, rows=2, as_of="2026-05-14", paths=["quack"]) for _ in range(2))
    assert first == second
    assert first.entities == 2


def test_values_are_compared_as_values() -> None:
    nan = float("nan")
    assert same({"a": [1.0, nan]}, {"a": [1.0, nan]})
    assert not same([1], [1, 2])
    assert not same(None, 0)
    assert not same(1.0, 1.0 + 1e-12)
    assert same(1.0, 1.0 + 1e-12, inexact=True)
    assert not same("1", 1)
