"""Random valid edits of a service are classed as their generator says, alone and together."""

from __future__ import annotations

import copy
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daedalus.catalog.lock_file import FORMAT, lock_text, read_lock
from daedalus.catalog.registry import FeatureCatalog
from daedalus.catalog.versioning import diff_schemas, diff_service, service_schema
from daedalus.errors import DefinitionError
from support.projects import ARTWORKS, EVENTS, USERS

SERVICE = """\
name: ranking
version: "2026-06-27"
owner: recsys
tags: [a, b]
spine: events
grain: [user_id, artwork_id]
views:
  - {view: users, join: asof}
  - artworks
  - {view: users, alias: authors, "on": {author: user_id}}
static_columns: [artworks:kind]
aggregation_specs:
  - {name: kinds, group_by: [user_id], operation: list, value_column: kind, condition: "hist.event = 'x'",
     window_days: 7, max_items: 32}
  - {name: ages, group_by: [author], history_view: users, history_group_by: [user_id],
     history_timestamp_column: updated_at, operation: last, value_column: age, condition: "hist.age > 1",
     window_days: 30}
lookbacks: [{name: recent, view: users, "on": {author: user_id}, value_column: age, window_days: 3, max_items: 3}]
age_columns: [{name: days, created: users:registered_at}]
derived:
  - {name: old, sql: days > 3}
  - {name: adult, sql: "coalesce(age, 0) >= 18 AND old"}
session_column: session
session_filter: {session_column: session, event_column: event, view_events: [v, w], like_events: [l],
                 drop_view_only: true}
curation:
  - {name: c, column: kind, sql: upper(kind)}
  - {name: d, column: tags, sql: "list_sort(tags)"}
content_filter:
  - {name: f, sql: age > 3}
  - {name: g, sql: "kind <> 'none'"}
columns:
  - events:user_id
  - events:artwork_id
  - events:event
  - {ref: events:country, default: 0, nullable: false, dtype: INTEGER}
  - users:age
  - {ref: authors:age, name: author_age}
  - users:tags
  - {ref: users:vector, dtype: "FLOAT[4]"}
  - artworks:kind
  - rolling:kinds
  - rolling:ages
  - lookback:recent
  - age:days
  - derived:adult
"""
FILES = {
    "views/events.yaml": EVENTS,
    "views/users.yaml": USERS,
    "views/artworks.yaml": ARTWORKS,
    "services/ranking.yaml": SERVICE,
}
Tree = dict[str, dict[str, Any]]
BASE: Tree = {name: yaml.safe_load(text) for name, text in FILES.items()}


def schema(tree: Tree, *, style: bool | None = None) -> dict[str, Any]:
    """The logical schema of the project, read back from YAML files of the given style."""
    with tempfile.TemporaryDirectory() as folder:
        for name, body in tree.items():
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            comment = "# a comment\n" if style else ""
            path.write_text(comment + yaml.safe_dump(body, sort_keys=False, default_flow_style=style))
        catalog = FeatureCatalog.from_yaml_dir(f"{folder}/views", services_dir=f"{folder}/services")
        return service_schema(catalog.service("ranking"), catalog)


LOCKED = schema(BASE)


def service(tree: Tree) -> dict[str, Any]:
    return tree["services/ranking.yaml"]


def column(tree: Tree, ref: str) -> dict[str, Any]:
    """The column of that reference, as a mapping."""
    columns = service(tree)["columns"]
    for number, one in enumerate(columns):
        if one == ref:
            columns[number] = {"ref": ref}
        if (one if isinstance(one, str) else one["ref"]) == ref:
            return columns[number]
    raise KeyError(ref)


def shuffled(value: Any, draw: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        draw.shuffle(keys)
        return {key: shuffled(value[key], draw) for key in keys}
    return [shuffled(item, draw) for item in value] if isinstance(value, list) else value


def rename_alias(tree: Tree) -> None:
    """`users` is joined as `u`: its columns are written `u__age` where they were `age`."""
    one = service(tree)
    one["views"][0]["alias"] = "u"
    one["age_columns"][0]["created"] = "u:registered_at"
    column(tree, "users:age").update(ref="u:age", name="age")
    column(tree, "users:tags").update(ref="u:tags", name="tags")
    column(tree, "users:vector").update(ref="u:vector", name="vector")
    one["derived"][1]["sql"] = "coalesce(u__age, 0) >= 18 AND old"
    one["curation"][1].update(column="u__tags", sql="list_sort(u__tags)")
    one["content_filter"][0]["sql"] = "u__age > 3"


def change(part: str, index: int, **values: Any):
    return lambda tree: service(tree)[part][index].update(values)


def put(**values: Any):
    return lambda tree: service(tree).update(values)


def in_view(name: str, **values: Any):
    return lambda tree: tree[f"views/{name}.yaml"].update(values)


def in_column(ref: str, **values: Any):
    return lambda tree: column(tree, ref).update(values)


def swap(part: str):
    def edit(tree: Tree) -> None:
        service(tree)[part].reverse()

    return edit


def insert(position: int, ref: str):
    return lambda tree: service(tree)["columns"].insert(position, ref)


def remove(part: str, index: int):
    return lambda tree: service(tree)[part].pop(index)


def rename_derived(tree: Tree) -> None:
    service(tree)["derived"][0]["name"] = "aged"
    service(tree)["derived"][1].update(name="grown", sql="coalesce(age, 0) >= 18 AND aged")
    column(tree, "derived:adult").update(ref="derived:grown", name="adult")


def rename_spec(tree: Tree) -> None:
    service(tree)["aggregation_specs"][0]["name"] = "sorts"
    column(tree, "rolling:kinds").update(ref="rolling:sorts", name="kinds")


def rename_lookback(tree: Tree) -> None:
    service(tree)["lookbacks"][0]["name"] = "lately"
    column(tree, "lookback:recent").update(ref="lookback:lately", name="recent")


def rename_age(tree: Tree) -> None:
    service(tree)["age_columns"][0]["name"] = "since"
    column(tree, "age:days").update(ref="age:since", name="days")
    service(tree)["derived"][0]["sql"] = "since > 3"


def spec(index: int, **values: Any):
    return change("aggregation_specs", index, **values)


def clash(tree: Tree) -> None:
    """Another view gets a field called `age`: the old one is now written `users__age`."""
    tree["views/artworks.yaml"]["fields"].append({"name": "age", "dtype": "BIGINT"})
    service(tree)["derived"][1]["sql"] = "coalesce(users__age, 0) >= 18 AND old"
    service(tree)["content_filter"][0]["sql"] = "users__age > 3"


EDITS = {
    "none": {
        "view words": in_view("users", description="people", owner="somebody", tags=["x"]),
        "source moved": lambda tree: tree["views/users.yaml"]["source"].update(path="elsewhere/users"),
        "source column renamed": in_view("users", field_mapping={"USER_ID": "user_id"}),
        "field described": lambda tree: tree["views/artworks.yaml"]["fields"][1].update(description="sort"),
        "unread field added": lambda tree: tree["views/events.yaml"]["fields"].append(
            {"name": "more", "dtype": "TEXT"}
        ),
        "dimension beside the dtype": in_column("users:vector", dtype="FLOAT[]", shape={"dimension": 4}),
        "dtype left to the view": in_column("users:vector", dtype=None),
        "type spelled otherwise": lambda tree: tree["views/users.yaml"]["fields"][2].update(
            dtype="varchar[]"
        ),
        "name written out": in_column("users:tags", name="tags"),
        "default that fills nothing": in_column("users:age", default=0),
        "NULL as a default": in_column("artworks:kind", default=None),
        "filters in another order": swap("content_filter"),
        "events in another order": lambda tree: service(tree)["session_filter"]["view_events"].reverse(),
        "tags in another order": swap("tags"),
        "a like event nobody asks about": lambda tree: service(tree)["session_filter"]["like_events"].append(
            "m"
        ),
        "keys written out": lambda tree: service(tree)["views"][0].update(on={"user_id": "user_id"}),
        "an unread spec": lambda tree: service(tree)["aggregation_specs"].append(
            {"name": "n", "group_by": ["user_id"], "operation": "count", "window_days": 1}
        ),
        "latest said aloud": lambda tree: service(tree)["views"].__setitem__(
            1, {"view": "artworks", "join": "latest"}
        ),
        "white space": change("derived", 1, sql="coalesce(age,   0) >= 18\n AND old"),
        "window as a float": spec(0, window_days=7.0),
        "a spec's defaults said aloud": spec(0, include_current=False, delay_seconds=0, exclude_self=False),
        "an unread view": lambda tree: service(tree)["views"].append(
            {"view": "users", "alias": "nobody", "on": {"author": "user_id"}}
        ),
        "views in another order": swap("views"),
        "an unread derived column": lambda tree: service(tree)["derived"].append(
            {"name": "young", "sql": "age < 3"}
        ),
        "entities in another order": in_view("events", entity=["artwork", "user"]),
        "optional where nothing is filled": lambda tree: tree["views/users.yaml"]["fields"][0].update(
            optional=True
        ),
        "a field of the history that no spec reads": lambda tree: tree["views/users.yaml"]["fields"].append(
            {"name": "more", "dtype": "TEXT"}
        ),
    },
    "cosmetic": {
        "described": put(description="what it is for"),
        "owned": put(owner="ranking team"),
        "tagged": put(tags=["a", "b", "c"]),
        "version only": put(version="2026-06-27.1"),
        "case and quotes": change("derived", 1, sql='COALESCE("age", 0) >= 18 and old'),
        "condition written otherwise": spec(0, condition="(hist.\"event\" = 'x')"),
        "spec renamed": rename_spec,
        "lookback renamed": rename_lookback,
        "age renamed": rename_age,
        "parentheses": change("derived", 1, sql="(coalesce(age, 0) >= 18) AND (old)"),
        "spine seen later": in_view("events", delay_seconds=60),
        "spine seen for some time": in_view("events", ttl="30d"),
        "filter renamed": change("content_filter", 0, name="only_adults"),
        "curation renamed": change("curation", 0, name="upper_kind"),
        "derived renamed": rename_derived,
        "alias": rename_alias,
        "a name that became ambiguous": clash,
        "grain in another order": swap("grain"),
    },
    "additive": {
        "a column at the end": insert(99, "events:author"),
        "a computed column at the end": insert(99, "derived:old"),
        "served": put(serving_allowed=True),
        "a dimension is promised": lambda tree: column(tree, "rolling:kinds").update(shape={"dimension": 32}),
    },
    "breaking": {
        "a column is gone": remove("columns", 3),
        "columns turned round": swap("columns"),
        "a column at the front": insert(0, "events:author"),
        "renamed": in_column("users:age", name="user_age"),
        "another dtype": in_column("users:age", dtype="BIGINT"),
        "another dtype in the view": lambda tree: tree["views/users.yaml"]["fields"][2].update(
            dtype="BIGINT[]"
        ),
        "another dimension": lambda tree: (
            tree["views/users.yaml"]["fields"][3].update(dtype="FLOAT[8]"),
            column(tree, "users:vector").update(dtype="FLOAT[8]"),
        ),
        "another default": in_column("events:country", default=1),
        "may be NULL": lambda tree: column(tree, "events:country").update(nullable=True),
        "NULL is filled": in_column("users:age", nullable=False, default=0),
        "another source": lambda tree: column(tree, "artworks:kind").update(
            ref="users:registered_at", name="kind"
        ),
        "window": spec(0, window_days=8),
        "no window": spec(0, window_days=None),
        "fewer items": spec(0, max_items=16),
        "condition": spec(0, condition="hist.event = 'y'"),
        "no condition": spec(0, condition=None),
        "operation": spec(0, operation="count_distinct", max_items=None),
        "keys of a spec": spec(0, group_by=["artwork_id"]),
        "value of a spec": spec(0, value_column="event"),
        "a spec's own row": spec(0, include_current=True),
        "a spec's own value": spec(0, exclude_self=True),
        "delay of a spec": spec(0, delay_seconds=60),
        "history's condition": spec(1, condition="hist.age > 2"),
        "history's keys": spec(1, group_by=["user_id"], history_group_by=None),
        "history's value": spec(1, operation="count", value_column=None),
        "value of a lookback": change("lookbacks", 0, value_column="registered_at"),
        "keys of a lookback": change("lookbacks", 0, on={"artwork_id": "user_id"}),
        "window of a lookback": change("lookbacks", 0, window_days=4),
        "keys of a role": lambda tree: service(tree)["views"][2].update(on={"artwork_id": "user_id"}),
        "what decides among equals": lambda tree: tree["views/users.yaml"]["source"].pop("sequence_field"),
        "order of the spine": lambda tree: tree["views/events.yaml"]["source"].update(
            sequence_field="author"
        ),
        "sessions of another column": put(session_column="event"),
        "spine refuses NULL": lambda tree: tree["views/events.yaml"]["fields"][0].update(nullable=False),
        "lookback": change("lookbacks", 0, max_items=4),
        "age of another time": lambda tree: service(tree)["age_columns"][0].update(
            created="artworks:published_at"
        ),
        "derived": change("derived", 0, sql="days > 4"),
        "curation": change("curation", 0, sql="lower(kind)"),
        "curation gone": remove("curation", 0),
        "curation of another column": change("curation", 1, column="kind", sql="list_sort(tags)[1]"),
        "curations turned round": lambda tree: (
            service(tree)["curation"].append({"name": "e", "column": "kind", "sql": "lower(kind)"}),
            swap("curation")(tree),
        ),
        "join mode": lambda tree: service(tree)["views"][0].pop("join"),
        "join keys": lambda tree: service(tree)["views"][0].update(on={"author": "user_id"}),
        "ttl": in_view("users", ttl="30d"),
        "delay": in_view("users", delay_seconds=60),
        "known later": lambda tree: tree["views/users.yaml"]["source"].pop("created_field"),
        "event time": lambda tree: (
            tree["views/users.yaml"]["source"].update(timestamp_field="registered_at"),
            spec(1, history_timestamp_column="registered_at")(tree),
        ),
        "other grain": put(grain=["user_id"]),
        "no sessions": lambda tree: service(tree).pop("session_column"),
        "session filter": lambda tree: service(tree)["session_filter"]["view_events"].append("z"),
        "session filter off": lambda tree: service(tree).pop("session_filter"),
        "a filter more": lambda tree: service(tree)["content_filter"].append(
            {"name": "h", "sql": "age < 99"}
        ),
        "a filter less": remove("content_filter", 0),
        "a filter otherwise": change("content_filter", 0, sql="age > 4"),
    },
}
SINGLE = [(kind, name) for kind, edits in EDITS.items() for name in edits]
RANK = ["none", "cosmetic", "additive", "breaking"]
#: Edits that touch different parts, so that any set of them is valid and none undoes another.
TOGETHER = [
    ("none", "view words"),
    ("none", "source moved"),
    ("none", "unread field added"),
    ("none", "dimension beside the dtype"),
    ("none", "filters in another order"),
    ("none", "tags in another order"),
    ("cosmetic", "described"),
    ("cosmetic", "owned"),
    ("cosmetic", "condition written otherwise"),
    ("cosmetic", "grain in another order"),
    ("additive", "a column at the end"),
    ("additive", "served"),
    ("breaking", "another default"),
    ("breaking", "lookback"),
    ("breaking", "join mode"),
    ("breaking", "a filter more"),
    ("breaking", "session filter"),
]


def kinds(tree: Tree, style: bool | None = None) -> list[str]:
    return [change.kind.value for change in diff_service("ranking", LOCKED, schema(tree, style=style))]


def worst(found: list[str]) -> str:
    return max(found, key=RANK.index, default="none")


@pytest.mark.parametrize(("kind", "name"), SINGLE)
def test_each_edit_is_classed_as_it_should_be(kind, name):
    tree = copy.deepcopy(BASE)
    EDITS[kind][name](tree)
    changes = diff_service("ranking", LOCKED, schema(tree))
    assert worst([change.kind.value for change in changes]) == kind, changes
    assert all(change.reason and change.before != change.after for change in changes)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    edits=st.sets(st.sampled_from(TOGETHER), max_size=6),
    seed=st.integers(0, 2**16),
    style=st.sampled_from([None, True, False]),
)
def test_edits_together_are_the_sum_of_their_classes(edits, seed, style):
    tree = copy.deepcopy(BASE)
    draw = random.Random(seed)
    for kind, name in draw.sample(sorted(edits), len(edits)):
        EDITS[kind][name](tree)
    tree = {name: shuffled(body, draw) for name, body in tree.items()}
    found = kinds(tree, style)
    assert set(found) == {kind for kind, _ in edits if kind != "none"}
    # One line per edit: nothing cascades.
    assert len(found) == sum(kind != "none" for kind, _ in edits)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), style=st.sampled_from([None, True, False]))
def test_writing_the_same_otherwise_changes_nothing(seed, style):
    tree = {name: shuffled(body, random.Random(seed)) for name, body in BASE.items()}
    again = schema(tree, style=style)
    assert diff_service("ranking", LOCKED, again) == ()
    assert lock_text({"ranking": again}) == lock_text({"ranking": LOCKED})


def test_a_default_may_be_any_text():
    tree = copy.deepcopy(BASE)
    service(tree)["columns"].append({"name": "extra", "dtype": "TEXT", "default": "unset"})
    assert schema(tree)["columns"][-1]["default"] == "unset"


def test_what_only_materializations_see_breaks_a_service_that_is_served():
    tree = copy.deepcopy(BASE)
    service(tree)["serving_allowed"] = True
    locked = schema(tree)
    for name in ("spine seen later", "spine seen for some time"):
        edited = copy.deepcopy(tree)
        EDITS["cosmetic"][name](edited)
        assert [one.kind.value for one in diff_service("ranking", locked, schema(edited))] == ["breaking"]


def nodes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in plain data."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inside for found in nodes(item, (*path, key)))]


JUNK = [
    None,
    True,
    -1,
    1.5,
    "",
    "(",
    [],
    [1],
    ["a"],
    {},
    {"a": 1},
    {"sql": "("},
    [{"name": 1}],
    {"on": {"a": []}},
]


@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from([path for path in nodes(LOCKED) if path]), junk=st.sampled_from(["gone", *JUNK]))
def test_a_file_edited_by_hand_is_compared_or_refused(tmp_path_factory, path, junk):
    edited = copy.deepcopy(LOCKED)
    inside = edited
    for key in path[:-1]:
        inside = inside[key]
    if junk == "gone":
        del inside[path[-1]]
    else:
        inside[path[-1]] = copy.deepcopy(junk)
    file = tmp_path_factory.getbasetemp() / "edited.lock.json"
    file.write_text(json.dumps({"format": FORMAT, "services": {"ranking": edited}}))
    try:
        lock = read_lock(file)
    except DefinitionError:
        return
    assert lock is not None
    changes = diff_schemas(lock.services, {"ranking": LOCKED})
    assert len(changes) == len([change.to_dict() for change in changes])
    diff_schemas({"ranking": LOCKED}, lock.services)


def test_the_file_holds_the_schema(tmp_path):
    path = tmp_path / "registry.lock.json"
    path.write_text(lock_text({"ranking": LOCKED}))
    lock = read_lock(path)
    assert lock is not None
    assert lock.services == {"ranking": LOCKED}
