"""Names that collide with the pipeline's own, broken history files, and days whose events are gone."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daedalus.errors import CompileError, DefinitionError
from support.project import Project, instants, write_project

if TYPE_CHECKING:
    from pathlib import Path

SECOND = "2026-01-02"
EVENTS = "events/part-0.parquet"
SPEC = {
    "group_by": ["user_id"],
    "operation": "count",
    "timestamp_column": "event_timestamp",
    "window_days": 1,
}


def project(
    root: Path, *, spine: str = "events", specs: tuple[str, ...] = ("seen",), columns: list[str] | None = None
) -> Project:
    view = {
        "name": spine,
        "entity": "user",
        "source": {"path": "events", "timestamp_field": "event_timestamp"},
        "fields": [{"name": "event", "dtype": "TEXT"}],
    }
    service = {
        "name": "s",
        "version": "2026-01-01",
        "spine": spine,
        "columns": columns or [f"{spine}:user_id", f"{spine}:event", "rolling:seen"],
    }
    rows = pa.table(
        {
            "user_id": [1, 1, 1],
            "event_timestamp": instants("2026-01-01 10:00", "2026-01-01 11:00", "2026-01-02 10:30"),
            "event": ["a", "b", "c"],
        }
    )
    return write_project(
        root,
        views=[view],
        services=[service],
        data={EVENTS: rows},
        aggregations={"aggregation_specs": [SPEC | {"name": name} for name in specs]},
        feed_start="202601",
        feed_end="202601",
        embedding_coverage_filter={"enabled": False},
    )


@pytest.mark.parametrize("name", ["output", "target_rows", "sink"])
def test_a_view_called_like_an_operator_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CompileError, match=f"the name '{name}' of a view.*one of the pipeline's own"):
        project(tmp_path, spine=name).run("s")


def test_an_unused_spec_may_be_called_like_a_column(tmp_path: Path) -> None:
    run = project(tmp_path, specs=("seen", "event")).run("s")
    assert run.table(SECOND)["event"].to_pylist() == ["c"]


def test_a_used_spec_called_like_a_column_is_refused(tmp_path: Path) -> None:
    made = project(tmp_path, specs=("event",), columns=["events:user_id", "rolling:event"])
    with pytest.raises(DefinitionError, match="rolling spec 'event' is called like a column"):
        made.run("s")


def test_a_broken_history_file_is_made_again(tmp_path: Path) -> None:
    made = project(tmp_path)
    before = made.run("s").hashes
    kept = sorted(tmp_path.rglob("history-*.parquet"))
    assert kept
    for file in kept:
        file.write_bytes(file.read_bytes()[:20])
    for folder in tmp_path.rglob("dt=*"):
        if folder.parent.name == "skeleton":
            shutil.rmtree(folder)
    run = made.run("s")
    assert set(run.states.values()) == {"written"}
    assert run.hashes == before


def test_a_day_whose_events_are_gone_is_named(tmp_path: Path) -> None:
    made = project(tmp_path)
    assert made.run("s").result.notices == ()
    rows = pq.read_table(tmp_path / "data" / EVENTS)
    made.write(EVENTS, rows.slice(0, 2))
    [notice] = made.run("s").result.notices
    assert "no events any more for 2026-01-02" in notice
