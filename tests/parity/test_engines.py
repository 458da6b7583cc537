"""Every engine gives the same table: the example of the semantics page, and every Arrow type kept exactly."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from daedalus.compute import Engine, get_aggregate_pit_table
from support.oracle import assert_agrees, comparable

HOUR = 3_600_000


@pytest.fixture(params=list(Engine))
def aggregate(request: pytest.FixtureRequest) -> Any:
    return get_aggregate_pit_table(request.param)


def spec(operation: str, value: str | None = "v", **more: Any) -> dict[str, Any]:
    name = f"{operation}_{'_'.join(more)}"
    return {"name": name, "group_by": ["user_id"], "operation": operation, "value_column": value, **more}


def test_the_example_of_the_semantics(aggregate: Any) -> None:
    spine = pa.table(
        {
            "user_id": [1] * 7,
            "event_timestamp": [int(hours * HOUR) for hours in (0, 1, 1, 2, 3, 24, 25.5)],
            "event": ["like_click", "like_click", "view", "like_click", "view", "view", "view"],
            "v": [7, 8, 7, 9, 9, 5, 5],
        }
    )
    liked = spec("list", window_days=1, condition="hist.event = 'like_click'", max_items=2, exclude_self=True)
    result = aggregate(spine, [liked])[liked["name"]]
    assert result.type == pa.list_(pa.int64())
    assert result.to_pylist() == [[], [7], [], [7, 8], [7, 8], [8, 9], [9]]


VALUES = [
    pa.array([1, 2, None, 1], pa.int8()),
    pa.array([1, 2**64 - 1, None, 1], pa.uint64()),
    pa.array([1.5, float("nan"), None, 1.5], pa.float32()),
    pa.array([1.5, float("nan"), None, 1.5], pa.float16()),
    pa.array([True, False, None, True]),
    pa.array(["a", "ä", None, "a"]),
    pa.array(["a", "ä", None, "a"], pa.large_string()),
    pa.array(["a", "ä", None, "a"], pa.string_view()),
    pa.array(["a", "ä", None, "a"]).dictionary_encode(),
    pa.array([b"a", b"b", None, b"a"]),
    pa.array([b"a", b"b", None, b"a"], pa.binary(1)),
    pa.array([b"a", b"b", None, b"a"], pa.binary_view()),
    pa.array([Decimal("1.5"), Decimal("2.5"), None, Decimal("1.5")], pa.decimal128(30, 3)),
    pa.array([Decimal("1.5"), Decimal("2.5"), None, Decimal("1.5")], pa.decimal256(60, 3)),
    pa.array([Decimal("1.5"), Decimal("2.5"), None, Decimal("1.5")], pa.decimal32(5, 1)),
    pa.array([1, 2, None, 1], pa.date32()),
    pa.array([86_400_000, 2 * 86_400_000, None, 86_400_000], pa.date64()),
    pa.array([1, 2, None, 1], pa.time32("ms")),
    pa.array([1, 2, None, 1], pa.time64("ns")),
    pa.array([1, 2, None, 1], pa.timestamp("ns", "Asia/Tokyo")),
    pa.array([1, 2, None, 1], pa.duration("ns")),
    pa.array([(1, 2, 3), (1, 2, 4), None, (1, 2, 3)], pa.month_day_nano_interval()),
    pa.nulls(4),
]


@pytest.mark.parametrize("values", VALUES, ids=[str(values.type) for values in VALUES])
def test_every_scalar_type_is_kept(aggregate: Any, values: pa.Array) -> None:
    spine = pa.table({"user_id": [1] * 4, "event_timestamp": [0, 1, 2, 3], "v": values})
    result = aggregate(
        spine,
        [
            spec("list"),
            spec("list", exclude_self=True),
            spec("first"),
            spec("last", exclude_self=True),
            spec("count", exclude_self=True),
            spec("count_distinct"),
        ],
    )
    assert result["list_"].type == pa.list_(pa.field("item", values.type))
    assert result["first_"].type == values.type
    present = comparable(pa.chunked_array([values.cast(pa.string()) if "view" in str(values.type) and "str" in
                                           str(values.type) else values]))  # fmt: skip
    one, two = present[0], present[1]
    empty = values.type == pa.null()
    lists = comparable(pa.chunked_array([result["list_"].chunk(0)]))
    assert lists == ([()] * 4 if empty else [(), (one,), (one, two), (one, two)])
    others = comparable(result["list_exclude_self"])
    assert others == ([()] * 4 if empty else [(), (one,), (one, two), (two,)])
    assert comparable(result["first_"]) == ([None] * 4 if empty else [None, one, one, one])
    assert comparable(result["last_exclude_self"]) == ([None] * 4 if empty else [None, one, two, two])
    assert result["count_exclude_self"].to_pylist() == ([0] * 4 if empty else [0, 1, 2, 1])
    assert result["count_distinct_"].to_pylist() == ([0] * 4 if empty else [0, 1, 2, 2])


def test_text_orders_by_its_bytes_and_nan_is_largest(aggregate: Any) -> None:
    nan = float("nan")
    spine = pa.table(
        {
            "user_id": [1] * 4,
            "event_timestamp": [0, 1, 2, 3],
            "v": ["\U0001f600", "\uffff", "Z", "a"],
            "f": [0.0, -0.0, nan, 1.0],
        }
    )
    result = aggregate(
        spine, [spec("min"), spec("max"), spec("min", "f", max_items=9), spec("max", "f", max_items=9)]
    )
    assert result["max_"].to_pylist() == [None, "\U0001f600", "\U0001f600", "\U0001f600"]
    assert result["min_"].to_pylist() == [None, "\U0001f600", "\uffff", "Z"]
    assert [repr(value) for value in result["min_max_items"].to_pylist()] == ["None", "0.0", "0.0", "0.0"]
    assert [repr(value) for value in result["max_max_items"].to_pylist()] == ["None", "0.0", "0.0", "nan"]


def test_dictionaries_of_several_chunks_agree(aggregate: Any) -> None:
    chunks = [pa.array(["x", "y"]).dictionary_encode(), pa.array(["y", None, "z"]).dictionary_encode()]
    spine = pa.table(
        {
            "user_id": pa.chunked_array(chunks),
            "event_timestamp": [0, 1, 2, 3, 4],
            "v": pa.chunked_array(chunks),
        }
    )
    chosen = [spec("list", include_current=True), spec("count_distinct")]
    assert_agrees(aggregate(spine, chosen), spine, chosen)


def test_metadata_order_and_foreign_columns_are_kept(aggregate: Any) -> None:
    spine = pa.table(
        {"odd": pa.array([{"a": 1}, None]), "user_id": [1, 1], "event_timestamp": [5, 0], "v": [1, 2]}
    ).replace_schema_metadata({"k": "v"})
    result = aggregate(spine, [spec("count", None)])
    assert result.drop_columns(["count_"]).equals(spine, check_metadata=True)
    assert result["count_"].to_pylist() == [1, 0]


@pytest.mark.parametrize("rows", [0, 1])
def test_hardly_any_rows(aggregate: Any, rows: int) -> None:
    spine = pa.table(
        {
            "user_id": pa.array([1] * rows, pa.int64()),
            "event_timestamp": pa.array([0] * rows, pa.int64()),
            "v": pa.array([1.0] * rows, pa.float64()),
            "tags": pa.array([[1]] * rows, pa.list_(pa.int64())),
        }
    )
    operations = ["list", "count", "count_distinct", "first", "last", "min", "max", "sum", "mean"]
    chosen = [spec(operation, exclude_self=True) for operation in [*operations, "seconds_since_last"]]
    chosen.append(spec("flatten_distinct", "tags"))
    assert_agrees(aggregate(spine, chosen), spine, chosen)
    condition = [one | {"condition": "hist.v > 5"} for one in chosen]
    assert_agrees(aggregate(spine, condition), spine, condition)


@pytest.mark.parametrize("kind", ["s", "ms", "us", "ns"])
def test_units_and_instants_at_the_ends_of_time(aggregate: Any, kind: str) -> None:
    low, high = -(2**63), 2**63 - 1
    spine = pa.table(
        {"user_id": [1] * 5, "event_timestamp": [low, low + 1, 0, high - 1, high], "v": [1, 2, 3, 4, 5]}
    )
    chosen = [
        spec("list", timestamp_unit=kind),
        spec("count", timestamp_unit=kind, include_current=True, delay_seconds=1),
        spec("list", timestamp_unit=kind, window_days=1e9, delay_seconds=3),
        spec("list", timestamp_unit=kind, window_days=1e-4, include_current=True),
        spec("seconds_since_last", timestamp_unit=kind),
        spec("list", timestamp_unit=kind, max_items=1, delay_seconds=1e15),
    ]
    assert_agrees(aggregate(spine, chosen), spine, chosen)


def test_session_time_is_utc(aggregate: Any) -> None:
    late = dt.datetime(2026, 1, 1, 23, 30, tzinfo=dt.UTC)
    spine = pa.table(
        {
            "user_id": [1, 1],
            "event_timestamp": pa.array([late, late + dt.timedelta(hours=1)], pa.timestamp("us", "UTC")),
            "v": [1, 2],
        }
    )
    chosen = spec("list", condition="hist.event_timestamp::DATE = DATE '2026-01-01'")
    assert aggregate(spine, [chosen])[chosen["name"]].to_pylist() == [[], [1]]


def test_columns_that_differ_in_case_only(aggregate: Any) -> None:
    spine = pa.table({"user_id": [1, 1], "event_timestamp": [0, 1], "v": [1, 2], "V": [-1, -2]})
    chosen = spec("list", "V", condition="hist.v > 0")
    assert aggregate(spine, [chosen])[chosen["name"]].to_pylist() == [[], [-1]]


def test_history_views_under_other_names(aggregate: Any) -> None:
    spine = pa.table(
        {"user_id": pa.array([1, 2, None], pa.int32()), "event_timestamp": [10, 10, 10], "v": [7, 8, 9]}
    )
    arrivals = pa.table(
        {"author": [2, 1, 1, 3], "at": [9, 10, 3, 1], "v": pa.array([8, 7, 6, 5], pa.int16())}
    )
    chosen = spec("list", history_view="arrivals", history_group_by=["author"], history_timestamp_column="at")
    specs = [chosen, chosen | {"name": "x", "exclude_self": True, "include_current": True}]
    result = aggregate(spine, specs, history={"arrivals": arrivals})
    assert result[chosen["name"]].to_pylist() == [[6], [8], []]
    assert result["x"].to_pylist() == [[6], [], []]
    assert result["x"].type == pa.list_(pa.int16())


def test_duckdb_config_reaches_the_session(aggregate: Any) -> None:
    spine = pa.table({"user_id": [1, 1], "event_timestamp": [0, 1], "v": [1, 2]})
    config = {"threads": "1", "memory_limit": "200MB", "preserve_insertion_order": "false"}
    chosen = spec("sum", condition="hist.v > 0")
    assert aggregate(spine, [chosen], duckdb_config=config)["sum_condition"].to_pylist() == [None, 1]


def test_float_sums_neither_cancel_nor_overflow(aggregate: Any) -> None:
    spine = pa.table(
        {
            "user_id": [1] * 6,
            "event_timestamp": list(range(6)),
            "v": [1e308, 1e308, -1e308, 1e-300, 1e-300, 0.0],
        }
    )
    chosen = [
        spec("sum"),
        spec("mean"),
        spec("sum", max_items=2),
        spec("mean", max_items=2),
    ]
    assert_agrees(aggregate(spine, chosen), spine, chosen)
