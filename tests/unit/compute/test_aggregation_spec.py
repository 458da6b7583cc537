"""What a spec refuses on its own, and that it survives a round trip."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given

from daedalus.catalog.aggregation import AggregationSpec, Operation
from daedalus.errors import DefinitionError
from support.rolling_strategies import specs

GOOD: dict[str, Any] = {"name": "likes", "group_by": ["user_id"], "operation": "list", "value_column": "item"}

REFUSED = [
    ({"opration": "list"}, "unknown key 'opration'", "Did you mean 'operation'?"),
    ({"operation": "lst"}, "unknown operation 'lst'", "'list'"),
    ({"operation": None}, "operation is missing", ""),
    ({"name": ""}, "name is ''", ""),
    ({"name": 3}, "name is 3", ""),
    ({"group_by": "user_id"}, "not a list", "[user_id]"),
    ({"group_by": []}, "group_by is empty", ""),
    ({"group_by": ["a", 3]}, "not a list of column names", ""),
    ({"group_by": ["a", "a"]}, "twice", ""),
    ({"value_column": None}, "list needs a value_column", ""),
    ({"value_column": ["a"]}, "value_column is ['a']", ""),
    ({"timestamp_unit": "min"}, "unknown timestamp_unit 'min'", "s, ms, us or ns"),
    ({"include_current": 1}, "include_current is 1", ""),
    ({"exclude_self": "yes"}, "exclude_self is 'yes'", ""),
    ({"window_days": True}, "window_days is True", ""),
    ({"window_days": "7"}, "window_days is '7'", ""),
    ({"window_days": 0}, "window_days is 0", "include_current: true"),
    ({"window_days": -1, "include_current": True}, "window_days is -1", ""),
    ({"window_days": float("nan")}, "window_days is nan", ""),
    ({"window_days": float("inf")}, "window_days is inf", ""),
    ({"max_items": 0}, "max_items is 0", ""),
    ({"max_items": 1.0}, "max_items is 1.0", ""),
    ({"max_items": True}, "max_items is True", ""),
    ({"delay_seconds": -1}, "delay_seconds is -1", ""),
    ({"delay_seconds": False}, "delay_seconds is False", ""),
    ({"condition": "  "}, "condition is '  '", ""),
    ({"history_group_by": ["a"]}, "without a history_view", ""),
    ({"history_timestamp_column": "a"}, "without a history_view", ""),
    ({"history_view": "v", "history_group_by": ["a", "b"]}, "as many columns as group_by", ""),
    ({"operation": "flatten_distinct", "exclude_self": True}, "flatten_distinct", "Remove exclude_self"),
    ({"operation": "count", "value_column": None, "exclude_self": True}, "exclude_self compares", ""),
]


@pytest.mark.parametrize(("change", "what", "hint"), REFUSED, ids=[str(case[0]) for case in REFUSED])
def test_refusals_say_where_what_and_the_mend(change: dict[str, Any], what: str, hint: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        AggregationSpec.from_mapping(GOOD | change, "config/x.yaml, $.aggregation_specs[0]")
    text = str(caught.value)
    assert what in text
    assert hint in text
    assert "config/x.yaml, $.aggregation_specs[0]: aggregation spec" in text


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(DefinitionError) as caught:
        AggregationSpec.from_mapping({"name": "x", "grup_by": ["a"], "operation": "sum", "max_items": 0})
    assert len(caught.value.problems) == 4


def test_the_constructor_checks_the_same_rules() -> None:
    with pytest.raises(DefinitionError, match="max_items is 0"):
        AggregationSpec(**(GOOD | {"max_items": 0}))
    with pytest.raises(DefinitionError, match="include_current is None"):
        AggregationSpec(**(GOOD | {"include_current": None}))


def test_a_mapping_that_is_none() -> None:
    with pytest.raises(DefinitionError, match="mapping of keys"):
        AggregationSpec.from_mapping(["name"])  # type: ignore[arg-type]


def test_empty_keys_take_their_defaults() -> None:
    spec = AggregationSpec.from_mapping(
        GOOD | {"condition": None, "timestamp_column": None, "max_items": None}
    )
    assert spec == AggregationSpec.from_mapping(GOOD)
    assert spec.timestamp_column == "event_timestamp"
    assert spec.operation is Operation.LIST
    assert spec.group_by == ("user_id",)


def test_zero_window_reads_the_same_instant_only_with_include_current() -> None:
    assert AggregationSpec.from_mapping(GOOD | {"window_days": 0, "include_current": True}).window_days == 0


@given(mapping=specs("s", views=(None, "other")))
def test_round_trip(mapping: dict[str, Any]) -> None:
    spec = AggregationSpec.from_mapping(mapping)
    assert AggregationSpec.from_mapping(spec.to_mapping()) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert hash(spec) == hash(AggregationSpec.from_mapping(spec.to_mapping()))
    assert type(spec.to_mapping()["operation"]) is str


def test_a_whole_number_is_one_however_it_is_written() -> None:
    mapping = {"name": "x", "group_by": ["a"], "operation": "count"}
    one = AggregationSpec.from_mapping({**mapping, "window_days": 7.0, "delay_seconds": 60.0})
    assert repr(one) == repr(AggregationSpec.from_mapping({**mapping, "window_days": 7, "delay_seconds": 60}))


def test_the_catalog_path_resolves_to_the_same_objects() -> None:
    import daedalus.catalog.compute as documented
    import daedalus.compute as real

    for name in documented.__all__:
        assert getattr(documented, name) is getattr(real, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        documented.nothing  # noqa: B018
