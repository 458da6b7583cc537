"""Lineage tells the truth: change a field's values, and only the columns that name it among their origins change."""

from __future__ import annotations

import copy
import datetime as dt
import random
from typing import Any

import pytest

from daedalus.catalog.lineage import NodeKind, Role
from daedalus.catalog.lineage_views import to_mermaid
from daedalus.pipelines.lineage import pipeline_lineage
from daedalus.pipelines.operators import ArrowUdfTransform, OperatorPipeline
from support.project import Project, write_project

DAY = "2026-05-06"
EVENTS = {
    "name": "events",
    "entity": ["user", "artwork"],
    "source": {"path": "events", "timestamp_field": "ts", "sequence_field": "rid"},
    "field_mapping": {"kind_of_event": "event"},
    "fields": [
        {"name": "rid", "dtype": "BIGINT"},
        {"name": "event", "dtype": "TEXT"},
        {"name": "session", "dtype": "TEXT"},
        {"name": "score", "dtype": "DOUBLE"},
        {"name": "weight", "dtype": "DOUBLE"},
    ],
}
USERS = {
    "name": "users",
    "entity": "user",
    "ttl": "4d",
    "source": {"path": "users", "timestamp_field": "updated_at", "created_field": "known_at"},
    "fields": [
        {"name": "tier", "dtype": "TEXT"},
        {"name": "born", "dtype": "TIMESTAMP"},
        {"name": "known_at", "dtype": "TIMESTAMP"},
    ],
}
ARTWORKS = {
    "name": "artworks",
    "entity": "artwork",
    "source": {"path": "artworks", "timestamp_field": "updated_at"},
    "fields": [
        {"name": "author", "dtype": "BIGINT"},
        {"name": "genre", "dtype": "TEXT"},
        {"name": "price", "dtype": "DOUBLE"},
    ],
}
PUBLISHED = {
    "name": "published",
    "entity": "artwork",
    "source": {"path": "published", "timestamp_field": "at"},
    "fields": [{"name": "author", "dtype": "BIGINT"}],
}
SERVICE: dict[str, Any] = {
    "name": "s",
    "version": "2026-05-01",
    "spine": "events",
    "views": [{"view": "users", "join": "asof"}, {"view": "artworks"}],
    "static_columns": ["artworks:author"],
    "aggregation_specs": [
        {"name": name, "group_by": group, "timestamp_column": "ts", "operation": operation, "window_days": 3}
        | more
        for name, group, operation, more in (
            ("authors", ["user_id"], "list", {"value_column": "author", "condition": "hist.event = 'like'"}),
            ("seen", ["user_id"], "count", {}),
            ("gap", ["user_id"], "seconds_since_last", {"value_column": "artwork_id"}),
            ("others", ["user_id"], "list", {"value_column": "artwork_id", "exclude_self": True}),
            ("total", ["author"], "sum", {"value_column": "score"}),
        )
    ],
    "lookbacks": [
        {"name": "works", "view": "published", "on": {"user_id": "author"}, "value_column": "artwork_id"}
    ],
    "age_columns": [{"name": "age", "created": "users:born"}],
    "derived": [{"name": "rich", "sql": "coalesce(price, 0) > 5 AND tier = 'a'"}],
    "session_column": "session",
    "session_filter": {
        "session_column": "session",
        "event_column": "event",
        "view_events": ["view"],
        "like_events": ["like"],
        "drop_view_only": True,
    },
    "curation": [{"name": "c", "column": "genre", "sql": "CASE WHEN score > 1 THEN 'hot' ELSE genre END"}],
    "content_filter": [{"name": "f", "sql": "genre IS DISTINCT FROM 'banned'"}],
    "columns": [
        "events:rid",
        "events:user_id",
        "events:event",
        "events:weight",
        "users:tier",
        "artworks:genre",
        "artworks:author",
        "rolling:authors",
        "rolling:seen",
        "rolling:gap",
        "rolling:others",
        "rolling:total",
        "lookback:works",
        "age:age",
        "derived:rich",
    ],
}
#: The view's field and the column that holds it in the source.
FIELDS = [
    ("events:user_id", "user_id"),
    ("events:artwork_id", "artwork_id"),
    ("events:event", "kind_of_event"),
    ("events:ts", "ts"),
    ("events:session", "session"),
    ("events:score", "score"),
    ("users:tier", "tier"),
    ("users:known_at", "known_at"),
    ("users:updated_at", "updated_at"),
    ("artworks:author", "author"),
    ("artworks:genre", "genre"),
    ("published:at", "at"),
]


def _instant(day: int, minute: int) -> dt.datetime:
    return dt.datetime(2026, 5, day) + dt.timedelta(minutes=minute)  # noqa: DTZ001 - sources without a zone


def sources() -> dict[str, list[dict[str, Any]]]:
    draw = random.Random(4)
    events = [
        {
            "rid": n,
            "user_id": draw.randint(1, 4),
            "artwork_id": draw.randint(1, 8),
            "kind_of_event": draw.choice(["view", "view", "like", "click"]),
            "ts": _instant(3 + n // 40, draw.randrange(1440)),
            "session": f"s{n // 6}",
            "score": draw.randint(0, 8) / 4,
            "weight": float(draw.randint(0, 9)),
        }
        for n in range(160)
    ]
    users = [
        {
            "user_id": user,
            "tier": draw.choice("ab"),
            "born": _instant(1, draw.randrange(1440)) - dt.timedelta(days=draw.randrange(90)),
            "known_at": _instant(day, draw.randrange(700)),
            "updated_at": _instant(day, draw.randrange(700)),
        }
        for user in range(1, 5)
        for day in (1, 3, 6)
    ]
    artworks = [
        {
            "artwork_id": one,
            "author": draw.randint(1, 4),
            "genre": draw.choice(["x", "banned"]),
            "price": float(one),
        }
        | {"updated_at": _instant(1, one)}
        for one in range(1, 9)
    ]
    published = [
        {"artwork_id": one, "author": draw.randint(1, 4), "at": _instant(4, one * 60)} for one in range(1, 9)
    ]
    return {"events": events, "users": users, "artworks": artworks, "published": published}


def changed(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    """The rows with other values in one column."""
    draw = random.Random(9)
    found = copy.deepcopy(rows)
    for row in found:
        value = row[column]
        if isinstance(value, dt.datetime):
            row[column] = value + dt.timedelta(minutes=draw.randrange(-400, 400))
        elif isinstance(value, float):
            row[column] = float(draw.randint(0, 9))
        else:
            row[column] = draw.choice([one[column] for one in rows])
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return write_project(
        tmp_path_factory.mktemp("lineage"),
        views=[EVENTS, USERS, ARTWORKS, PUBLISHED],
        services=[SERVICE],
        data={f"{name}/part-0.parquet": rows for name, rows in sources().items()},
        engine="kernel",
    )


@pytest.fixture(scope="module")
def graph(project):
    return pipeline_lineage(project.pipeline("s"), project.catalog(project.config()))


def rows_of(project: Project, root: str) -> dict[int, dict[str, Any]]:
    run = project.run("s", [DAY], output_root=str(project.root / root))
    return {row["rid"]: row for row in run.rows(DAY)}


@pytest.mark.slow
def test_what_a_field_changes_names_it(project, graph):
    base = rows_of(project, "base")
    assert len(base) > 10
    told = {
        node.label if node.kind is NodeKind.OUTPUT else "*": {one.origin for one in graph.upstream(node.id)}
        for node in graph.of_kind(NodeKind.OUTPUT, NodeKind.OUTPUT_ROWS)
    }
    silent = []
    for field, column in FIELDS:
        view = field.partition(":")[0]
        project.write(f"{view}/part-0.parquet", changed(sources()[view], column))
        after = rows_of(project, f"out_{field.replace(':', '_')}")
        project.write(f"{view}/part-0.parquet", sources()[view])
        moved = {
            name for rid in base.keys() & after for name in base[rid] if base[rid][name] != after[rid][name]
        }
        moved |= {"*"} if base.keys() != after.keys() else set()
        assert not [name for name in moved if field not in told[name]], field
        if not moved:
            silent.append(field)
    # The test could not fail for a field whose change shows nowhere.
    assert silent == []


def origins(graph, column: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in graph.upstream(f"s:{column}"):
        found.setdefault(one.role.value, set()).add(one.origin)
    return found


def test_roles(graph):
    assert origins(graph, "weight") == {"value": {"events:weight"}}
    assert origins(graph, "tier") == {
        "value": {"users:tier"},
        "key": {"events:user_id", "users:user_id"},
        "time": {"events:ts", "users:updated_at", "users:known_at"},
    }
    authors = origins(graph, "authors")
    assert authors["value"] == {"artworks:author"}
    assert authors["filter"] == {"events:event"}
    assert {"events:user_id", "events:artwork_id"} <= authors["key"]
    assert origins(graph, "seen") == {"key": {"events:user_id"}, "time": {"events:ts"}}
    assert origins(graph, "gap")["value"] == {"events:ts"}
    assert origins(graph, "others")["filter"] == {"events:artwork_id"}
    assert origins(graph, "genre")["value"] == {"artworks:genre", "events:score"}
    assert origins(graph, "rich")["value"] == {"artworks:price", "users:tier"}
    rows = origins(graph, "*")
    assert {"events:event", "events:score", "artworks:genre"} <= rows["filter"]
    assert rows["key"] == {"events:session"}
    assert "value" not in rows


def test_downstream_is_upstream_turned_round(graph):
    up = {
        (one.origin, one.target, one.role)
        for node in graph.of_kind(NodeKind.OUTPUT, NodeKind.OUTPUT_ROWS)
        for one in graph.upstream(node.id)
    }
    down = {
        (one.origin, one.target, one.role)
        for node in graph.of_kind(NodeKind.FIELD, NodeKind.STORE)
        for one in graph.downstream(node.id)
    }
    assert up == down
    for one in graph.downstream("artworks:genre"):
        steps = list(zip(one.path, one.path[1:], strict=False))
        assert one.path[0] == "artworks:genre"
        assert one.path[-1] == one.target
        assert all(any((edge.source, edge.target) == step for edge in graph.edges) for step in steps)


def test_sources_are_named_as_the_source_names_them(graph):
    assert graph.sources_of("events:event") == ["events#kind_of_event"]


def test_the_dag_is_read_not_the_service(project):
    """An operator that is added by hand has lineage; one that is removed has none."""
    pipeline = project.pipeline("s")
    operators = list(pipeline.operators)
    place = next(n for n, one in enumerate(operators) if one.name == "ages")
    added = ArrowUdfTransform(
        name="doubled",
        inputs=operators[place].inputs,
        function="math:floor",
        arguments=("score",),
        column="weight",
        dtype="DOUBLE",
    )
    operators.insert(place, added)
    data = OperatorPipeline(service="s", version="x", operators=tuple(operators)).to_yaml_dict()
    data["operators"][place + 1]["inputs"] = ["doubled"]
    _remove(data, "filter_f")
    edited = OperatorPipeline.from_yaml_dict(data)
    graph = pipeline_lineage(edited, project.catalog(project.config()))
    assert origins(graph, "weight") == {"value": {"events:score"}}
    assert "artworks:genre" not in {one.origin for one in graph.upstream("s:*")}


def _remove(data: dict[str, Any], name: str) -> None:
    """Take an operator out; its readers read its input."""
    operator = next(one for one in data["operators"] if one["name"] == name)
    data["operators"].remove(operator)
    for one in data["operators"]:
        one["inputs"] = [operator["inputs"][0] if other == name else other for other in one.get("inputs", [])]


def test_mermaid_draws_every_node_and_edge(graph):
    text = to_mermaid(graph)
    lines = text.splitlines()
    assert lines[0] == "flowchart LR"
    arrows = [line for line in lines if "-->" in line or "-.->" in line]
    assert len(arrows) == len(graph.edges)
    assert sum("-->" in line for line in arrows) == sum(edge.role is Role.VALUE for edge in graph.edges)
    assert text.count("subgraph") == text.count("\n  end\n")


def test_a_part_of_the_graph(graph):
    part = graph.around(["s:weight"], down=False)
    assert set(part.nodes) == {"events#weight", "events:weight", "s:weight"}
    assert len(part.edges) == 2
