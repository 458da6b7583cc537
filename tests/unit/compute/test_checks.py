"""What `aggregate_pit_table` refuses once it sees the tables."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from daedalus.compute import Engine, aggregate_pit_table, get_aggregate_pit_table
from daedalus.errors import DefinitionError, ExecutionError

SPINE = pa.table(
    {
        "user_id": pa.array([1, 1]),
        "event_timestamp": pa.array([0, 1]),
        "event": ["like", "view"],
        "item": pa.array([7, 8]),
        "score": pa.array([0.5, 1.5]),
        "tags": pa.array([[1], [2]]),
        "deep": pa.array([[[1]], [[2]]]),
        "pair": pa.array([{"a": 1}, {"a": 2}]),
        "span": pa.array([1, 2], pa.duration("s")),
        "price": pa.array([1, 2], pa.decimal128(9, 2)),
        "bytes": pa.array([b"a", b"b"]),
        "day": pa.array([1, 2], pa.date32()),
        "small": pa.array([1, 2], pa.int32()),
    }
)
SPEC: dict[str, Any] = {"name": "s", "group_by": ["user_id"], "operation": "list", "value_column": "item"}
OTHER = pa.table(
    {
        "user_id": pa.array(["a"]),
        "author": pa.array([1]),
        "at": pa.array([0], pa.timestamp("us")),
        "item": ["x"],
    }
)

REFUSED = [
    ({"value_column": "itm"}, "value_column 'itm' is not a column of the spine", "Did you mean 'item'?"),
    ({"group_by": ["user"]}, "group_by 'user' is not a column", "'user_id'"),
    ({"timestamp_column": "event_timestmp"}, "timestamp_column", "'event_timestamp'"),
    ({"name": "item"}, "has a column of this name", "Rename"),
    ({"group_by": ["score"]}, "floats do not identify", "Cast"),
    ({"group_by": ["tags"]}, "not a scalar", ""),
    ({"value_column": "tags"}, "list does not take 'tags'", "flatten_distinct"),
    ({"value_column": "pair"}, "list does not take 'pair'", ""),
    ({"operation": "flatten_distinct"}, "flatten_distinct does not take 'item'", "list of scalars"),
    ({"operation": "flatten_distinct", "value_column": "deep"}, "does not take 'deep'", ""),
    ({"operation": "sum", "value_column": "price"}, "sum does not take 'price'", "integers and floats"),
    ({"operation": "mean", "value_column": "event"}, "mean does not take 'event'", ""),
    ({"operation": "max", "value_column": "bytes"}, "max does not take 'bytes'", ""),
    ({"operation": "min", "value_column": "span"}, "min does not take 'span'", ""),
    ({"operation": "count", "value_column": "tags", "exclude_self": True}, "exclude_self", "scalar"),
    ({"timestamp_column": "day"}, "not a timestamp or int64", "Cast"),
    ({"timestamp_column": "small"}, "not a timestamp or int64", "int64 in ms"),
    ({"window_days": 1e-12}, "less than one tick", ""),
    ({"history_view": "othr"}, "no history is given for history_view 'othr'", "'other'"),
    ({"history_view": "other"}, "'event_timestamp' is not a column of history other", ""),
    (
        {"history_view": "other", "history_timestamp_column": "at", "history_group_by": ["author"]},
        "'at' of history other is timestamp[us]",
        "Cast one",
    ),
    ({"condition": "hist.evnt = 'like'"}, "evnt", "event"),
    ({"condition": "event = 'like'"}, "event", ""),
    ({"condition": "hist.item"}, "BIGINT, not boolean", ""),
    ({"condition": "hist.item ="}, "not an SQL expression", ""),
    ({"condition": "hist.tags > 3"}, "condition", ""),
    ({"condition": "hist.item > random()"}, "random", ""),
    ({"condition": "sum(hist.item) > 1"}, "sum", ""),
    ({"condition": "hist.item > 1 -- why"}, "comment", ""),
    ({"condition": "hist.item = 1; DROP TABLE x"}, "semicolon", ""),
    ({"condition": "hist.item IN (SELECT 1)"}, "subquery", ""),
]


@pytest.mark.parametrize(("change", "what", "hint"), REFUSED, ids=[str(case[0]) for case in REFUSED])
def test_refusals_name_the_spec_and_the_mend(change: dict[str, Any], what: str, hint: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        aggregate_pit_table(SPINE, [SPEC | change], history={"other": OTHER})
    text = str(caught.value)
    assert what.lower() in text.lower()
    assert hint.lower() in text.lower()
    assert f"aggregation spec {change.get('name', 's')}" in text


def test_key_types_must_meet() -> None:
    clock = SPINE.append_column("at", SPINE["event_timestamp"].cast(pa.timestamp("us")))
    spec = SPEC | {"history_view": "other", "timestamp_column": "at"}
    with pytest.raises(DefinitionError, match="is int64 in the spine, but 'user_id' is string"):
        aggregate_pit_table(clock, [spec], history={"other": OTHER})
    spec |= {"history_group_by": ["author"], "exclude_self": True}
    with pytest.raises(DefinitionError, match="exclude_self compares 'item', int64 in the spine and string"):
        aggregate_pit_table(clock, [spec], history={"other": OTHER})


def test_one_name_twice() -> None:
    with pytest.raises(DefinitionError, match="2 aggregation specs are named 's'"):
        aggregate_pit_table(SPINE, [SPEC, SPEC])
    doubled = pa.Table.from_arrays([SPINE["item"], SPINE["item"]], names=["a", "a"])
    with pytest.raises(DefinitionError, match="2 columns named 'a'"):
        aggregate_pit_table(doubled, [])


def test_every_misfit_is_reported_at_once() -> None:
    with pytest.raises(DefinitionError) as caught:
        aggregate_pit_table(
            SPINE, [SPEC | {"value_column": "x"}, SPEC | {"name": "t", "group_by": ["score"]}]
        )
    assert len(caught.value.problems) == 2


def test_unknown_engines_and_configurations() -> None:
    with pytest.raises(DefinitionError, match="Did you mean 'duckdb'"):
        get_aggregate_pit_table("duckd")
    with pytest.raises(DefinitionError, match="duckdb_config"):
        get_aggregate_pit_table(Engine.DUCKDB)(SPINE, [SPEC], duckdb_config={"thrads": 1})


def test_a_condition_that_fails_on_a_row_names_the_spec() -> None:
    spec = SPEC | {"condition": "CAST(hist.event AS INTEGER) = 1"}
    with pytest.raises(ExecutionError, match=r"aggregation spec s: CAST.*TRY_CAST"):
        aggregate_pit_table(SPINE, [spec])


def test_an_integer_sum_outside_int64_is_an_error() -> None:
    big = pa.table({"user_id": [1] * 3, "event_timestamp": [0, 1, 2], "item": [2**63 - 1, 1, 0]})
    spec = SPEC | {"operation": "sum"}
    with pytest.raises(ExecutionError, match="9223372036854775808, outside int64"):
        aggregate_pit_table(big, [spec])
    assert aggregate_pit_table(big, [spec | {"max_items": 1}])["s"].to_pylist() == [None, 2**63 - 1, 1]
