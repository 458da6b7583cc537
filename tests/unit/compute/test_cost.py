"""Histories that would take minutes if anything were quadratic in a key's rows; none of it is timed.

Each result is also checked, against a closed form.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from daedalus.compute import Engine, get_aggregate_pit_table

ROWS = 200_000
#: Plain operations cost no more with a repeated value than without; leaving it out is where the trap lies.
OPERATIONS = ("count", "count_distinct", "first", "last", "min", "max", "sum", "mean", "seconds_since_last")


def spine(**values: Any) -> pa.Table:
    return pa.table({"user_id": np.zeros(ROWS, np.int64), "event_timestamp": np.arange(ROWS), **values})


def spec(operation: str, value: str = "v", **more: Any) -> dict[str, Any]:
    return {"name": operation, "group_by": ["user_id"], "operation": operation, "value_column": value, **more}


def run(table: pa.Table, chosen: list[dict[str, Any]], engine: Engine = Engine.KERNEL) -> pa.Table:
    return get_aggregate_pit_table(engine)(table, chosen)


def test_one_value_repeated_leaves_nothing() -> None:
    table = spine(v=np.full(ROWS, 7), f=np.full(ROWS, 0.1))
    result = run(
        table,
        [
            *(spec(operation, exclude_self=True, max_items=50_000) for operation in OPERATIONS),
            spec("list", exclude_self=True, max_items=32),
            spec("sum", "f", exclude_self=True) | {"name": "floats"},
        ],
    )
    for operation in ("count", "count_distinct"):
        assert set(result[operation].to_pylist()) == {0}
    for name in ("first", "last", "min", "max", "sum", "mean", "seconds_since_last", "floats"):
        assert result[name].null_count == ROWS
    assert (
        result["list"].combine_chunks().values.null_count
        == len(result["list"].combine_chunks().flatten())
        == 0
    )


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64()])
def test_two_values_alternating(kind: pa.DataType) -> None:
    values = np.arange(ROWS) % 2
    result = run(
        spine(v=pa.array(values).cast(kind)),
        [
            *(spec(operation, exclude_self=True) for operation in OPERATIONS),
            spec("list", exclude_self=True, max_items=3),
            spec("sum", exclude_self=True, max_items=1000) | {"name": "capped"},
        ],
    )
    row = np.arange(ROWS)
    others = np.where(values == 0, row // 2, (row + 1) // 2)  # rows before it with the other value
    some = others > 0
    assert (result["count"].to_numpy() == others).all()
    assert (result["count_distinct"].to_numpy() == some).all()
    assert (result["sum"].fill_null(0).to_numpy() == np.where(values == 0, others, 0)).all()
    assert (
        result["capped"].fill_null(0).to_numpy() == np.where(values == 0, np.minimum(others, 1000), 0)
    ).all()
    assert (result["mean"].fill_null(0).to_numpy() == np.where(some, 1 - values, 0)).all()
    for name in ("first", "last", "min", "max"):
        assert (result[name].fill_null(0).to_numpy() == np.where(some, 1 - values, 0)).all()
    assert (result["seconds_since_last"].fill_null(0).to_numpy() == np.where(some, 0.001, 0)).all()
    assert result["list"][-1].as_py() == [0, 0, 0]


def test_many_values_and_one_that_fills_half() -> None:
    rng = np.random.default_rng(3)
    values = np.where(rng.random(ROWS) < 0.5, 0, rng.integers(0, 1000, ROWS))
    result = run(spine(v=values.astype(np.float64)), [spec("sum", exclude_self=True), spec("count_distinct")])
    before = np.concatenate([[0], np.cumsum(values)[:-1]])
    own = np.array([0] * ROWS)
    seen = dict.fromkeys(range(1000), 0)
    for row, value in enumerate(values.tolist()):
        own[row] = seen[value] * value
        seen[value] += 1
    assert (result["sum"].fill_null(0).to_numpy() == before - own).all()
    assert result["count_distinct"].to_pylist()[-1] == len(set(values[:-1].tolist()))


def test_flatten_distinct_of_one_tag_and_of_many() -> None:
    one = pa.ListArray.from_arrays(np.arange(ROWS + 1, dtype=np.int32), pa.array(np.full(ROWS, 3)))
    many = pa.ListArray.from_arrays(np.arange(ROWS + 1, dtype=np.int32), pa.array(np.arange(ROWS)))
    table = spine(one=one, many=many)
    result = run(
        table,
        [
            spec("flatten_distinct", "one"),
            spec("flatten_distinct", "many", max_items=2) | {"name": "many_recent"},
            spec("flatten_distinct", "one", window_days=1) | {"name": "windowed", "max_items": 5},
        ],
    )
    assert result["flatten_distinct"].combine_chunks().flatten().to_pylist() == [3] * (ROWS - 1)
    assert result["many_recent"][-1].as_py() == [ROWS - 3, ROWS - 2]
    assert result["windowed"][1].as_py() == [3]


@pytest.mark.parametrize("engine", list(Engine))
def test_every_engine_finds_windows_in_one_long_history(engine: Engine) -> None:
    order = np.random.default_rng(5).permutation(ROWS)
    table = spine(v=np.arange(ROWS)).take(pa.array(order))
    second = 1 / 86_400
    result = run(table, [spec("count", window_days=100 * second), spec("list", max_items=2)], engine)
    assert (result["count"].to_numpy() == np.minimum(order, 100_000)).all()
    last = result["list"].combine_chunks()
    assert last[int(np.argmax(order))].as_py() == [ROWS - 3, ROWS - 2]


def test_many_rows_of_one_instant() -> None:
    table = spine(v=np.arange(ROWS)).set_column(1, "event_timestamp", pa.array(np.zeros(ROWS, np.int64)))
    result = run(
        table, [spec("count"), spec("count", include_current=True, max_items=9) | {"name": "current"}]
    )
    assert set(result["count"].to_pylist()) == {0}
    assert set(result["current"].to_pylist()) == {9}


def test_a_list_column_that_is_too_long_is_refused() -> None:
    from daedalus.errors import ExecutionError

    with pytest.raises(ExecutionError, match=r"19999900000 values.*max_items"):
        run(spine(v=np.zeros(ROWS, np.int64)), [spec("list")])
