"""A spec that names no time column has the spine's, and that of its history view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from daedalus.errors import DefinitionError
from pipelines.tiny import EVENTS, SERVICE, USERS, column, tiny

if TYPE_CHECKING:
    from pathlib import Path

DAY = "2026-05-02"
UNNAMED = [
    {key: value for key, value in spec.items() if key != "timestamp_column"}
    for spec in SERVICE["aggregation_specs"]
]
CHANGES = {
    "name": "changes",
    "group_by": ["user_id"],
    "operation": "list",
    "value_column": "tier",
    "window_days": 60,
    "history_view": "users",
}


def service(specs: list[dict[str, Any]]) -> dict[str, Any]:
    columns = ["events:user_id", "events:ts", *(f"rolling:{spec['name']}" for spec in specs)]
    return {"aggregation_specs": specs, "columns": columns, "views": []}


def test_the_spines_time_is_meant(tmp_path: Path) -> None:
    named = tiny(tmp_path / "named", service=service(SERVICE["aggregation_specs"])).run("s", [DAY])
    unnamed = tiny(tmp_path / "unnamed", service=service(UNNAMED)).run("s", [DAY])
    assert unnamed.table(DAY).equals(named.table(DAY))
    assert unnamed.table(DAY)["liked"].to_pylist() == [[10], [10], [10, 12]]


def test_a_history_views_time_is_its_own(tmp_path: Path) -> None:
    table = tiny(tmp_path, service=service([CHANGES])).run("s", [DAY]).table(DAY)
    assert table["changes"].to_pylist() == [["free"], ["free"], ["free", "pro"]]
    assert USERS["source"]["timestamp_field"] != EVENTS["source"]["timestamp_field"]


def test_a_column_of_the_default_name_that_is_not_the_time_is_no_guess(tmp_path: Path) -> None:
    other = column("event_timestamp", [None] * 3, pa.timestamp("us"), DAY)
    project = tiny(
        tmp_path,
        events_view={"fields": [*EVENTS["fields"], {"name": "event_timestamp", "dtype": "TIMESTAMP"}]},
        service=service(UNNAMED),
        data={
            "events/2026-05-01.parquet": None,
            "events/2026-05-12.parquet": None,
            f"events/{DAY}.parquet": other,
        },
    )
    with pytest.raises(
        DefinitionError, match="timestamp_column is 'event_timestamp', the spine's time is 'ts'"
    ):
        project.run("s", [DAY])


def test_another_name_is_refused(tmp_path: Path) -> None:
    project = tiny(tmp_path, service=service([UNNAMED[1] | {"timestamp_column": "tss"}]))
    with pytest.raises(DefinitionError, match="unknown column 'tss'"):
        project.run("s", [DAY])
