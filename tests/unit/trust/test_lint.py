"""Lint: each leak planted once is counted, with an example; a sound service has no findings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from daedalus.cli.main import main
from support.project import Project, instants, write_project

if TYPE_CHECKING:
    from pathlib import Path

DAY = "2026-05-05"
COUNT = {"group_by": ["user_id"], "timestamp_column": "ts", "operation": "count", "window_days": 1}
EVENTS = {
    "name": "events",
    "entity": ["user", "artwork"],
    "source": {"path": "events", "timestamp_field": "ts", "sequence_field": "seq"},
    "fields": [
        {"name": name, "dtype": dtype}
        for name, dtype in (("seq", "BIGINT"), ("event", "TEXT"), ("session", "TEXT"), ("shop", "BIGINT"))
    ],
}
WORKS = {
    "name": "works",
    "entity": "artwork",
    "source": {"path": "works", "timestamp_field": "updated_at"},
    "fields": [{"name": "born", "dtype": "TIMESTAMP"}, {"name": "author_id", "dtype": "BIGINT"}],
}
#: (time, user, artwork, event, session, shop); the first lies five days back.
PLANTED = [
    ("2026-04-30 00:00", 9, 99, "view", "old", 1),
    ("2026-05-05 01:00", 1, 10, "like", "a", None),
    ("2026-05-05 02:00", 1, 10, "like", "a", None),  # again, in one session
    ("2026-05-05 03:00", 2, 11, "view", "b", None),
    ("2026-05-05 03:00", 2, 11, "view", "c", 3),  # the same row twice
    ("2026-05-05 04:00", 3, 12, "view", "d", 4),
    ("2026-05-05 05:00", 4, 13, "view", "e", 5),
    ("2026-05-05 06:00", 5, 14, "view", "f", 6),
    ("2026-05-05 07:00", 5, 15, "view", "g", 7),
    ("2026-05-05 08:00", 5, 16, "view", "h", 8),
    ("2026-05-05 09:00", 5, 17, "view", "i", 9),
]
SPECS: list[dict[str, Any]] = [
    {**COUNT, "name": "likes", "condition": "hist.event = 'like'"},
    {**COUNT, "name": "with_itself", "include_current": True, "condition": "hist.event = 'like'"},
    {**COUNT, "name": "items", "operation": "list", "value_column": "artwork_id"},
    {**COUNT, "name": "others", "operation": "list", "value_column": "artwork_id", "exclude_self": True},
    {**COUNT, "name": "long", "window_days": 30},
    {**COUNT, "name": "by_shop", "group_by": ["shop"]},
    {**COUNT, "name": "by_author", "group_by": ["author_id"]},
]


def project(root: Path, rows: list[tuple[Any, ...]], **service: Any) -> Project:
    times, users, artworks, events, sessions, shops = zip(*rows, strict=True)
    body: dict[str, Any] = {
        "name": "s",
        "version": "2026-05-01",
        "spine": "events",
        "grain": ["user_id", "artwork_id", "ts"],
        "views": ["works"],
        "static_columns": ["works:author_id"],
        "aggregation_specs": SPECS,
        "age_columns": [{"name": "age", "created": "works:born"}],
        "session_column": "session",
        "columns": ["events:user_id", "age:age", *(f"rolling:{spec['name']}" for spec in SPECS)],
    }
    table = pa.table(
        {
            "seq": pa.array(range(len(rows)), pa.int64()),
            "ts": instants(*times),
            "user_id": pa.array(users, pa.int64()),
            "artwork_id": pa.array(artworks, pa.int64()),
            "event": list(events),
            "session": list(sessions),
            "shop": pa.array(shops, pa.int64()),
        }
    )
    works = pa.table(
        {
            "artwork_id": pa.array([10, 12, 12, 14], pa.int64()),
            "updated_at": instants("2026-04-01", "2026-04-01", "2026-05-05 04:00", "2026-04-01"),
            "born": instants("2026-04-01", "2026-04-01", "2026-04-01", "2026-05-05 06:00:01"),
            "author_id": pa.array([1, 1, 1, 1], pa.int64()),
        }
    )
    return write_project(
        root,
        views=[EVENTS, WORKS],
        services=[body | service],
        data={"events/a.parquet": table, "works/a.parquet": works},
    )


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAEDALUS_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.chdir(tmp_path)


def linted(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> dict[str, Any]:
    assert main(["lint", "s", "--format", "json", *args]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_each_planted_leak_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project(tmp_path, PLANTED)
    found = linted(capsys, "--strict", code=1)
    assert (found["day"], found["rows"]) == (DAY, 10)  # the newest day
    rows: dict[str, dict[str, int]] = {}
    for one in found["findings"]:
        rows.setdefault(one["check"], {})[one["subject"]] = one["rows"]
        assert one["examples"]
        assert one["hint"]
    assert rows["candidate in its own history"] == {"items": 1}
    # `likes` has the like before; `with_itself` has both rows' own, then likewise.
    assert rows["label event inside a feature window"] == {"likes": 1, "with_itself": 1}
    assert rows["not yet published"] == {"age": 1}
    assert rows["latest join sees the future"] == {"works": 1}
    assert rows["same-session echo"] == dict.fromkeys(("likes", "with_itself", "items", "others", "long"), 1)
    assert rows["duplicate spine rows"] == {"events": 2}
    assert rows["NULL storm in a key"] == {"shop": 3}
    assert rows["one key has most of the rows"] == {"user_id": 4}
    assert rows["window longer than the source's history"] == {"long": 10}
    assert found["not_checked"] == ["by_author: reads static columns"]
    own = [one for one in found["findings"] if one["subject"] == "with_itself" and "own event" in one["what"]]
    assert [one["rows"] for one in own] == [2]
    example = next(one for one in found["findings"] if one["check"] == "not yet published")["examples"][0]
    assert example == {"ts": "2026-05-05 06:00:00", "user_id": 5, "artwork_id": 14}


def test_a_sound_day_has_no_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        ("2026-04-01 00:00", 9, 99, "view", "old", 1),
        *((f"2026-05-05 0{n}:00", n, 10 + n, "view", f"s{n}", n) for n in range(1, 6)),
    ]
    specs = [SPECS[0], {**COUNT, "name": "with_itself", "condition": "hist.event = 'like'"}, SPECS[3]]
    columns = ["events:user_id", *(f"rolling:{spec['name']}" for spec in specs)]
    project(
        tmp_path,
        rows,
        aggregation_specs=specs,
        columns=columns,
        age_columns=[],
        static_columns=[],
    )
    assert linted(capsys, "--strict", "--target-date", DAY)["findings"] == []


def test_the_table_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project(tmp_path, PLANTED)
    assert main(["lint", "s"]) == 0
    out = capsys.readouterr().out
    assert "duplicate spine rows" in out
    assert "what to do" in out


@pytest.mark.parametrize(
    ("day", "what"),
    [
        ("2026-05-06", "no events on 2026-05-06. Its rows are of 2026-04-30 to 2026-05-05"),
        ("9999-12-31", "9999-12-31 is outside feed_start"),
    ],
)
def test_a_day_without_rows_is_not_found_sound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], day: str, what: str
) -> None:
    project(tmp_path, PLANTED)
    assert main(["lint", "s", "--target-date", day]) in (1, 2)
    assert what in capsys.readouterr().err


@pytest.mark.parametrize("days", [1e9, 1e300])
def test_a_window_longer_than_all_times_is_only_longer_than_the_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], days: float
) -> None:
    specs = [{**SPECS[0], "window_days": days}]
    columns = ["events:user_id", "rolling:likes"]
    project(tmp_path, PLANTED, aggregation_specs=specs, columns=columns, age_columns=[], static_columns=[])
    found = {one["check"]: one["rows"] for one in linted(capsys)["findings"] if one["subject"] == "likes"}
    assert found["window longer than the source's history"] == 10
    assert found["label event inside a feature window"] == 1
    assert main(["explain-row", "s", "--date", DAY, "--where", "user_id = 1", "--format", "json"]) == 0
