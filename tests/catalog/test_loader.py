"""Valid definitions, and what they become."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from daedalus.catalog.aggregation import AggregationSpec, Operation
from daedalus.catalog.model import (
    AgeColumn,
    DataSourceDef,
    EntityKey,
    FeatureColumnRef,
    FieldDef,
    JoinMode,
    Lookback,
    ServiceColumn,
    SessionFilter,
    SqlStep,
    Unset,
    ViewJoin,
)
from daedalus.catalog.registry import ENTITIES, FeatureCatalog
from daedalus.errors import DefinitionError
from support.projects import EVENTS, PROJECT, SERVICE, load, write

FULL = """\
name: full
version: "2026-06-27.2"
owner: recsys
description: everything
tags: [a, b]
spine: events
grain: [user_id, event_timestamp]
serving_allowed: true
views:
  - {view: users, join: asof}
  - {view: artworks}
  - {view: artworks, alias: other, on: {author: artwork_id}}
static_columns: [artworks:kind]
aggregation_specs:
  - {name: kinds_7d, group_by: [user_id], value_column: kind, operation: list, window_days: 7, max_items: 8,
     condition: "hist.event = 'like'"}
  - {name: likes, group_by: [user_id], operation: count}
lookbacks:
  - {name: published, view: users, on: {author: user_id}, value_column: age, window_days: 30, max_items: 4}
age_columns:
  - {name: user_days, created: users:registered_at}
derived:
  - {name: is_old, sql: "user_days > 100"}
  - {name: is_very_old, sql: "is_old AND age > 60"}
session_column: session
session_filter: {event_column: event, view_events: [view], like_events: [like], drop_view_only: true}
curation:
  - {name: fix_kind, column: kind, sql: "upper(kind)"}
  - {name: fix_kind_again, column: kind, sql: "kind || '!'"}
content_filter:
  - {name: drop, sql: "other__kind IS DISTINCT FROM 'X' AND artworks__author > 0 AND likes < 9"}
columns:
  - {name: id, ref: events:user_id, dtype: BIGINT}
  - events:event
  - {ref: events:country, default: 0, nullable: false}
  - {ref: users:tags, default: [none]}
  - {name: kind, ref: other:kind, default: null}
  - rolling:kinds_7d
  - rolling:from_the_project
  - lookback:published
  - age:user_days
  - derived:is_very_old
  - {ref: users:vector, dtype: "HALF_FLOAT[]", shape: {dimension: 4}}
  - ref: embedding:image
    dtype: "HALF_FLOAT[]"
    shape: {dimension: 1152}
    default_sql: "CAST(NULL AS FLOAT[])"
  - {ref: embedding:other, dtype: "FLOAT[16]"}
  - {name: score, dtype: DOUBLE, default: 0.5}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, PROJECT)
    return tmp_path


def test_a_view(project: Path) -> None:
    view = load().view("users")
    assert view.join_keys == ["user_id"]
    assert view.features == view.fields
    assert view.fields == (
        FieldDef(name="user_id", dtype="BIGINT"),
        FieldDef(name="updated_at", dtype="TIMESTAMP"),
        FieldDef(name="ingested", dtype="TIMESTAMP"),
        FieldDef(name="seq", dtype="BIGINT"),
        FieldDef(name="age", dtype="INTEGER"),
        FieldDef(name="registered_at", dtype="TIMESTAMP"),
        FieldDef(name="tags", dtype="VARCHAR[]"),
        FieldDef(name="vector", dtype="FLOAT[4]"),
    )
    assert view.source == DataSourceDef(
        path="users", timestamp_field="updated_at", created_field="ingested", sequence_field="seq"
    )
    assert (view.ttl_seconds, view.delay_seconds, view.online) == (90 * 86_400, 0.0, False)
    assert view.field_mapping == (("uid", "user_id"),)
    assert view.file == "views/users.yaml"


def test_special_fields_may_be_named_as_in_the_source(project: Path) -> None:
    text = """
        name: users
        entity: user
        source: {path: x, timestamp_field: ts_ms, timestamp_unit: s, created_field: born, sequence_field: n}
        field_mapping: {ts_ms: updated_at, born: created_at, n: number}
        fields: [{name: updated_at, dtype: BIGINT}, {name: number, dtype: SMALLINT, nullable: false}]
        delay_seconds: 1.5
        ttl: 1.5h
        online: true
        """
    write(
        project, {"views/users.yaml": text, "services/ranking.yaml": SERVICE.replace("  - users:age\n", "")}
    )
    view = load().view("users")
    assert (view.source.timestamp_field, view.source.timestamp_unit) == ("updated_at", "s")
    assert (view.source.created_field, view.source.sequence_field) == ("created_at", "number")
    assert [(field.name, field.dtype) for field in view.fields] == [
        ("user_id", "BIGINT"),
        ("created_at", "TIMESTAMP"),
        ("updated_at", "BIGINT"),
        ("number", "SMALLINT"),
    ]
    assert (view.ttl_seconds, view.delay_seconds, view.online) == (5400.0, 1.5, True)


def test_databases_and_their_credentials(project: Path) -> None:
    text = """
        name: users
        entity: user
        source:
          database_path: snowflake://acme
          query: SELECT * FROM users
          timestamp_field: updated_at
          user: ${SF_USER}
          warehouse: small
          credentials: {private_key: "${SF_KEY}", role: reader, port: 443}
        fields: [{name: age, dtype: INTEGER}]
        """
    write(project, {"views/users.yaml": text})
    view = load().view("users")
    assert view.source.credentials == (
        ("user", "${SF_USER}"),
        ("warehouse", "small"),
        ("private_key", "${SF_KEY}"),
        ("role", "reader"),
        ("port", "443"),
    )


def test_a_service(project: Path) -> None:
    write(project, {"services/full.yaml": FULL})
    service = load().service("full")
    assert (service.version, service.spine, service.serving_allowed) == ("2026-06-27.2", "events", True)
    assert service.views == (
        ViewJoin(view="users", alias="users", join=JoinMode.ASOF),
        ViewJoin(view="artworks", alias="artworks"),
        ViewJoin(view="artworks", alias="other", on=(("author", "artwork_id"),)),
    )
    assert service.static_columns == (FeatureColumnRef("artworks", "kind"),)
    assert service.aggregation_specs[1] == AggregationSpec(
        name="likes", group_by=("user_id",), operation=Operation.COUNT
    )
    assert service.lookbacks == (
        Lookback(
            name="published",
            view="users",
            on=(("author", "user_id"),),
            value_column="age",
            window_days=30,
            max_items=4,
        ),
    )
    assert service.age_columns == (
        AgeColumn(name="user_days", created=FeatureColumnRef("users", "registered_at")),
    )
    assert service.derived[0] == SqlStep(name="is_old", sql="user_days > 100", column="is_old")
    assert service.curation[0] == SqlStep(name="fix_kind", sql="upper(kind)", column="kind")
    assert service.session_filter == SessionFilter(
        session_column="session",
        event_column="event",
        view_events=("view",),
        like_events=("like",),
        drop_view_only=True,
    )
    columns = {column.name: column for column in service.columns}
    assert list(columns)[:3] == ["id", "event", "country"]
    assert columns["event"] == ServiceColumn(name="event", ref=FeatureColumnRef("events", "event"))
    assert columns["country"].default == 0
    assert columns["country"].nullable is False
    assert columns["kind"].default is None
    assert columns["event"].default is Unset.UNSET
    assert (columns["image"].dtype, columns["image"].dimension) == ("HALF_FLOAT[]", 1152)
    assert (columns["other"].dtype, columns["other"].dimension) == ("FLOAT[16]", 16)
    assert columns["score"] == ServiceColumn(name="score", dtype="DOUBLE", default=0.5)


def test_constants_of_the_project(project: Path) -> None:
    text = SERVICE + '  - {ref: users:vector, shape: {dimension: "${base.dim}"}}\n  - ${base.more}\n'
    write(project, {"services/ranking.yaml": text})
    catalog = load(constants={"dim": 4, "more": ["users:tags", "events:event"]})
    columns = catalog.service("ranking").columns
    assert [column.name for column in columns] == ["user_id", "age", "vector", "tags", "event"]
    assert columns[2].dimension == 4


def test_lines_after_a_constant_that_is_several_items(project: Path) -> None:
    text = SERVICE + "  - ${base.one}\n  - events:evnt\n"
    line = text.count("\n")
    for one, where in (
        (["users:tags"], line),
        (["users:tags", "users:vector"], text[: text.index("columns:")].count("\n") + 1),
    ):
        write(project, {"services/ranking.yaml": text})
        with pytest.raises(DefinitionError, match=rf"services/ranking.yaml:{where}, .*events:evnt"):
            load(constants={"one": one})


def test_anchors_and_merges(project: Path) -> None:
    text = SERVICE + "curation:\n  - &c {name: a, column: age, sql: age + 1}\n  - {<<: *c, name: b}\n"
    write(project, {"services/ranking.yaml": text})
    assert [(step.name, step.sql) for step in load().service("ranking").curation] == [
        ("a", "age + 1"),
        ("b", "age + 1"),
    ]


def test_entities_of_a_project(project: Path) -> None:
    entities = """
        entities:
          - {name: plane, keys: [{name: tailnum, dtype: text}], description: An aircraft.}
          - {name: route, keys: [origin_id, {name: dest_id, dtype: INT}]}
        """
    write(project, {"views/entities.yaml": entities})
    catalog = load()
    assert list(catalog.entities) == ["user", "artwork", "plane", "route"]
    assert catalog.entity("route").keys == (
        EntityKey(name="origin_id", dtype="BIGINT"),
        EntityKey(name="dest_id", dtype="INTEGER"),
    )
    assert catalog.entity("plane").keys == (EntityKey(name="tailnum", dtype="VARCHAR"),)
    assert catalog.entity("plane").description == "An aircraft."
    (project / "mine.yaml").write_text("entities: [{name: city, keys: [city]}]")
    assert "city" in load(entities_file="mine.yaml").entities


def test_shipped_entities() -> None:
    assert ENTITIES["user"].join_keys == ["user_id"]
    assert ENTITIES["artwork"].join_keys == ["artwork_id"]
    with pytest.raises(TypeError):
        ENTITIES["user"] = ENTITIES["artwork"]  # type: ignore[index]


def test_views_alone(project: Path) -> None:
    write(
        project,
        {"views/.hidden.yaml": "[", "views/notes.txt": "[", "views/more.yml": EVENTS.replace("events", "e2")},
    )
    catalog = FeatureCatalog.from_yaml_dir(project / "views")
    assert list(catalog.views) == ["artworks", "events", "e2", "users"]
    assert not catalog.services
    assert repr(catalog) == "<FeatureCatalog: 4 views, 0 services, 2 entities>"


def test_a_catalog_is_read_only_and_pickles(project: Path) -> None:
    catalog = load()
    assert pickle.loads(pickle.dumps(catalog)) == catalog
    with pytest.raises(TypeError):
        catalog.views["x"] = catalog.views["users"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        catalog.views = {}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("view", "user", "unknown view 'user'. Did you mean 'users'?"),
        ("service", "zzz", "unknown service 'zzz'. Known: ranking."),
        ("entity", "artwrk", "unknown entity 'artwrk'. Did you mean 'artwork'?"),
    ],
)
def test_looking_up_what_is_not_there(project: Path, kind: str, name: str, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        getattr(load(), kind)(name)
    assert str(caught.value) == message


def test_loading_imports_neither_arrow_nor_pandas() -> None:
    import subprocess
    import sys

    code = """
import sys
from daedalus.catalog.registry import FeatureCatalog
FeatureCatalog.from_yaml_dir(sys.argv[1], services_dir=sys.argv[2])
heavy = {"pyarrow", "pandas", "polars", "ray", "lance", "numba", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    examples = Path(__file__).parents[2] / "examples" / "flights"
    command = [
        sys.executable,
        "-c",
        code,
        str(examples / "feature_views"),
        str(examples / "feature_services"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_pieces_of_the_documents() -> None:
    """The names under which definitions are imported."""
    import daedalus.catalog as facade

    assert facade.FeatureCatalog is FeatureCatalog
    assert facade.ENTITIES is ENTITIES
    assert all(getattr(facade, name).__module__.startswith("daedalus.") for name in facade.__all__[1:])
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = facade.Nothing
