"""Rows of a DuckLake as other tools leave them: inlined in the catalog, with values that no dtype has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from daedalus.pipelines.days.relation_graph import as_execution_error
from daedalus.storage.duckdb_extensions import bare_connection, load_extensions
from daedalus.storage.sources.base import TickRange
from support.backends import open_view

if TYPE_CHECKING:
    from pathlib import Path

DAY_US = 86_400_000_000
MAY_1 = 20_574 * DAY_US


@pytest.fixture
def lake(tmp_path: Path) -> dict[str, Any]:
    """The `source` of a table whose rows are all in the catalog."""
    (tmp_path / "data").mkdir()
    with bare_connection() as connection:
        load_extensions(connection, "sqlite", "ducklake")
        connection.execute(
            f"ATTACH 'ducklake:sqlite:{tmp_path}/data/lake.db' AS lake "
            f"(DATA_PATH '{tmp_path}/data/files/', DATA_INLINING_ROW_LIMIT 100)"
        )
        connection.execute("CREATE TABLE lake.t (user_id BIGINT, tier VARCHAR, ts TIMESTAMP, until DATE)")
        connection.execute(
            "INSERT INTO lake.t VALUES (1, 'it''s', '2026-05-01 10:00', '2026-06-01'), "
            "(2, NULL, '2026-05-02 10:00', 'infinity')"
        )
    assert not list((tmp_path / "data").glob("files/**/*.parquet"))
    return {"database_path": "ducklake:sqlite:lake.db", "table_name": "t", "timestamp_field": "ts"}


def test_inlined_rows_are_read_and_infinity_is_refused(lake: dict[str, Any], tmp_path: Path) -> None:
    fields = [{"name": "tier", "dtype": "TEXT"}, {"name": "until", "dtype": "DATE"}]
    view = open_view(tmp_path, {"name": "v", "entity": "user", "source": lake, "fields": fields})
    first_day = TickRange(low_us=MAY_1, high_us=MAY_1 + DAY_US)
    assert view.rows(["user_id", "tier"]) == [(1, "it's"), (2, None)]
    assert [row[0] for row in view.rows(["user_id", "until"], first_day)] == [1]
    with pytest.raises(duckdb.Error) as caught:
        view.rows(["until"])
    text = str(as_execution_error(caught.value, "scan"))
    assert "view v" in text
    assert "column until" in text
    assert text.endswith("The first such value: infinity")
