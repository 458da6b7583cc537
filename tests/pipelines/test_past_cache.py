"""What is read of all the past is kept in files: they give the same rows, and are made anew where rows changed."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from daedalus.pipelines.days import past_cache
from daedalus.pipelines.days.past_cache import PastCache, Span, spans_until
from pipelines.tiny import SERVICE, tiny

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

    from support.project import Project, Run

FIRST = dt.date(2026, 5, 1)
DAYS = [(FIRST + dt.timedelta(days=number)).isoformat() for number in range(3)]
EVER = {
    "name": "ever_liked",
    "group_by": ["user_id"],
    "value_column": "artwork_id",
    "operation": "list",
    "window_days": None,
    "max_items": 50,
    "condition": "hist.event = 'like' AND hist.score > 2",
}
OF_ALL_TIME: dict[str, Any] = {
    "aggregation_specs": [EVER],
    "columns": [*SERVICE["columns"][:-2], "rolling:ever_liked"],
}


def some_events(day: str, rows: int, seed: int) -> pa.Table:
    """Events at few instants, so that many stand at one, in no order; a score that is NULL at times."""
    random = np.random.default_rng(seed)
    start = np.datetime64(day, "us")
    scores = random.integers(0, 6, rows)
    return pa.table(
        {
            "seq": pa.array(random.integers(0, 3, rows)),
            "ts": pa.array(start + random.integers(0, 24, rows) * np.timedelta64(3_600_000_000, "us")),
            "user_id": pa.array(random.integers(1, 6, rows), mask=random.random(rows) < 0.05),
            "artwork_id": pa.array(random.integers(1, 40, rows)),
            "event": pa.array(random.choice(["like", "view"], rows)),
            "session": pa.array(random.choice(["a", "b"], rows)),
            "score": pa.array(scores.astype(np.int32), mask=scores == 5),
        }
    )


def project_of_years(root: Path) -> Project:
    past = ("1969-12-31", "2019-02-03", "2026-03-31", "2026-04-28", "2026-04-30")
    files = {f"events/{day}.parquet": some_events(day, 60, seed) for seed, day in enumerate([*past, *DAYS])}
    absent = {f"events/{day}.parquet": None for day in ("2026-05-02", "2026-05-12")}
    return tiny(root, service=OF_ALL_TIME, data=absent | files)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = project_of_years(tmp_path)
    monkeypatch.setattr(past_cache, "FEWEST_ROWS", 0)
    return made


def files_of(project: Project, root: str) -> dict[str, int]:
    """The kept files by name, and which file each one is."""
    found = (project.root / root / ".cache" / "s").glob("past-*.parquet")
    return {path.name: path.stat().st_ino for path in found}


def from_source(project: Project, monkeypatch: pytest.MonkeyPatch, root: str) -> Run:
    """The same days without the files."""
    with monkeypatch.context() as patch:
        patch.setattr(past_cache, "FEWEST_ROWS", 1 << 60)
        run = project.run("s", DAYS, output_root=str(project.root / root))
    assert not files_of(project, root)
    return run


def test_files_hold_what_the_source_has(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = project.run("s", DAYS, output_root=str(project.root / "kept"))
    plain = from_source(project, monkeypatch, "plain")
    assert files_of(project, "kept")
    assert kept.hashes == plain.hashes
    values = plain.table(DAYS[-1])["ever_liked"].to_pylist()
    assert max(map(len, values)) > 10


def test_late_rows_are_seen(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    first = project.run("s", DAYS, output_root=str(project.root / "kept"))
    before = files_of(project, "kept")
    project.write("events/late.parquet", some_events("2026-04-29", 40, 77))
    again = project.run("s", DAYS, output_root=str(project.root / "kept"))
    assert again.hashes == from_source(project, monkeypatch, "plain").hashes
    assert all(again.hashes[day] != first.hashes[day] for day in DAYS)
    same = {name for name in files_of(project, "kept") if name in before}
    assert any(name.startswith("past-0-16384-") for name in same)


def test_a_broken_file_is_made_again(project: Project) -> None:
    first = project.run("s", DAYS[:1], output_root=str(project.root / "kept"))
    for name in files_of(project, "kept"):
        (project.root / "kept/.cache/s" / name).write_bytes(b"PAR1")
    first.folder(DAYS[0]).rename(project.root / "before")
    assert project.run("s", DAYS[:1], output_root=str(project.root / "kept")).hashes == first.hashes


def test_a_span_that_is_missing_is_put_together_from_those_inside_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = from_source(project, monkeypatch, "plain")
    read: list[list[Span]] = []
    runs = past_cache._runs

    def note(spans: Any) -> list[list[Span]]:
        read.append(list(spans))
        return runs(read[-1])

    monkeypatch.setattr(past_cache, "_runs", note)
    for day in DAYS:
        run = project.run("s", [day], output_root=str(project.root / "kept"))
        assert run.hashes[day] == plain.hashes[day]
    assert [sum(span.length for span in spans) for spans in read[1:]] == [1, 1]


def test_what_is_made_leaves_no_tables_in_the_days_duckdb(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[list[str]] = []
    make = PastCache._make

    def noted(self: PastCache, spans: Any, connection: duckdb.DuckDBPyConnection) -> None:
        make(self, spans, connection)
        found = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        left.append([name for (name,) in found if name.startswith("__past")])

    monkeypatch.setattr(PastCache, "_make", noted)
    project.run("s", DAYS, output_root=str(project.root / "kept"))
    assert left == [[]] * len(DAYS)


def test_spans_cover_each_day_once() -> None:
    for days in (1, 2, 3, 20_574, 20_575, 20_576):
        covered = [day for span in spans_until(days) for day in range(span.first, span.first + span.length)]
        assert covered == list(range(days))
        assert all(span.first % span.length == 0 for span in spans_until(days))
    assert [span.time_range.low_us for span in spans_until(6)] == [None, 4 * 86_400_000_000]
