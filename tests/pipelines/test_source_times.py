"""A wrong `timestamp_unit` is said, not swallowed: as the reason for a run without events, else as a note."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from daedalus.cli.main import main
from daedalus.errors import ExecutionError
from pipelines.tiny import DAYS, ROWS, events, tiny, users

if TYPE_CHECKING:
    from pathlib import Path

    from support.project import Project

FIRST = DAYS[0]


def in_seconds(table: pa.Table, name: str) -> pa.Table:
    """The table with its times as whole seconds."""
    ticks = table[name].cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    return table.set_column(table.column_names.index(name), name, ticks)


def test_a_spine_in_another_unit_names_it(tmp_path: Path) -> None:
    project = tiny(
        tmp_path, data={f"events/{day}.parquet": in_seconds(events(ROWS[day]), "ts") for day in DAYS}
    )
    with pytest.raises(ExecutionError, match=r"'ts' is read in ms.*1970-01-21.*timestamp_unit: s"):
        project.run("s")


def test_days_without_events_are_told_which_there_are(tmp_path: Path) -> None:
    project = tiny(tmp_path)
    with pytest.raises(
        ExecutionError, match=rf"no events on 2026-05-29\. Its rows are of {FIRST} to {DAYS[-1]}"
    ):
        project.run("s", ["2026-05-29"])


def test_versions_in_another_unit_are_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project: Project = tiny(
        tmp_path, data={"users/a.parquet": in_seconds(users((1, "2026-04-01", "free")), "updated_at")}
    )
    (note,) = [text for text in project.run("s", [FIRST]).result.notices if "is read in" in text]
    assert note.startswith("view users: 'updated_at' is read in ms")
    assert "Write timestamp_unit: s in the source of " in note
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    assert "'updated_at' is read in ms" in capsys.readouterr().out
