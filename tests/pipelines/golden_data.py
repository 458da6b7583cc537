"""The events and the knowledge of the golden day, 2026-05-10; its definitions are in `tests/golden/day`."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa

from support.project import Project

GOLDEN = Path(__file__).parents[1] / "golden" / "day"
DAY = "2026-05-10"


def at(text: str) -> dt.datetime | None:
    """`05-10 06:00` as an instant of 2026; an empty text is NULL."""
    return dt.datetime.fromisoformat(f"2026-{text.replace(' ', 'T')}") if text else None


def _milliseconds(text: str) -> int:
    instant = at(text)
    assert instant is not None
    return round(instant.replace(tzinfo=dt.UTC).timestamp() * 1000)


VIEW, LIKE, DISLIKE, CLICK = "reco_artwork_view", "like_click", "dislike_click", "artwork_click"

#: seq, time, user, artwork, event, session, platform, position. The files hold them in another order.
EVENTS = [
    (-9, "03-01 00:00", 1, 12, DISLIKE, "s0", 1, 1),  # before every window, and before feed_start
    (-8, "05-01 08:00", 1, 10, DISLIKE, "s0", 1, 1),
    (-7, "05-03 00:00", 1, 10, LIKE, "s0", 1, 1),  # exactly seven days before the day
    (-6, "05-07 23:00", 1, 13, LIKE, "s1", 1, 1),
    (-5, "05-09 00:00", 1, 11, VIEW, "s1", 1, 1),  # exactly one day before the day
    (-4, "05-09 09:00", 1, 11, LIKE, "s1", 1, 1),
    (-3, "05-09 12:00", 1, 12, LIKE, "s1", 1, 1),
    (-2, "05-09 12:00", 1, 16, VIEW, "s1", 1, 1),  # not covered
    (-1, "05-09 20:00", 2, 10, LIKE, "s2", 1, 1),
    # the day
    (1, "05-10 00:00", 1, 12, VIEW, "sA", 2, None),
    (2, "05-10 00:00", 1, 10, VIEW, "sA", None, 1),
    (3, "05-10 05:00", 3, 16, VIEW, "sX", 1, 1),  # dropped: not covered; so sX has no qid
    (4, "05-10 06:00", 1, 10, LIKE, "sA", 1, 2),
    (5, "05-10 06:00", 1, 16, VIEW, "sA", 1, 3),  # dropped: not covered
    (6, "05-10 06:00", 1, 16, LIKE, "sA", 1, 4),  # not covered either, but likes are not asked for coverage
    (7, "05-10 09:00", 1, 13, DISLIKE, "sA", 1, 5),
    (8, "05-10 12:00", 1, 10, VIEW, "sB", 1, 6),
    (9, "05-10 12:30", 1, 14, LIKE, "sB", 1, 7),
    (10, "05-10 13:00", 1, 15, LIKE, "sB", 1, 8),  # dropped: its model is SD_V1_MODEL
    (11, "05-10 18:00", 2, 10, VIEW, "sC", 1, 9),  # dropped: sC holds only views
    (12, "05-10 18:01", 2, 11, VIEW, "sC", 1, 10),  # dropped with it
    (13, "05-10 20:00", 2, 12, VIEW, None, 3, 11),  # only a view, but of no session
    (14, "05-10 21:00", 2, 12, VIEW, "sD", 1, 12),  # dropped: sD holds one like and otherwise views
    (15, "05-10 21:05", 2, 12, LIKE, "sD", 1, 13),  # dropped with it
    (16, "05-10 21:30", 2, 14, VIEW, None, 1, 14),
    (17, "05-10 23:59:59.999999", 3, 11, CLICK, "sE", 1, 15),
    # the day after, and an event without a time
    (18, "05-11 00:00", 1, 11, LIKE, "sF", 1, 1),
    (19, "", 1, 11, LIKE, "sG", 1, 1),
]

#: user, updated, ingested, tier, blur, registered
PROFILES = [
    (1, "05-01 00:00", "05-01 00:05", "free", True, "01-01 12:00"),
    (1, "05-10 05:00", "05-10 05:30", "pro", False, "01-01 12:00"),
    (1, "05-10 10:00", "", "never known", True, "01-01 12:00"),
    (1, "05-10 10:30", "05-10 12:15", "late", None, "01-01 12:00"),
    (2, "04-01 00:00", "04-01 00:00", "expired", True, "01-01 12:00"),  # older than its ttl of 30 days
]

#: artwork, updated, created, author, type
PROPERTIES = [
    (10, "05-01 00:00", "05-01 00:00", 101, "DEFAULT_ARTWORK"),
    (10, "05-20 00:00", "05-01 00:00", 101, "MANGA_ARTWORK"),  # `latest` sees the future
    (11, "05-09 18:00", "05-09 18:00", 1, "DEFAULT_ARTWORK"),
    (11, "05-09 20:00", "05-09 20:00", 1, "DEFAULT_ARTWORK"),  # repeated: it was published at 18:00
    (12, "05-10 11:00", "05-10 11:00", 2, "DEFAULT_ARTWORK"),
    (13, "05-08 09:00", "05-08 09:00", 101, "DEFAULT_ARTWORK"),
    (14, "05-10 12:00", "05-10 12:00", 102, "ANIMATED_ARTWORK"),
    (15, "05-01 00:00", "05-01 00:00", 102, "DEFAULT_ARTWORK"),
    (16, "05-01 00:00", "", 103, None),
    (17, "05-10 00:00", "05-10 00:00", 1, "DEFAULT_ARTWORK"),
    (18, "05-06 12:00", "05-06 12:00", 1, "DEFAULT_ARTWORK"),
    (19, "05-10 08:00", "05-10 08:00", 1, "DEFAULT_ARTWORK"),
]

#: artwork, updated, model, type
GENERATIONS = [
    (10, "05-01 00:00", 7, "SDXL_MODEL"),
    (11, "01-01 00:00", 8, "DIT_MODEL"),  # older than its ttl of 90 days
    (12, "05-01 00:00", 7, "SDXL_MODEL"),
    (14, "05-01 00:00", 9, "SD_V1_MODEL"),  # animated: curated before the content filter
    (15, "05-01 00:00", 9, "SD_V1_MODEL"),
    (16, "05-01 00:00", 7, "SDXL_MODEL"),
]

TACKS = {10: [1, 2], 11: [2, 3], 12: [3, None, 1], 13: None, 14: [], 15: [5]}
COVERED = [10, 11, 12, 13, 14, 15]


def tables() -> dict[str, pa.Table]:
    """The sources, by path under `data`; rows in no helpful order, events in two files."""
    events = pa.Table.from_pylist(
        [
            {
                "seq": seq,
                "event_timestamp": at(time),
                "user_id": user,
                "artwork_id": artwork,
                "event": event,
                "feed_session": session,
                "platform_code": platform,
                "position": position,
            }
            for seq, time, user, artwork, event, session, platform, position in EVENTS
        ],
        schema=pa.schema(
            {
                "seq": pa.int64(),
                "event_timestamp": pa.timestamp("us"),
                "user_id": pa.int64(),
                "artwork_id": pa.int64(),
                "event": pa.string(),
                "feed_session": pa.string(),
                "platform_code": pa.int32(),
                "position": pa.int32(),
            }
        ),
    )
    odd = [index for index in range(events.num_rows) if index % 2]
    even = [index for index in range(events.num_rows) if not index % 2]
    return {
        "feed_events/b.parquet": events.take(odd[::-1]),
        "feed_events/a.parquet": events.take(even[::-1]),
        "user_profile/a.parquet": pa.table(
            {
                "user_id": [row[0] for row in PROFILES],
                "updated_at": pa.array([at(row[1]) for row in PROFILES], pa.timestamp("us")),
                "ingested_at": pa.array([at(row[2]) for row in PROFILES], pa.timestamp("us")),
                "tier": [row[3] for row in PROFILES],
                "blur_nsfw": [row[4] for row in PROFILES],
                "registered_at": pa.array([at(row[5]) for row in PROFILES], pa.timestamp("us")),
            }
        ),
        "artwork_properties/a.parquet": pa.table(
            {
                "artwork_id": [row[0] for row in PROPERTIES],
                "updated_at": pa.array([at(row[1]) for row in PROPERTIES], pa.timestamp("us")),
                "created_at": pa.array([at(row[2]) for row in PROPERTIES], pa.timestamp("us")),
                "author_id": [row[3] for row in PROPERTIES],
                "artwork_type": [row[4] for row in PROPERTIES],
            }
        ),
        "artwork_generation/a.parquet": pa.table(
            {
                "id": [row[0] for row in GENERATIONS],
                "updated_ms": [_milliseconds(row[1]) for row in GENERATIONS],
                "model_id": [row[2] for row in GENERATIONS],
                "model_type": [row[3] for row in GENERATIONS],
            }
        ),
        "artwork_tack/a.parquet": pa.table(
            {"artwork_id": list(TACKS), "tack_ids": pa.array(list(TACKS.values()), pa.list_(pa.int64()))}
        ),
        "covered_artworks/a.parquet": pa.table({"artwork_id": COVERED}),
    }


def golden_project(root: Path, **overrides: Any) -> Project:
    """The golden day's project under `root`."""
    shutil.copytree(GOLDEN, root, dirs_exist_ok=True)
    project = Project(root, overrides)
    for path, table in tables().items():
        project.write(path, table)
    return project
