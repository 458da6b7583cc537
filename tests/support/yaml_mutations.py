"""Mistakes in YAML files: trees with values set, deleted, renamed and doubled."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = (
    "users|user|events:event|users:age|age|BIGINT[]|STRUCT(a INT)|hist.event|age > 3|now()|rolling:x|"
    "derived:old|asof|${base.x}|${ENV}|../x||'|90d|list|2026-01-01| "
)
WORDS = st.sampled_from(NAMES.split("|"))
LEAVES = st.one_of(WORDS, st.none(), st.booleans(), st.integers(-3, 10**20), st.floats(), st.text(max_size=8))
KEYS = st.one_of(
    st.sampled_from(
        ["name", "ref", "sql", "on", "view", "dtype", "path", "keys", "default", "shape", "dimension"]
    ),
    st.text(max_size=5),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)


def paths(tree: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree."""
    parts: list[Any] = (
        list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    )
    below = [path for part in parts for path in paths(tree[part], (*prefix, part))]
    return ([prefix] if prefix else []) + below


def mutate(trees: dict[str, Any], place: tuple[str, tuple[Any, ...]], how: str, value: Any) -> None:
    """Make one mistake at one place of one of the trees; a place that an earlier mistake removed is left."""
    name, path = place
    parent = trees[name]
    for part in path[:-1]:
        if not isinstance(parent, dict | list) or (isinstance(parent, list) and not _index(part, parent)):
            return
        parent = parent.get(part) if isinstance(parent, dict) else parent[part]
    last = path[-1]
    if isinstance(parent, dict) and last in parent:
        old = parent.pop(last) if how in {"delete", "rename"} else parent[last]
        if how == "rename":
            parent[f"{last}{value if isinstance(value, str) else 'x'}"] = old
        elif how != "delete":
            parent[last] = value if how == "set" else [old, old]
    elif isinstance(parent, list) and _index(last, parent):
        if how == "delete":
            del parent[last]
        else:
            parent[last:last] = [value if how != "twice" else parent[last]]


def _index(step: Any, items: list[Any]) -> bool:
    return isinstance(step, int) and step < len(items)
