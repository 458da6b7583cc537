"""History of event days: made in Arrow or in SQL, read as picked rows or by SQL, the same rows and the same bytes."""

from __future__ import annotations

import datetime as dt
import math
import random
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daedalus.pipelines.days import held_history, history_cache, history_selections, plain_files
from daedalus.pipelines.operators import ROW
from support.project import Project, Run, write_project

if TYPE_CHECKING:
    from pathlib import Path

    from daedalus.pipelines.days.held_history import HeldHistory

DAYS = ("2026-05-03", "2026-05-04")
FIRST = dt.datetime.fromisoformat("2026-04-30")

EVENTS: dict[str, Any] = {
    "name": "events",
    "entity": ["user", "item"],
    "source": {"path": "events", "timestamp_field": "ts", "sequence_field": "seq"},
    "fields": [
        {"name": "seq", "dtype": "BIGINT"},
        {"name": "event", "dtype": "TEXT"},
        {"name": "score", "dtype": "DOUBLE"},
        {"name": "tags", "dtype": "INTEGER[]"},
        {"name": "session", "dtype": "TEXT"},
    ],
}
NOTE = {"name": "note", "dtype": "TEXT"}
ITEMS: dict[str, Any] = {
    "name": "items",
    "entity": "item",
    "ttl": "2d",
    "source": {"path": "items", "timestamp_field": "at"},
    "fields": [{"name": "author", "dtype": "BIGINT"}, {"name": "topics", "dtype": "BIGINT[]"}],
}
MADE: dict[str, Any] = {  # no time: one row per item
    "name": "made",
    "entity": "item",
    "source": {"path": "made"},
    "fields": [{"name": "model", "dtype": "TEXT"}],
}
COMMON = {"group_by": ["user_id"], "timestamp_column": "ts", "window_days": 3}
SERVICE: dict[str, Any] = {
    "name": "s",
    "version": "2026-05-01",
    "spine": "events",
    "views": [{"view": "items"}, {"view": "made"}],
    "static_columns": ["items:author", "items:topics", "made:model"],
    "session_column": "session",
    "aggregation_specs": [
        {"name": "ids", "value_column": "item_id", "operation": "list", **COMMON},
        {
            "name": "authors",
            "value_column": "author",
            "operation": "list",
            "condition": "hist.score > 0.5",
            **COMMON,
        },
        {
            "name": "models",
            "value_column": "model",
            "operation": "list",
            "condition": "hist.event = 'like'",
            **COMMON,
        },
        {
            "name": "topics_set",
            "value_column": "topics",
            "operation": "flatten_distinct",
            "condition": "hist.event = 'like'",
            **COMMON,
        },
    ],
    "columns": [
        "events:user_id",
        "events:item_id",
        "events:score",
        "items:author",
        "made:model",
        *(f"rolling:{name}" for name in ("ids", "authors", "models", "topics_set")),
    ],
}
ENTITIES = {"entities": [{"name": "item", "keys": [{"name": "item_id", "dtype": "VARCHAR"}]}]}


def _tables(seed: int) -> dict[str, pa.Table]:
    draw = random.Random(seed)
    rows = 400
    hours = [FIRST + dt.timedelta(hours=draw.randrange(24 * 5)) for _ in range(rows)]  # many at one time
    items = [f"i{number}" for number in range(12)]
    events = pa.table(
        {
            "ts": pa.array(hours, pa.timestamp("us")),
            "seq": pa.array([draw.choice([None, *range(6)]) for _ in range(rows)], pa.int64()),
            "user_id": pa.array([draw.randrange(4) for _ in range(rows)], pa.int64()),
            "item_id": pa.array([draw.choice([None, *items, "unknown"]) for _ in range(rows)], pa.string()),
            "event": pa.array([draw.choice(["like", "view", None]) for _ in range(rows)], pa.string()),
            "score": pa.array(
                [draw.choice([0.0, -0.0, math.nan, None, 1.5]) for _ in range(rows)], pa.float64()
            ),
            "tags": pa.array([draw.choice([None, [], [1, None]]) for _ in range(rows)], pa.list_(pa.int32())),
            "session": pa.array([draw.choice(["a", "b", None]) for _ in range(rows)], pa.string()),
            "note": pa.array([f"n{draw.randrange(99)}" for _ in range(rows)], pa.string()),
        }
    )
    # Several at one time; lists order nothing, so they depend on what does.
    versions = [
        (draw.choice([None, *items]), draw.randrange(6), draw.choice([None, 1, 2, 3])) for _ in range(60)
    ]
    known = pa.table(
        {
            "item_id": pa.array([item for item, _, _ in versions], pa.string()),
            "at": pa.array(
                [None if day == 5 else FIRST + dt.timedelta(days=day) for _, day, _ in versions],
                pa.timestamp("us"),
            ),
            "author": pa.array([author for _, _, author in versions], pa.int64()),
            "topics": pa.array(
                [None if author is None else [author, author + 1] for _, _, author in versions],
                pa.list_(pa.int64()),
            ),
        }
    )
    made = pa.table({"item_id": items[:7], "model": [f"m{number % 3}" for number in range(7)]})
    return {
        "events/a.parquet": events,
        "items/a.parquet": known,
        "made/a.parquet": made,
        "ids/a.parquet": pa.table({"item_id": items[3:]}),
    }


def _project(root: Path, seed: int, *, covered: bool, noted: bool = False) -> Project:
    """Where `noted`, the events have a column that orders them, and that nothing reads."""
    coverage: dict[str, Any] = {"enabled": covered}
    if covered:
        coverage |= {"events": ["like"], "id_column": "item_id", "id_relation": "data/ids"}
    return write_project(
        root,
        views=[EVENTS | {"fields": [*EVENTS["fields"], *([NOTE] if noted else [])]}, ITEMS, MADE],
        services=[SERVICE],
        entities=ENTITIES,
        data=_tables(seed),
        runtime={"embedding_coverage_filter": coverage},
        engine="kernel",
    )


def _history(root: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each history file, NaN and the sign of zero as text, without the numbers that order them."""
    found = {}
    for path in sorted(root.rglob("history-*.parquet")):
        table = pq.read_table(path)
        numbers = table[ROW].to_pylist()
        assert numbers == sorted(set(numbers))
        rows = table.drop_columns([ROW]).to_pylist()
        found[path.name] = [row | {"score": repr(row["score"])} for row in rows]
    return found


def _bytes(run: Run) -> dict[str, Any]:
    return {day: run.files(day) for day in DAYS}


@pytest.mark.parametrize(("seed", "covered", "noted"), [(1, False, False), (2, True, True)])
def test_arrow_makes_the_history_that_sql_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, covered: bool, noted: bool
) -> None:
    project = _project(tmp_path, seed, covered=covered, noted=noted)
    pieces: list[Any] = []
    whole = held_history.HeldHistory.rows

    def rows(self: HeldHistory, within: Any) -> pa.Table:
        pieces.append(within)
        return whole(self, within)

    monkeypatch.setattr(held_history.HeldHistory, "rows", rows)
    read = plain_files.PlainFiles.read
    plain: list[pa.Table | None] = []

    def read_plainly(self: plain_files.PlainFiles, within: Any, most: int) -> pa.Table | None:
        plain.append(read(self, within, most))
        return plain[-1]

    monkeypatch.setattr(plain_files.PlainFiles, "read", read_plainly)
    in_arrow = project.run("s", DAYS, output_root=str(tmp_path / "arrow"))
    assert len(pieces) == 1  # small days are read together
    assert [table is not None for table in plain] == ([] if noted else [True])
    monkeypatch.setattr(plain_files.PlainFiles, "read", lambda *_: None)
    monkeypatch.setattr(history_cache, "_ROWS_AT_ONCE", 1)
    monkeypatch.setattr(history_cache, "_MOST_ROWS", 30)
    in_pieces = project.run("s", DAYS, output_root=str(tmp_path / "pieces"))
    assert len(pieces) > 1 + len(_history(tmp_path / "pieces"))
    monkeypatch.setattr(held_history.HeldHistory, "fits", lambda _: False)
    in_sql = project.run("s", DAYS, output_root=str(tmp_path / "sql"))
    expected = _history(tmp_path / "sql")
    assert len(expected) == 5
    assert _history(tmp_path / "arrow") == _history(tmp_path / "pieces") == expected
    assert _bytes(in_arrow) == _bytes(in_pieces) == _bytes(in_sql)


def test_history_without_memory_is_made_in_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = _project(tmp_path, 3, covered=False)
    in_arrow = project.run("s", DAYS, output_root=str(tmp_path / "arrow"))
    for share in (1e-7, 5e-7):  # no spine; no view beside it
        out = tmp_path / f"sql {share}"
        monkeypatch.setattr(held_history, "_SHARE", share)
        assert _bytes(project.run("s", DAYS, output_root=str(out), threads=1)) == _bytes(in_arrow)
        assert _history(out) == _history(tmp_path / "arrow")


def test_picked_rows_are_those_that_sql_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = _project(tmp_path, 4, covered=True)
    by_sql = project.run("s", DAYS, output_root=str(tmp_path / "sql"))
    assert not list(tmp_path.rglob("*.arrow"))
    monkeypatch.setattr(history_selections, "LEAST_BYTES", 0)
    picked = project.run("s", DAYS, output_root=str(tmp_path / "picked"))
    assert _bytes(picked) == _bytes(by_sql)
    files = list(tmp_path.rglob("*.arrow"))
    assert len(files) == 3 * 5  # conditions, event days

    for file in files[::2]:
        file.write_bytes(file.read_bytes()[:40])
    again = project.run("s", DAYS, output_root=str(tmp_path / "picked"), refresh=True)
    assert _bytes(again) == _bytes(by_sql)
