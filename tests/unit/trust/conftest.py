"""A project for the tests of trust: events with ties, versions that arrive late, items that are published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from support.project import Project, instants, write_project

if TYPE_CHECKING:
    from pathlib import Path

DAY = "2026-05-05"
_SPEC = {"group_by": ["user_id"], "timestamp_column": "ts", "window_days": 2}
SERVICE: dict[str, Any] = {
    "name": "s",
    "version": "2026-05-01",
    "spine": "events",
    "grain": ["user_id", "artwork_id", "ts"],
    "views": [
        {"view": "users", "join": "asof"},
        {"view": "profiles", "join": "asof"},
        {"view": "works"},
        # One view in two roles: `latest` through `works`, as of the event here.
        {"view": "works", "alias": "liked_work", "join": "asof", "on": {"artwork_id": "artwork_id"}},
    ],
    "static_columns": ["works:author_id"],
    "aggregation_specs": [
        {
            **_SPEC,
            "name": "liked",
            "value_column": "artwork_id",
            "operation": "list",
            "condition": "hist.event = 'like'",
            "max_items": 4,
            "exclude_self": True,
        },
        {
            **_SPEC,
            "name": "seen",
            "operation": "count",
            "delay_seconds": 7200,
            "condition": "hist.score > 4",
            "window_days": 1.5,
        },
        {**_SPEC, "name": "authors", "value_column": "author_id", "operation": "count_distinct"},
        {**_SPEC, "name": "ever", "operation": "count", "window_days": None},
        {**_SPEC, "name": "same", "operation": "count", "window_days": 1, "include_current": True},
        {**_SPEC, "name": "mean_score", "value_column": "score", "operation": "mean"},
        {
            **_SPEC,
            "name": "tags_seen",
            "value_column": "tags",
            "operation": "flatten_distinct",
            "max_items": 3,
        },
        {
            **_SPEC,
            "name": "works_made",
            "value_column": "title",
            "operation": "max",
            "history_view": "works",
            "history_group_by": ["author_id"],
            "history_timestamp_column": "created_at",
        },
    ],
    "lookbacks": [
        {
            "name": "published",
            "view": "works",
            "on": {"user_id": "author_id"},
            "value_column": "artwork_id",
            "window_days": 30,
            "max_items": 8,
        }
    ],
    "age_columns": [{"name": "account_age", "created": "users:registered_at"}],
    "derived": [{"name": "busy", "sql": "seen > 3"}],
    "session_column": "session",
    "curation": [{"name": "short_lang", "column": "lang", "sql": "right(lang, 2)"}],
    "columns": [
        "events:user_id",
        "events:artwork_id",
        "events:ts",
        "events:event",
        {"ref": "events:country", "default": 7},
        "users:tier",
        "profiles:lang",
        "works:title",
        "age:account_age",
        "rolling:liked",
        "rolling:seen",
        "rolling:authors",
        "rolling:ever",
        "rolling:same",
        "rolling:mean_score",
        "lookback:published",
        "rolling:tags_seen",
        "rolling:works_made",
        {"name": "known_title", "ref": "liked_work:title"},
        "derived:busy",
    ],
}
VIEWS: list[dict[str, Any]] = [
    {
        "name": "events",
        "entity": ["user", "artwork"],
        "source": {"path": "events", "timestamp_field": "ts", "sequence_field": "seq"},
        "fields": [
            {"name": "seq", "dtype": "BIGINT"},
            {"name": "event", "dtype": "TEXT"},
            {"name": "session", "dtype": "TEXT"},
            {"name": "score", "dtype": "DOUBLE"},
            {"name": "tags", "dtype": "INTEGER[]"},
            {"name": "country", "dtype": "INTEGER", "optional": True},
        ],
    },
    {
        "name": "users",
        "entity": "user",
        "source": {"path": "users", "timestamp_field": "updated_at", "created_field": "known_at"},
        "delay_seconds": 30,
        "ttl": "40d",
        "fields": [
            {"name": "tier", "dtype": "TEXT"},
            {"name": "registered_at", "dtype": "TIMESTAMP"},
            {"name": "known_at", "dtype": "TIMESTAMP"},
        ],
    },
    {
        "name": "profiles",
        "entity": "user",
        "source": {"path": "profiles", "timestamp_field": "updated_at", "timestamp_unit": "ms"},
        "fields": [{"name": "lang", "dtype": "TEXT"}, {"name": "updated_at", "dtype": "BIGINT"}],
    },
    {
        "name": "works",
        "entity": "artwork",
        "source": {"path": "works", "timestamp_field": "created_at"},
        "fields": [{"name": "author_id", "dtype": "BIGINT"}, {"name": "title", "dtype": "TEXT"}],
    },
]


def _events() -> pa.Table:
    """Four days, 60 events a day, three users; every fifth event shares the instant of the one before."""
    rows = []
    for day in range(2, 6):
        for n in range(60):
            minute = n * 20 - (20 if n % 5 == 4 else 0)
            rows.append(
                (f"2026-05-0{day} {minute // 60:02d}:{minute % 60:02d}:00", 1 + n % 3, 10 + (n * 7) % 9, n)
            )
    return pa.table(
        {
            "seq": pa.array(range(len(rows)), pa.int64()),
            "ts": instants(*(row[0] for row in rows)),
            "user_id": pa.array([row[1] for row in rows], pa.int64()),
            "artwork_id": pa.array([row[2] for row in rows], pa.int64()),
            "event": ["like" if row[3] % 4 == 0 else "view" for row in rows],
            "session": [f"{row[0][:13]}-{row[1]}" for row in rows],
            "score": [row[3] / 7 for row in rows],
            "tags": pa.array([[row[3] % 4, None, row[3] % 5] for row in rows], pa.list_(pa.int32())),
        }
    )


def _versions() -> dict[str, pa.Table]:
    times = [f"2026-05-0{day} {hour:02d}:10:00" for day in range(1, 7) for hour in (3, 9, 15)]
    known = [f"2026-05-0{day} {hour:02d}:50:00" for day in range(1, 7) for hour in (3, 9, 15)]
    users = [1 + n % 3 for n in range(len(times))]
    ticks = instants(*times).cast(pa.int64()).to_pylist()
    return {
        "users/a.parquet": pa.table(
            {
                "user_id": pa.array(users, pa.int64()),
                "updated_at": instants(*times),
                "known_at": instants(*known),
                "registered_at": instants(*(f"2026-0{1 + n % 4}-01" for n in range(len(times)))),
                "tier": [f"tier{n}" for n in range(len(times))],
            }
        ),
        "profiles/a.parquet": pa.table(
            {
                "user_id": pa.array(users, pa.int64()),
                "updated_at": pa.array([tick // 1000 for tick in ticks], pa.int64()),
                "lang": [f"lang{n}" for n in range(len(times))],
            }
        ),
        "works/a.parquet": pa.table(
            {
                "artwork_id": pa.array([10 + n % 9 for n in range(18)], pa.int64()),
                "created_at": instants(*times),
                "author_id": pa.array([1 + n % 3 for n in range(18)], pa.int64()),
                "title": [f"title{n}" for n in range(18)],
            }
        ),
    }


def make(root: Path, **service: Any) -> Project:
    """The project; keys of the service replaced. Views of one artwork are not covered."""
    ids = pa.table({"artwork_id": pa.array([n for n in range(10, 19) if n != 17], pa.int64())})
    return write_project(
        root,
        views=VIEWS,
        services=[SERVICE | service],
        data={"events/a.parquet": _events(), "ids/a.parquet": ids, **_versions()},
        runtime={
            "output_root": "out",
            "compute": {"engine": "kernel"},
            "embedding_coverage_filter": {"events": ["view"], "id_relation": "data/ids"},
        },
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("DAEDALUS_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.chdir(tmp_path)
    return make(tmp_path)
