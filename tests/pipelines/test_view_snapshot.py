"""A view's newest visible row per entity, streamed: what the online store is filled from."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from daedalus.errors import DefinitionError, SourceError
from daedalus.pipelines.instants.view_snapshot import view_snapshot
from daedalus.platform import PlatformRegistry
from daedalus.platform.materialization import materialize_view, online_views
from pipelines.tiny import at, tiny

if TYPE_CHECKING:
    from pathlib import Path

    from support.project import Project

PROFILES = {
    "name": "profiles",
    "entity": "user",
    "online": True,
    "ttl": "10d",
    "delay_seconds": 3600,
    "source": {"path": "profiles", "timestamp_field": "updated_at", "created_field": "known_at"},
    "fields": [
        {"name": "tier", "dtype": "TEXT"},
        {"name": "vector", "dtype": "HALF_FLOAT[2]"},
        {"name": "tags", "dtype": "TEXT[]"},
    ],
}
#: user, updated, known, tier
ROWS = [
    (1, "2026-05-01 00:00", "2026-05-01 00:00", "old"),
    (1, "2026-05-02 09:00", "2026-05-02 09:00", "arrives exactly at ten"),
    (1, "2026-05-02 09:30", "2026-05-02 09:30", "arrives later"),
    (2, "2026-05-01 00:00", "2026-05-01 00:00", "known"),
    (2, "2026-05-02 00:00", "2026-05-02 10:00:00.000001", "not yet known"),
    (2, "2026-05-02 01:00", None, "never known"),
    (3, "2026-04-22 09:59:59.999999", "2026-04-22 10:00", "expired"),
    (4, "2026-04-22 10:00", "2026-04-22 10:00", "just valid"),
    (None, "2026-05-01 00:00", "2026-05-01 00:00", "nobody"),
]


def profiles() -> pa.Table:
    def times(column: int) -> pa.Array:
        return pa.array(
            [None if row[column] is None else at(row[column]) for row in ROWS], pa.timestamp("us")
        )

    return pa.table(
        {
            "user_id": pa.array([row[0] for row in ROWS], pa.int64()),
            "updated_at": times(1),
            "known_at": times(2),
            "tier": [row[3] for row in ROWS],
            "vector": pa.array([[0.5, None]] * len(ROWS), pa.list_(pa.float16(), 2)),
            "tags": pa.array([[], None, ["a"]] * 3, pa.list_(pa.string())),
        }
    )


def project_of(root: Path, **changes: Any) -> Project:
    project = tiny(root)
    project.define("feature_views", PROFILES | changes)
    project.write("profiles/a.parquet", profiles())
    return project


def read(project: Project, as_of: str, view: str = "profiles", **options: Any) -> pa.Table:
    registry = PlatformRegistry.open(project.root)
    with materialize_view(registry, view, as_of, **options) as snapshot:
        return pa.Table.from_batches(snapshot.batches, snapshot.schema)


def test_the_newest_row_that_has_arrived_was_known_and_has_not_expired(tmp_path: Path) -> None:
    table = read(project_of(tmp_path), "2026-05-02T10:00Z")
    assert table["user_id"].to_pylist() == [1, 2, 4]
    assert table["tier"].to_pylist() == ["arrives exactly at ten", "known", "just valid"]
    assert table["__event_time"].to_pylist() == [
        at("2026-05-02 09:00").replace(tzinfo=dt.UTC),
        at("2026-05-01 00:00").replace(tzinfo=dt.UTC),
        at("2026-04-22 10:00").replace(tzinfo=dt.UTC),
    ]
    assert table.schema.field("vector").type == pa.list_(pa.field("item", pa.float16()), 2)
    assert table["tags"].to_pylist() == [None, [], None]


def test_batches_are_as_small_as_asked_for(tmp_path: Path) -> None:
    project = project_of(tmp_path)
    count = 10_000
    many = pa.table(
        {
            "user_id": list(range(count)),
            "updated_at": pa.array([at("2026-05-01 00:00")] * count, pa.timestamp("us")),
            "known_at": pa.array([at("2026-05-01 00:00")] * count, pa.timestamp("us")),
            "tier": ["x"] * count,
            "vector": pa.array([None] * count, pa.list_(pa.float16(), 2)),
            "tags": pa.array([None] * count, pa.list_(pa.string())),
        }
    )
    project.write("profiles/a.parquet", many)
    config = project.config()
    instant = dt.datetime(2026, 5, 2, tzinfo=dt.UTC)
    with view_snapshot("profiles", project.catalog(config), config, instant, batch_rows=2048) as snapshot:
        sizes = [batch.num_rows for batch in snapshot.batches]
        assert snapshot.keys == ("user_id",)
        assert snapshot.ttl_seconds == 864_000
        assert snapshot.sources["profiles"]["backend"] == "parquet"
    assert sum(sizes) == count
    assert max(sizes) <= 4096
    assert len(sizes) > 2


def test_a_view_without_a_time_is_one_row_per_entity(tmp_path: Path) -> None:
    project = tiny(tmp_path)
    view = {"name": "tags", "entity": "artwork", "online": True, "source": {"path": "tags"}}
    project.define("feature_views", view | {"fields": [{"name": "tag", "dtype": "TEXT"}]})
    project.write("tags/a.parquet", pa.table({"artwork_id": [2, 1], "tag": ["b", "a"]}))
    table = read(project, "2020-01-01", "tags")
    assert table.to_pylist() == [
        {"tag": "a", "artwork_id": 1, "__event_time": None},
        {"tag": "b", "artwork_id": 2, "__event_time": None},
    ]
    project.write("tags/b.parquet", pa.table({"artwork_id": [2], "tag": ["c"]}))
    with pytest.raises(SourceError, match="must be unique per entity; it is not for 2"):
        read(project, "2020-01-01", "tags")


def test_only_online_views_are_handed_out(tmp_path: Path) -> None:
    project = project_of(tmp_path, online=False)
    registry = PlatformRegistry.open(project.root)
    assert online_views(registry) == ()
    with pytest.raises(DefinitionError, match="Set online: true in the view"):
        read(project, "2026-05-02")
    with pytest.raises(DefinitionError, match="Did you mean 'profiles'"):
        read(project, "2026-05-02", "profile")
    assert online_views(PlatformRegistry.open(project_of(tmp_path).root)) == ("profiles",)
