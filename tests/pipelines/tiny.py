"""A project of two views, one service and a handful of events, for tests that change one thing about it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from support.project import Project, write_project

if TYPE_CHECKING:
    from pathlib import Path

DAYS = ("2026-05-01", "2026-05-02", "2026-05-12")

EVENTS: dict[str, Any] = {
    "name": "events",
    "entity": ["user", "artwork"],
    "source": {"path": "events", "timestamp_field": "ts", "sequence_field": "seq"},
    "fields": [
        {"name": "seq", "dtype": "BIGINT"},
        {"name": "event", "dtype": "TEXT"},
        {"name": "session", "dtype": "TEXT", "optional": True},
        {"name": "score", "dtype": "INTEGER", "optional": True},
    ],
}
USERS: dict[str, Any] = {
    "name": "users",
    "entity": "user",
    "source": {"path": "users", "timestamp_field": "updated_at"},
    "fields": [{"name": "tier", "dtype": "TEXT"}],
}
SERVICE: dict[str, Any] = {
    "name": "s",
    "version": "2026-05-01",
    "spine": "events",
    "views": [{"view": "users", "join": "asof"}],
    "aggregation_specs": [
        {
            "name": "liked",
            "group_by": ["user_id"],
            "timestamp_column": "ts",
            "value_column": "artwork_id",
            "operation": "list",
            "window_days": 3,
            "condition": "hist.event = 'like'",
        },
        {
            "name": "seen",
            "group_by": ["user_id"],
            "timestamp_column": "ts",
            "operation": "count",
            "window_days": 3,
        },
    ],
    "session_column": "session",
    "columns": [
        "events:user_id",
        "events:artwork_id",
        "events:ts",
        "events:event",
        {"ref": "events:score", "default": 3},
        "users:tier",
        "rolling:liked",
        "rolling:seen",
    ],
}

#: seq, time, user, artwork, event, session
ROWS = {
    "2026-05-01": [
        (1, "2026-05-01 08:00", 1, 10, "like", "b"),
        (2, "2026-05-01 09:00", 2, 11, "view", "a"),
    ],
    "2026-05-02": [
        (3, "2026-05-02 08:00", 1, 11, "view", "c"),
        (4, "2026-05-02 08:00", 1, 12, "like", "c"),
        (5, "2026-05-02 09:00", 1, 10, "view", None),
    ],
    "2026-05-12": [(6, "2026-05-12 08:00", 1, 11, "view", "d"), (7, "2026-05-12 08:30", 2, 11, "like", "b")],
}


def at(text: str) -> dt.datetime:
    """An instant, as Arrow gives it: UTC, without saying so."""
    return dt.datetime.fromisoformat(text)


def events(rows: list[tuple[Any, ...]]) -> pa.Table:
    """Rows of `ROWS` as a table."""
    seq, time, user, artwork, event, session = zip(*rows, strict=True)
    return pa.table(
        {
            "seq": pa.array(seq, pa.int64()),
            "ts": pa.array([None if one is None else at(one) for one in time], pa.timestamp("us")),
            "user_id": pa.array(user, pa.int64()),
            "artwork_id": pa.array(artwork, pa.int64()),
            "event": pa.array(event, pa.string()),
            "session": pa.array(session, pa.string()),
        }
    )


def column(name: str, values: Any, kind: pa.DataType, day: str = DAYS[0]) -> pa.Table:
    """A day's events with one column replaced, or added."""
    table = events(ROWS[day])
    place = table.schema.get_field_index(name)
    if place < 0:
        return table.append_column(name, pa.array(values, kind))
    return table.set_column(place, name, pa.array(values, kind))


def users(*rows: tuple[int, str, str]) -> pa.Table:
    """(user, updated, tier) rows as a table."""
    return pa.table(
        {
            "user_id": pa.array([row[0] for row in rows], pa.int64()),
            "updated_at": pa.array([at(row[1]) for row in rows], pa.timestamp("us")),
            "tier": pa.array([row[2] for row in rows], pa.string()),
        }
    )


def tiny(
    root: Path,
    *,
    events_view: dict[str, Any] | None = None,
    users_view: dict[str, Any] | None = None,
    service: dict[str, Any] | None = None,
    data: dict[str, pa.Table | None] | None = None,
    views: tuple[dict[str, Any], ...] = (),
    **overrides: Any,
) -> Project:
    """The project, with keys of a definition replaced and `views` added; a file of `data` that is None is left out."""
    files: dict[str, pa.Table | None] = {
        **{f"events/{day}.parquet": events(rows) for day, rows in ROWS.items()},
        "users/a.parquet": users((1, "2026-04-01", "free"), (1, "2026-05-02 08:30", "pro")),
        **(data or {}),
    }
    return write_project(
        root,
        views=[EVENTS | (events_view or {}), USERS | (users_view or {}), *views],
        services=[SERVICE | (service or {})],
        data={path: table for path, table in files.items() if table is not None},
        **overrides,
    )
