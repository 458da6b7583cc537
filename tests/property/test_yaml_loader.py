"""Whatever is in the files, loading gives a catalog or a DefinitionError that says where."""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daedalus.catalog.registry import FeatureCatalog
from daedalus.catalog.yaml_reader import parse_yaml
from daedalus.errors import DefinitionError
from support.projects import PROJECT, write
from support.yaml_mutations import VALUES, mutate, paths

SERVICE = (
    PROJECT["services/ranking.yaml"]
    + """\
  - {ref: events:country, default: 0, nullable: false, dtype: INTEGER}
  - {ref: embedding:image, dtype: "HALF_FLOAT[]", shape: {dimension: 8}, default_sql: "[]"}
  - derived:old
static_columns: [artworks:kind]
aggregation_specs:
  - {name: n, group_by: [user_id], operation: list, value_column: kind, condition: "hist.event = 'x'"}
lookbacks: [{name: l, view: users, on: {author: user_id}, value_column: age, window_days: 3, max_items: 3}]
age_columns: [{name: days, created: users:registered_at}]
derived: [{name: old, sql: days > 3}]
session_column: session
session_filter: {event_column: event, view_events: [v], like_events: [l], drop_view_only: true}
curation: [{name: c, column: kind, sql: upper(kind)}]
content_filter: [{name: f, sql: age > 3}]
"""
)
FILES = PROJECT | {
    "services/ranking.yaml": SERVICE,
    "views/entities.yaml": "entities: [{name: city, keys: [city]}]",
}
TREES = {name: parse_yaml(text, file=name).tree for name, text in FILES.items()}


def load(files: dict[str, bytes]) -> FeatureCatalog:
    folder = Path(tempfile.mkdtemp(prefix="daedalus-"))
    try:
        write(folder, dict.fromkeys(FILES, ""))
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return FeatureCatalog.from_yaml_dir(folder / "views", services_dir=folder / "services")
    finally:
        shutil.rmtree(folder)


def check(files: dict[str, bytes]) -> None:
    """Load, and take nothing but a catalog or a well-formed DefinitionError."""
    try:
        catalog = load(files)
    except DefinitionError as error:
        for problem in error.problems or (error,):
            assert problem.what
            assert ".yaml" in problem.where, str(problem)
    else:
        assert "ranking" in catalog.services or "ranking" not in str(files)


def encoded(trees: dict[str, Any]) -> dict[str, bytes]:
    return {name: yaml.safe_dump(tree, allow_unicode=True).encode() for name, tree in trees.items()}


def test_the_files_that_are_mutated_are_valid() -> None:
    assert "ranking" in load(encoded(TREES)).services


PLACES = [(name, path) for name, tree in TREES.items() for path in paths(tree)]
MUTATIONS = st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(["set", "delete", "rename", "twice"]), VALUES),
    min_size=1,
    max_size=3,
)


@given(MUTATIONS)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_valid_files_with_mistakes(mutations: list[tuple[Any, str, Any]]) -> None:
    trees = copy.deepcopy(TREES)
    for place, how, value in mutations:
        mutate(trees, place, how, value)
    check(encoded(trees))


@given(st.sampled_from(sorted(FILES)), VALUES)
@settings(deadline=None)
def test_any_yaml_in_a_file(name: str, value: Any) -> None:
    check(encoded(TREES | {name: value}))


@given(st.sampled_from(sorted(FILES)), st.data())
@settings(deadline=None)
def test_damaged_text(name: str, data: st.DataObject) -> None:
    text = FILES[name].encode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 6)))
    piece = data.draw(
        st.one_of(st.binary(max_size=4), st.sampled_from([b"&a ", b"*a", b": ", b"- ", b"\n", b"{", b"!!x "]))
    )
    check({key: value.encode() for key, value in FILES.items()} | {name: text[:start] + piece + text[end:]})
