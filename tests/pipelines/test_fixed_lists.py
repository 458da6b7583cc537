"""Fixed-length lists, which DuckDB's CASE cannot hold: read, checked, joined within a ttl, and filled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from daedalus.errors import ExecutionError
from pipelines.tiny import EVENTS, SERVICE, USERS, at, column, tiny

if TYPE_CHECKING:
    from pathlib import Path

    from support.project import Project

DAY = "2026-05-02"
#: Events of users 1, 1 and 1; the pairs are lists in Parquet, as DuckDB reads them all.
PAIRS = [[1, 2], None, [3, 4]]


def project_of(root: Path, join: str, pairs: list[Any] = PAIRS, *, nullable: bool = True) -> Project:
    """The events have a pair each, user 1 a vector that is older than the ttl at nine, user 2 one of another kind."""
    users = pa.table(
        {
            "user_id": pa.array([1, 2, 3], pa.int64()),
            "updated_at": pa.array([at("2026-05-01 08:30")] * 3, pa.timestamp("us")),
            "vector": pa.array([[0.5, 1.5], None, [2.5, None]], pa.list_(pa.float32())),
        }
    )
    fields = [*EVENTS["fields"], {"name": "pair", "dtype": "BIGINT[2]", "nullable": nullable}]
    return tiny(
        root,
        events_view={"fields": fields},
        users_view=USERS | {"ttl": "1d", "fields": [{"name": "vector", "dtype": "FLOAT[2]"}]},
        service=SERVICE
        | {
            "views": [{"view": "users", "join": join}],
            "aggregation_specs": [
                {
                    "name": "numbers",
                    "group_by": ["user_id"],
                    "timestamp_column": "ts",
                    "value_column": "pair",
                    "operation": "flatten_distinct",
                    "window_days": 1,
                }
            ],
            "columns": [
                {"ref": "events:pair", "name": "pair"},
                {"ref": "events:pair", "name": "small", "dtype": "SMALLINT[2]"},
                {"ref": "events:pair", "name": "filled", "nullable": False, "default": [7, 8]},
                "users:vector",
                "rolling:numbers",
            ],
        },
        data={
            "events/2026-05-01.parquet": None,
            "events/2026-05-12.parquet": None,
            f"events/{DAY}.parquet": column("pair", pairs, pa.list_(pa.int64()), DAY),
            "users/a.parquet": users,
        },
    )


@pytest.mark.parametrize("join", ["latest", "asof"])
def test_values_and_nulls_side_by_side(tmp_path: Path, join: str) -> None:
    table = project_of(tmp_path, join).run("s", [DAY]).table(DAY)
    assert table["pair"].to_pylist() == PAIRS
    assert table["small"].to_pylist() == PAIRS
    assert table["filled"].to_pylist() == [[1, 2], [7, 8], [3, 4]]
    assert table["vector"].to_pylist() == [[0.5, 1.5], [0.5, 1.5], None]
    assert table["numbers"].to_pylist() == [[], [], [1, 2]]
    assert [
        pa.types.is_fixed_size_list(table.schema.field(name).type) for name in table.column_names[:4]
    ] == [True] * 4


def test_another_length_is_shown(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match=r"pair.*does not fit the declared BIGINT\[2\].*\[3, 4, 5\]"):
        project_of(tmp_path, "asof", [[1, 2], None, [3, 4, 5]]).run("s", [DAY])


def test_null_is_refused_where_it_is_declared_away(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="pair holds NULL, but is declared nullable: false"):
        project_of(tmp_path, "asof", nullable=False).run("s", [DAY])
