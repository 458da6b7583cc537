"""References and names of assembled columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daedalus.catalog.model import FeatureColumnRef
from daedalus.catalog.services import ServiceColumns, assembled_columns
from daedalus.errors import DefinitionError
from support.projects import PROJECT, SERVICE, load, write

if TYPE_CHECKING:
    from pathlib import Path

    from daedalus.catalog.model import FeatureServiceDef
    from daedalus.catalog.registry import FeatureCatalog

RICH = (
    SERVICE.replace(
        "  - artworks\n", "  - artworks\n  - {view: artworks, alias: made, on: {author: artwork_id}}\n"
    )
    + """\
  - rolling:elsewhere
static_columns: [artworks:kind]
aggregation_specs:
  - {name: kinds, group_by: [user_id], operation: list, value_column: kind}
  - {name: many, group_by: [user_id], operation: count_distinct, value_column: kind}
  - {name: latest, group_by: [user_id], operation: last, value_column: country}
  - {name: total, group_by: [user_id], operation: sum, value_column: country}
  - {name: average, group_by: [user_id], operation: mean, value_column: country}
  - {name: tags, group_by: [user_id], operation: flatten_distinct, value_column: tags, history_view: users,
     timestamp_column: event_timestamp, history_timestamp_column: updated_at}
lookbacks: [{name: ages, view: users, on: {author: user_id}, value_column: age}]
age_columns: [{name: days, created: made:published_at}]
derived:
  - {name: share, sql: "total / many"}
  - {name: later, sql: "elsewhere + 1"}
"""
)


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FeatureServiceDef, FeatureCatalog]:
    monkeypatch.chdir(tmp_path)
    text = RICH.replace("name: tags, group_by", "name: all_tags, group_by")
    write(tmp_path, PROJECT | {"services/ranking.yaml": text})
    catalog = load()
    return catalog.service("ranking"), catalog


def test_assembled_names(loaded: tuple[FeatureServiceDef, FeatureCatalog]) -> None:
    found = {name: (str(ref), dtype) for name, (ref, dtype) in assembled_columns(*loaded).items()}
    assert found == {
        # the spine's own
        "user_id": ("events:user_id", "BIGINT"),
        "artwork_id": ("events:artwork_id", "BIGINT"),
        "event_timestamp": ("events:event_timestamp", "TIMESTAMP"),
        "event": ("events:event", "VARCHAR"),
        "session": ("events:session", "VARCHAR"),
        "country": ("events:country", "INTEGER"),
        "author": ("events:author", "BIGINT"),
        # bare where that is clear
        "users__user_id": ("users:user_id", "BIGINT"),
        "updated_at": ("users:updated_at", "TIMESTAMP"),
        "ingested": ("users:ingested", "TIMESTAMP"),
        "seq": ("users:seq", "BIGINT"),
        "age": ("users:age", "INTEGER"),
        "registered_at": ("users:registered_at", "TIMESTAMP"),
        "tags": ("users:tags", "VARCHAR[]"),
        "vector": ("users:vector", "FLOAT[4]"),
        "artworks__artwork_id": ("artworks:artwork_id", "BIGINT"),
        "artworks__author": ("artworks:author", "BIGINT"),
        "kind": ("artworks:kind", "VARCHAR"),
        "published_at": ("artworks:published_at", "TIMESTAMPTZ"),
        # always with the alias
        "made__artwork_id": ("made:artwork_id", "BIGINT"),
        "made__author": ("made:author", "BIGINT"),
        "made__kind": ("made:kind", "VARCHAR"),
        "made__published_at": ("made:published_at", "TIMESTAMPTZ"),
        # computed
        "kinds": ("rolling:kinds", "VARCHAR[]"),
        "many": ("rolling:many", "BIGINT"),
        "latest": ("rolling:latest", "INTEGER"),
        "total": ("rolling:total", "BIGINT"),
        "average": ("rolling:average", "DOUBLE"),
        "all_tags": ("rolling:all_tags", "VARCHAR[]"),
        "ages": ("lookback:ages", "INTEGER[]"),
        "days": ("age:days", "BIGINT"),
        "share": ("derived:share", "DOUBLE"),
        # its spec is in aggregations.yaml, which the catalog does not read
        "later": ("derived:later", ""),
    }


def test_rolling_columns_of_the_project(loaded: tuple[FeatureServiceDef, FeatureCatalog]) -> None:
    found = assembled_columns(*loaded, rolling={"elsewhere": "INTEGER"})
    assert found["elsewhere"] == (FeatureColumnRef("rolling", "elsewhere"), "INTEGER")
    assert found["later"] == (FeatureColumnRef("derived", "later"), "INTEGER")


@pytest.mark.parametrize(
    ("ref", "name", "dtype", "view"),
    [
        ("events:user_id", "user_id", "BIGINT", "events"),
        ("users:age", "age", "INTEGER", "users"),
        ("made:kind", "made__kind", "VARCHAR", "artworks"),
        ("rolling:kinds", "kinds", "VARCHAR[]", None),
        ("rolling:elsewhere", "elsewhere", "", None),
        ("embedding:image", "", "", None),
        ("age:days", "days", "BIGINT", None),
    ],
)
def test_resolving(
    loaded: tuple[FeatureServiceDef, FeatureCatalog], ref: str, name: str, dtype: str, view: str | None
) -> None:
    found = ServiceColumns.of(*loaded).resolve(FeatureColumnRef.parse(ref))
    assert (found.name, found.dtype) == (name, dtype)
    assert (found.view.name if found.view else None) == view
    assert (found.field.name if found.field else None) == (ref.split(":")[1] if view else None)


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("users:agee", "unknown column 'users:agee'. Did you mean 'users:age'"),
        ("mde:kind", "unknown column 'mde:kind'. Did you mean 'made:kind'"),
        ("users:xyzzyxyzzy", "unknown column 'users:xyzzyxyzzy'. Known: age, ingested"),
        ("age:dayz", "unknown column 'age:dayz'. Did you mean 'age:days'"),
    ],
)
def test_what_does_not_resolve(
    loaded: tuple[FeatureServiceDef, FeatureCatalog], ref: str, message: str
) -> None:
    with pytest.raises(DefinitionError) as caught:
        ServiceColumns.of(*loaded).resolve(FeatureColumnRef.parse(ref))
    assert str(caught.value).startswith(message)
